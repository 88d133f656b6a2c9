"""What does not fit together as an op of one's own is refused, and leaves nothing behind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradwitness as gw
from gradwitness import registry
from gradwitness.ops import BUILT_IN, OPS
from gradwitness.own_ops import Regions, Spec, bends, real, sample, tails
from gradwitness.protocol import Capabilities
from tests.core.own_ops import (
    DIRECT,
    SAMPLES,
    define,
    forward,
    in_ops,
    in_torch,
    softened,
    vjp,
)

pytestmark = pytest.mark.usefixtures("vocabulary_restored")

WITH_SAMPLES: dict[str, Any] = {"samples": SAMPLES}


def many(*arrays: Spec) -> Spec:
    return arrays[0]


def any_attribute(x: Spec, **attributes: Any) -> Spec:
    return x


def no_array(*, beta: float = 1.0) -> Spec:
    return Spec(())


def needing(x: Spec, *, beta: float) -> Spec:
    return x


def whole(x: Spec) -> Spec:
    return Spec(x.shape, "int")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a name of the vocabulary": ({"name": "tanh"}, r"tanh: there is an op of this name, ops\.tanh"),
    "no name": ({"shape": lambda x, *, beta=1.0: x}, r"'<lambda>' cannot be the name of an op: give another, name="),
    "a keyword": ({"name": "lambda"}, r"'lambda' cannot be the name"),
    "a variable of the source": ({"name": "v12"}, r"'v12' cannot be the name"),
    "no shape rule": ({"shape": 3, "name": "three"}, r"define_op takes a shape rule, a function of Specs, got int"),
    "an unknown backend": ({"tensorflow": in_torch}, r"unknown backend or option .* 'tensorflow'; there is: .*torch"),
    "a slip of the pen": ({"regoins": tails(1.0)}, r"unknown backend or option .* 'regoins'; did you mean 'regions'"),
    "neither rounding nor definition": ({"rounding": None}, r"swish: give rounding=, one of exact, .* or definition="),
    "both": ({"definition": in_ops}, r"swish: give rounding=, .* or definition="),
    "an unknown rounding": ({"rounding": "rounds"}, r"unknown rounding 'rounds'; did you mean 'rounded'"),
    "no samples": ({"samples": []}, r"swish: give samples=\[sample\(real\(2, 3\)\), \.\.\.\], at least one"),
    "an array for a sample": ({"samples": [np.ones(3)]}, r"swish: a sample is made by sample\(.*got ndarray"),
    "too many arrays": (
        {"samples": [sample(real(2), real(2))]},
        r"swish\(float\[2\], float\[2\]\): a sample has 2 arrays, the op takes x",
    ),
    "too few": ({"samples": [sample()]}, r"swish\(\): a sample has 0 arrays, the op takes x"),
    "an attribute that is not there": (
        {"samples": [sample(real(2), gamma=1.0)]},
        r"swish\(float\[2\], gamma=1\.0\): a sample is refused: swish does not take gamma=; its attributes are: beta",
    ),
    "an attribute without a value": (
        {"shape": needing},
        r"needing\(float\[2, 3\]\): a sample is refused: needing needs beta=; its attributes are: beta",
    ),
    "arrays without number": ({"shape": many}, r"many: \*arrays cannot be counted; the shape rule takes arrays"),
    "attributes without names": ({"shape": any_attribute}, r"any_attribute: \*\*attributes cannot be counted"),
    "no array": ({"shape": no_array}, r"no_array: there is no array; the shape rule takes arrays as positional"),
    "no gradient": (
        {"shape": whole, "samples": [sample(real(2))], "numpy": (lambda x: x, lambda g, y, x: g)},
        r"whole has no gradient: none of its samples has a floating array and result",
    ),
    "no rule for numpy": ({"numpy": None}, r"swish: give numpy=\(forward, vjp\), by which the other backends"),
    "a kink of a definition": (
        {"numpy": None, "rounding": None, "definition": in_ops, "kink": bends(lambda beta: [])},
        r"swish: without numpy=\(forward, vjp\) it is seen through its definition, .*: leave out kink= and regions=",
    ),
    "one function for two": ({"numpy": forward}, r"swish: NumPy takes a pair of functions, .*, got function"),
    "three functions for two": ({"numpy": (forward, vjp, vjp)}, r"swish: NumPy takes a pair .*, got a tuple of 3"),
    "no function": ({"torch": "sigmoid"}, r"swish: expected a function of arrays, got str"),
    "a forward that raises": (
        {"numpy": (lambda x, *, beta: x @ x, vjp)},
        r"swish: NumPy's forward raised ValueError: matmul",
    ),
    "a forward of another signature": ({"numpy": (lambda x: x, vjp)}, r"NumPy's forward raised TypeError: .*beta"),
    "a forward that writes": (
        {"numpy": (lambda x, *, beta: np.multiply(x, beta, out=x), vjp)},
        r"swish: NumPy's forward raised ValueError: .*read-only",
    ),
    "a result of another shape": (
        {"numpy": (lambda x, *, beta: x.sum(), vjp)},
        r"swish\(float\[2, 3\], beta=1\.0\): NumPy's forward must give 1 results, of shape \[2, 3\]; it gave \[\]",
    ),
    "two results": (
        {"numpy": (lambda x, *, beta: (x, x), vjp)},
        r"NumPy's forward must give 1 results, of shape \[2, 3\]; it gave \[2, 3\], \[2, 3\]",
    ),
    "two cotangents": (
        {"numpy": (forward, lambda g, y, x, *, beta: (g, g))},
        r"swish\(float\[2, 1, 4\], beta=0\.3\): NumPy's vjp must give 1 cotangents.*; it gave \[2, 1, 4\], \[2, 1, 4\]",
    ),
    "no cotangent": (
        {"numpy": (forward, lambda g, y, x, *, beta: None)},
        r"NumPy's vjp must give 1 cotangents, one for each array, of shape \[2, 1, 4\]; it gave None",
    ),
    "a cotangent of another shape": (
        {"numpy": (forward, lambda g, y, x, *, beta: g.T)},
        r"NumPy's vjp must give .*, of shape \[2, 1, 4\]; it gave \[4, 1, 2\]",
    ),
    "a vjp that raises": ({"numpy": (forward, lambda g, y, x: g)}, r"swish: NumPy's vjp raised TypeError: .*'beta'"),
    "a function of floats": (
        {"numpy": (lambda x, *, beta: np.reshape([math.tanh(e) for e in x.flat], x.shape), vjp)},
        r"swish: NumPy's rule does not run on numbers of 256 bits, .* ufuncs, matmul .*: TypeError: .*float64 of",
    ),
    "a conversion to floats": (
        {"numpy": (lambda x, *, beta: np.tanh(np.asarray(x, np.float64)), vjp)},
        r"does not run on numbers of 256 bits, .*: TypeError: its forward made float64 of numbers of 256 bits",
    ),
    "a definition that raises": (
        {"rounding": None, "definition": lambda x, *, beta: x.sigmoid()},
        r"swish\(float\[2, 3\]\): the definition raised AttributeError: ",
    ),
    "a definition of another shape": (
        {"rounding": None, "definition": lambda x, *, beta: x.sum()},
        r"swish\(float\[2, 3\]\): the definition gives float\[\], and the shape rule says float\[2, 3\]",
    ),
    "a kink of two arrays": (
        {"shape": softened, "samples": [sample(real(2), real(2))], "kink": bends(list)},
        r"softened: an op with bends has one array, and a result of its shape",
    ),
    "bends of other attributes": (
        {"kink": bends(lambda alpha: [])},
        r"swish: NumPy's kink or regions cannot be told: TypeError: .*'beta'",
    ),
    "regions without names": (
        {"regions": Regions(at=lambda beta: (0.0,), names=("below", "at", "above"))},
        r"swish: NumPy's kink or regions cannot be told: ValueError",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_together_is_refused(case: str) -> None:
    changed, message = REFUSED[case]
    with pytest.raises(gw.GradwitnessError, match=message):
        define(**changed)
    assert set(OPS) == BUILT_IN, "nothing is left of it"
    assert all(registry.backend(b).capabilities.ops == BUILT_IN for b in DIRECT)


@pytest.mark.parametrize(
    ("returned", "got"),
    [((2, 3), "int, int"), (None, "NoneType"), ([Spec((2, 3))], "list"), ((), "nothing")],
)
def test_a_shape_rule_that_returns_no_spec(returned: Any, got: str) -> None:
    def odd(x: Spec, *, beta: float = 1.0) -> Any:
        return returned

    with pytest.raises(gw.GradwitnessError, match=rf"odd\(float\[2, 3\]\): the shape rule must return .*got {got}$"):
        define(shape=odd)


def test_a_shape_rule_that_raises() -> None:
    def odd(x: Spec, *, beta: float = 1.0) -> Spec:
        return Spec(x.extent)  # type: ignore[attr-defined]

    with pytest.raises(gw.GradwitnessError, match=r"odd\(float\[2, 3\]\): the shape rule raised AttributeError: "):
        define(shape=odd)


def test_a_backend_that_takes_no_ops() -> None:
    class Closed:
        name, devices, settings = "closed", list, dict
        precision = lower = prepare = print
        capabilities = Capabilities(("float64",), frozenset())

    gw.register_backend(Closed())  # type: ignore[arg-type]
    try:
        with pytest.raises(
            gw.GradwitnessError, match=r"backend 'closed' takes no ops of your own: its class is no .*Extensible"
        ):
            define(closed=in_torch)
    finally:
        registry.unregister_backend("closed")
