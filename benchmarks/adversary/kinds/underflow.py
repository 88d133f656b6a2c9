"""Losses that are subnormal or zero in their dtype: differences of them say nothing."""

from __future__ import annotations

from benchmarks.adversary.corpus import Subject
from benchmarks.adversary.faults import factor, left_out, zeros
from benchmarks.adversary.kinds.points import fixed

__all__ = ["SUBJECTS"]

SQUARES = tuple(
    Subject(
        f"sum of squares at {size:g}",
        lambda f, p, b: (p["w"] ** 2).sum(),
        fixed(w=[size, 2 * size]),
        (zeros(), factor(-1.0), factor(2.0), left_out("w")),
        exact=lambda f, p, b: {"w": 2 * p["w"]},
    )
    for size in (1e-155, 1e-160, 1e-170)
)
SUBJECTS = (
    *SQUARES,
    Subject(
        "cubes at 1e-105",
        lambda f, p, b: (p["w"] ** 3).sum(),
        fixed(w=[1e-105, -2e-105, 3e-105]),
        (zeros(), factor(-1.0), factor(1.1)),
        exact=lambda f, p, b: {"w": 3 * p["w"] * p["w"]},
    ),
    Subject(
        "exp of -740",
        lambda f, p, b: f.exp(p["w"]).sum(),
        fixed(w=[-740.0, -735.0]),
        (zeros(), factor(-1.0), factor(2.0)),
    ),
    Subject(
        "a density of 400 factors",
        lambda f, p, b: f.exp(-((b["x"] - p["w"]) ** 2).sum()),
        fixed(w=0.5),
        (zeros(), factor(-1.0), factor(1.5)),
        lambda generator: {"x": 0.5 + generator.normal(size=400) * 1.36},
    ),
)
