"""A training as it runs: what goes wrong in it although each gradient is right."""

from gradwitness.watching.watched import Watch, watch

__all__ = ["Watch", "watch"]
