"""Losses that are large or small as a whole: nothing may depend on the unit in which a loss is measured."""

from __future__ import annotations

from benchmarks.adversary.corpus import Subject
from benchmarks.adversary.faults import elements, factor, left_out, zeros
from benchmarks.adversary.frameworks import Loss
from benchmarks.adversary.kinds.points import normal

__all__ = ["SUBJECTS"]

WRONG = (factor(1.01), zeros("b"), elements([5], -1.0, leaf="w", off=0.02), left_out("w"), factor(-1.0, "b"))


def _times(scale: float, unit: float) -> Loss:
    """A regression with parameters in units of `unit`."""
    return lambda f, p, b: scale * (f.tanh(b["x"] @ (p["w"] / unit).T + p["b"] / unit) ** 2 * b["c"]).mean()


SUBJECTS = (
    *(
        Subject(
            f"times {scale:g}",
            _times(scale, 1.0),
            normal(w=(4, 3), b=4),
            WRONG,
            normal(1.0, 0.5, x=(6, 3), c=(6, 4)),
            dtypes=dtypes,
            demanded=dtypes,
        )
        for scale, dtypes in (
            (1e-100, ("float64",)),
            (1e-12, ("float64", "float32")),
            (1e12, ("float64", "float32")),
            (1e100, ("float64",)),
        )
    ),
    *(
        Subject(
            f"parameters in units of {unit:g}",
            _times(1.0, unit),
            normal(unit, w=(4, 3), b=4),
            WRONG,
            normal(1.0, 0.5, x=(6, 3), c=(6, 4)),
            frameworks=("numpy", "torch"),
            dtypes=("float64", "float32"),
            demanded=("float64", "float32"),
        )
        for unit in (1e-8, 1e8)
    ),
)
