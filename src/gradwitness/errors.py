"""The errors that gradwitness raises on its own account.

Each message says what is wrong, where, what was expected, what came, and how to mend it.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = [
    "VALUES_ALONE",
    "BypassedError",
    "CaptureError",
    "GradwitnessError",
    "NarrowerError",
    "NoAnswerError",
    "NotOneNumberError",
    "ProblemError",
    "ShapeError",
    "TraceError",
    "UnknownName",
    "UnsupportedError",
]

VALUES_ALONE = "NumPy, and backends like it, record no ops: there is nothing to trace"
NEAR = 0.65  # how like a name must be to one that there is, to be taken for it


class GradwitnessError(Exception):
    """Base class of every error that gradwitness raises itself."""


class ShapeError(GradwitnessError):
    """An op refused its operands; the tracer adds the op, the user's line and the operands."""


class TraceError(GradwitnessError):
    """A loss could not be traced into a graph."""


class CaptureError(GradwitnessError):
    """A loss in a framework's own arrays could not be read into a graph: what, and at which line."""


class NotOneNumberError(GradwitnessError):
    """A loss returned an array of this shape instead of one number, or several arrays, whose shapes are nested as they
    are."""

    def __init__(self, shape: Any, advice: str = "end it in a mean or a sum") -> None:
        self.shape = shape
        several = not isinstance(shape, tuple) or any(not isinstance(n, int) for n in shape)
        if several and (first := _first_number(shape)):
            advice = f"give the number alone, lambda params, batch: loss(params, batch){first}"
        got = f"several arrays, of shapes {shape}" if several else f"an array of shape {shape}"
        super().__init__(
            f"the loss must return one number, got {got}: {advice}, or give "
            'verify(cotangent="random"), which weighs its elements at random, or weights of your own'
        )


def _first_number(shapes: Any) -> str:
    """What takes the first of several outputs, or the one called "loss", if that is one number; else empty."""
    if isinstance(shapes, list | tuple):
        return "[0]" if len(shapes) > 1 and shapes[0] == () else ""
    return '["loss"]' if isinstance(shapes, dict) and shapes.get("loss") == () else ""


class BypassedError(GradwitnessError):
    """A derivative rule that was to be verified (`Candidate.custom`) had no part in the gradient."""


class NoAnswerError(GradwitnessError):
    """The subprocess that holds a candidate gave no answer: in the time it had, or at all, as it has ended."""


class ProblemError(GradwitnessError):
    """Params or batch cannot be differentiated as they stand."""


class UnknownName(GradwitnessError):
    """A network, backend, dtype, device or op that does not exist was asked for.

    meant: which of those that there are, if that is known; by default the one whose name is nearest.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, meant: str | None = None) -> None:
        names = sorted(map(str, known))
        if meant is None and len(names) > 1:
            meant = next(iter(get_close_matches(str(name), names, 1, NEAR)), None)
        there = f"did you mean {meant!r}? There is: " if meant else "there is: "
        super().__init__(f"unknown {kind} {name!r}; {there}{', '.join(names)}")


class UnsupportedError(GradwitnessError):
    """A backend has declared that it cannot run this op, dtype or device, or is not installed."""


class NarrowerError(UnsupportedError):
    """A loss that is called in float64 computes in a narrower dtype inside."""
