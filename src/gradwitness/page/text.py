"""Text that comes from elsewhere, such as labels and messages of errors."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """With what HTML cannot hold, control characters and surrogates, and what turns its direction, written out."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
