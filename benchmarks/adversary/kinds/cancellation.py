"""Candidates that lose digits by cancellations of their own, which must not widen what they are allowed."""

from __future__ import annotations

from benchmarks.adversary.corpus import Change, Subject
from benchmarks.adversary.faults import cancelled, factor
from benchmarks.adversary.kinds.points import normal, uniform
from benchmarks.adversary.kinds.smooth import least_squares

__all__ = ["SUBJECTS"]


def _behind(large: float) -> Change:
    return lambda f, g, p, b: {k: (g[k] + large * p[k]) - large * p[k] for k in g}


SUBJECTS = (
    Subject(
        "squares behind a cancellation",
        lambda f, p, b: (p["w"] ** 2).sum(),
        normal(w=5),
        (
            cancelled(1.1, 1e14),
            cancelled(1.3, 3e14),
            cancelled(1.4, 4e14),
            cancelled(1.5, 5e14),
            cancelled(1.1, 1e10),
            cancelled(-1.0, 1e14),
        ),
        seeds=(0, 1),
    ),
    Subject(
        "least squares behind a cancellation",
        least_squares,
        normal(w=(4, 3), b=4),
        (cancelled(1.2, 1e14, "w"), cancelled(1.1, 3e13, "b"), cancelled(1.05, 1e8)),
        normal(x=(6, 3), y=(6, 4)),
    ),
    Subject(  # in NumPy, where nobody can look into it, it would be a formula that is off by 1e-10
        "right, behind a cancellation that can be looked into",
        least_squares,
        normal(w=(4, 3), b=4),
        (factor(1.01), factor(-1.0, "b")),
        normal(x=(6, 3), y=(6, 4)),
        frameworks=("torch", "jax"),
        rights={f"behind {large:g} x": _behind(large) for large in (1e2, 1e6)},
    ),
    Subject(
        "1 - cos by subtraction",
        lambda f, p, b: ((1 - f.cos(p["w"])) * b["c"]).sum(),
        uniform(1e-3, 1e-2, w=6),
        (factor(1.05), factor(1.5), factor(-1.0)),
        uniform(0.5, 1.5, c=6),
        dtypes=("float64", "float32"),
    ),
)
