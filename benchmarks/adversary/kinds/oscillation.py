"""Waves and gates narrower than any step that suits the leaf."""

from __future__ import annotations

from benchmarks.adversary.corpus import Subject
from benchmarks.adversary.faults import elements, factor, replaced, zeros
from benchmarks.adversary.frameworks import Loss
from benchmarks.adversary.kinds.points import fixed, normal

__all__ = ["SUBJECTS"]


def _fast_second(rate: float) -> Loss:
    return lambda f, p, b: p["x"][0] ** 2 + 1e-3 * f.sin(rate * p["x"][1])


def _rippled(height: float, rate: float) -> Loss:
    return lambda f, p, b: (p["x"] ** 2 + height * f.sin(rate * p["x"])).sum()


def _gate(rate: float) -> Loss:
    return lambda f, p, b: f.sigmoid(rate * p["x"]).sum()


SUBJECTS = (
    *(
        Subject(
            f"x0^2 + 1e-3 sin({rate:g} x1)",
            _fast_second(rate),
            fixed(x=[0.3, 0.7]),
            (
                elements([1], -1.0, leaf="x", off=0.1, name="sign of x1"),
                elements([1], 0.0, leaf="x", off=0.1, name="x1 zero"),
                elements([0], -1.0, leaf="x", off=1e-9, name="sign of x0"),
            ),
            frameworks=("numpy", "torch", "jax"),
        )
        for rate in (1e6, 1e8, 1e10)
    ),
    *(
        Subject(
            f"x^2 + {height:g} sin({rate:g} x)",
            _rippled(height, rate),
            fixed(x=[0.004, -0.009, 0.006]),
            (replaced("without the wave", lambda f, p, b: {"x": 2 * p["x"]}, 0.02), factor(1.2), zeros()),
            frameworks=("numpy", "torch"),
        )
        for height, rate in ((1e-12, 1e9), (1e-9, 1e6))
    ),
    *(
        Subject(
            f"gate sigmoid({rate:g} x) at {2 / rate:g}",
            _gate(rate),
            fixed(x=[2 / rate, -3 / rate, 0.7, -1.3]),
            (
                zeros(),
                elements([0], -1.0, leaf="x", off=0.1, name="sign of the gate"),
                elements([1], 0.0, leaf="x", off=0.1, name="second gate zero"),
                factor(1.05),
            ),
            frameworks=("numpy", "torch", "jax"),
        )
        for rate in (1e6, 1e10, 1e12)
    ),
    Subject(
        "a narrow gate among 200",
        lambda f, p, b: f.sin(p["x"]).sum() + f.sigmoid(1e10 * p["x"][0]),
        lambda generator: {"x": normal(x=200)(generator)["x"] * ([1e-11] + [1.0] * 199)},
        (zeros(), elements([0], 0.0, leaf="x", off=0.5), elements(range(100, 150), -1.0, leaf="x", off=1e-10)),
        frameworks=("numpy", "torch"),
    ),
    Subject(
        "fast waves everywhere",
        lambda f, p, b: f.sin(1e7 * p["x"]).sum(),
        normal(x=5),
        (factor(-1.0), zeros(), elements([2], -1.0, leaf="x", off=0.01)),
        frameworks=("numpy", "torch"),
    ),
)
