"""The errors that gradwitness raises on its own account.

Each message says what is wrong, where, what was expected, what came, and how to mend it.
"""

from collections.abc import Iterable

__all__ = ["GradwitnessError", "ProblemError", "ShapeError", "TraceError", "UnknownName", "UnsupportedError"]


class GradwitnessError(Exception):
    """Base of every error that gradwitness raises on its own account."""


class ShapeError(GradwitnessError):
    """An op refused its operands; the tracer adds the op, the user's line and the operands."""


class TraceError(GradwitnessError):
    """A loss could not be traced into a graph."""


class ProblemError(GradwitnessError):
    """Params or batch cannot be differentiated as they stand."""


class UnknownName(GradwitnessError):
    """A network, backend, dtype, device or op that does not exist was asked for."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = ", ".join(sorted(known))
        super().__init__(f"unknown {kind} {name!r}; there is: {names}")


class UnsupportedError(GradwitnessError):
    """A backend has declared that it cannot run this op, dtype or device, or is not installed."""
