"""Float32, bfloat16 and float16: a wrong formula is wrong in each, whatever the dtype rounds away."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.adversary.corpus import Subject, Wrong
from benchmarks.adversary.faults import elements, factor, only, zeros
from benchmarks.adversary.frameworks import Framework, Loss, Tree
from benchmarks.adversary.frameworks import dtype_name as name_of
from benchmarks.adversary.kinds.backwards import CUBE, GELU, LAYER_NORM, SILU, SOFTMAX
from benchmarks.adversary.kinds.points import normal, uniform

__all__ = ["SUBJECTS"]

SIXTEEN = ("bfloat16", "float16")
ALL = ("float32", *SIXTEEN)


def _under(function: str, slopes: Any = None) -> Loss:
    """A layer and the function of it, with a rule of its own."""

    def forward(f: Framework, x: Any) -> Any:
        return x * f.sigmoid(x) if function == "silu" else x**3

    def loss(f: Framework, p: Tree, b: Tree) -> Any:
        z = b["x"] @ p["w"].T
        y = forward(f, z) if slopes is None else f.rule(forward, lambda f, g, x: (g * slopes(f, x),))(z)
        return (y * b["c"]).mean()

    return loss


def _silu_slope(by: float) -> Any:
    def slope(f: Framework, x: Any) -> Any:
        s = f.sigmoid(x)
        return by * s * (1 + x * (1 - s))

    return slope


def _cube_slope(by: float) -> Any:
    return lambda f, x: by * 3 * x**2


def _in_narrow_alone(dtype: str, by: float) -> Wrong:
    """A kernel of its own for a narrow dtype, and a fault in it: in float64 all is well."""

    def change(f: Framework, g: Any, x: Any) -> Any:
        return g * by if name_of(x) == dtype else g

    name = f"times {by:g} in {dtype} alone"
    return Wrong(name, abs(by - 1) / 2, only(change), dtypes=(dtype,), only_in=dtype)


def _again(subject: Subject, dtypes: tuple[str, ...]) -> Subject:
    """The same in narrower dtypes, where a right gradient may be inconclusive."""
    return Subject(
        subject.name,
        subject.loss,
        subject.params,
        subject.wrongs,
        subject.batch,
        plain=subject.plain,
        frameworks=("torch", "jax"),
        dtypes=dtypes,
    )


SUBJECTS = (
    *(
        Subject(
            f"{name} of a layer",
            _under(name, slope(1.0)),
            normal(w=(8, 6)),
            tuple(Wrong(f"times {by:g}", (by - 1) * 0.99, loss=_under(name, slope(by))) for by in (1.05, 1.02, 1.0003)),
            normal(x=(16, 6), c=(16, 8)),
            plain=_under(name),
            frameworks=("torch", "jax"),
            dtypes=ALL,
        )
        for name, slope in (("silu", _silu_slope), ("cube", _cube_slope))
    ),
    *(_again(subject, SIXTEEN) for subject in (SILU, CUBE, SOFTMAX, LAYER_NORM)),
    _again(GELU, ("float16",)),
    Subject(
        "squares and a sine, float32",
        lambda f, p, b: (b["x"] * p["w"] ** 2 + f.sin(p["w"])).mean(),
        normal(w=40),
        (
            factor(1 + 3e-4),
            Wrong("3e-4 in a half", 1e-4, only(lambda f, g, x: g * (1 + 3e-4 * (x > 0)))),
            elements([3], 1.1, leaf="w", off=1e-3),
        ),
        uniform(0.5, 2.0, x=40),
        dtypes=("float32",),
        demanded=("float32",),
    ),
    Subject(
        "least squares in narrow dtypes",
        lambda f, p, b: ((b["x"] @ p["w"] + p["b"] - b["y"]) ** 2).mean(),
        normal(w=(5, 4), b=4),
        (
            factor(1.05),
            zeros("b"),
            elements(range(4), 0.0, leaf="w", off=0.05),
            *(_in_narrow_alone(dtype, by) for dtype in ALL for by in (1.5, -1.0, 0.5)),
        ),
        normal(x=(6, 5), y=(6, 4)),
        frameworks=("torch", "jax"),
        dtypes=ALL,
    ),
    Subject(
        "silu at -100 in float32",
        lambda f, p, b: (p["x"] * f.sigmoid(p["x"]) * b["c"]).sum(),
        lambda generator: {"x": np.array([-100.0, 0.5, 1.0])},
        (factor(1.02), elements([1], -1.0, leaf="x", off=0.3)),
        uniform(0.5, 1.5, c=3),
        dtypes=("float32",),
    ),
)
