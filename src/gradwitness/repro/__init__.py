"""A wrong gradient as a script that stands alone: shrunk, written as source text, and run before it is handed over."""

from gradwitness.repro.export import export

__all__ = ["export"]
