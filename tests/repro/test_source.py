"""What a function refers to comes along as text, each name standing for what it stood for."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tests.repro.helpers as tools
from gradwitness.repro.definitions import bare, free_names, renamed
from gradwitness.repro.literals import literal
from gradwitness.repro.source import Sources
from tests.repro.helpers import SCALE

# ruff: noqa: E731  # lambdas with names are what some of this is about

OFFSET = np.array([1.0, 2.0])
KEPT = torch.tensor([1.0, 2.0], dtype=torch.float32)
WIDE = jnp.array([1.0, 2.0])
TABLE: dict[str, Any] = {"exp": np.exp, "square": lambda x: x * x}


def written(function: Any) -> Any:
    """The function as its text makes it anew, where nothing else is."""
    sources = Sources()
    name = sources.bind("function", function)
    text = "\n".join([*sources.imports, *sources.definitions])
    assert "tests" not in text
    made: dict[str, Any] = {"__name__": __name__}
    exec(compile(text, "<text>", "exec"), made)  # noqa: S102  # what has just been written
    return made[name]


def uses_globals(x: Any) -> Any:
    return SCALE * x + OFFSET[1] + math.pi


def uses_a_module_of_its_own(x: Any) -> Any:
    return tools.mean_square(np.array([x, tools.SCALE]))


def uses_a_table(x: Any) -> Any:
    return TABLE["square"](x) + TABLE["exp"](x)


def uses_frameworks(x: Any) -> float:
    return float(F.relu(x * KEPT).sum() + torch.tensor(float(WIDE.sum())))


def even(n: int) -> bool:
    return n == 0 or odd(n - 1)


def odd(n: int) -> bool:
    return n != 0 and even(n - 1)


def counted(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*given: Any) -> Any:
        return function(*given) + 1

    return call


@counted
def decorated(x: Any) -> Any:
    return 2 * x


@dataclass(frozen=True)
class Line:
    slope: float
    offset: float = 0.0

    def at(self, x: float) -> float:
        """With a constant of this module."""
        return self.slope * x + self.offset * SCALE


LINE = Line(3.0, 1.0)
plain = lambda x: x + 1
compiled = jax.jit(plain)
wide = compiled


def uses_an_instance(x: float) -> float:
    return LINE.at(x)


def uses_a_compiled_one(x: float) -> float:
    return float(compiled(x))


def shadows(x: Any, OFFSET: float = 1.0) -> Any:  # noqa: N803  # the module's is not meant
    return x + OFFSET


def closing(scale: float, inner: Callable[..., Any]) -> Callable[..., Any]:
    def outer(x: Any) -> Any:
        return scale * inner(x)

    return outer


@pytest.mark.parametrize("function", [
    uses_globals, uses_a_module_of_its_own, uses_a_table, decorated, uses_an_instance, uses_a_compiled_one, shadows,
    functools.partial(lambda x, y: x - y, y=3.0), closing(2.0, lambda x: x + 1), closing(2.0, closing(3.0, math.sqrt)),
    lambda x: max(x, SCALE), math.sqrt, LINE.at,
])  # fmt: skip
def test_it_computes_the_same(function: Any) -> None:
    assert written(function)(4.0) == function(4.0)


def test_arrays_of_frameworks() -> None:
    assert written(uses_frameworks)(torch.tensor(2.0)) == uses_frameworks(torch.tensor(2.0))


def test_functions_that_call_each_other() -> None:
    assert [written(even)(n) for n in range(3)] == [True, False, True]


def test_what_is_shadowed_does_not_come_along() -> None:
    sources = Sources()
    sources.bind("function", shadows)
    assert not any(text.startswith("OFFSET") for text in sources.definitions)


def test_one_name_for_two_things() -> None:
    sources = Sources()
    first, second = (sources.bind("loss", closing(k, lambda x, k=k: x + k)) for k in (1.0, 2.0))
    made: dict[str, Any] = {}
    exec("\n".join(sources.definitions), made)  # noqa: S102  # what has just been written
    assert (made[first](1.0), made[second](1.0)) == (2.0, 6.0)
    assert first != second


@pytest.mark.parametrize("value", [
    3, -0.5, 1e-30, True, None, "it's", b"\0", (1,), (), [1, [2.0]], {"a": (1, 2)}, {1}, slice(1, None), ..., 1 + 2j,
    float("inf"), np.float32(0.1), np.arange(6).reshape(2, 3), np.array(0.1), np.array([np.inf, 0.1, -1e-9]),
    np.random.default_rng(0).normal(size=(20, 30)), np.random.default_rng(0).normal(size=(200, 7)),
    np.ones((3, 4)), np.array([True, False]), np.array([1, 2], np.int32), np.zeros((0, 3)),
    np.array([1 / 3, 2 / 3], np.float32),
])  # fmt: skip
def test_a_value_is_read_back_to_the_bit(value: Any) -> None:
    import base64

    text = literal(value)
    assert text is not None
    again = eval(text, {"np": np, "base64": base64})  # what has just been written
    if isinstance(value, np.ndarray | np.generic):
        assert again.dtype == value.dtype
        assert again.shape == value.shape
        np.testing.assert_array_equal(again, value)
        assert not again.ndim or again.flags.writeable
    else:
        assert again == value
        assert type(again) is type(value)


@pytest.mark.parametrize("value", [object(), [object()], {"a": object()}])
def test_what_is_no_constant_has_no_text(value: Any) -> None:
    assert literal(value) is None


def test_free_names() -> None:
    text = "def f(x: A, *, y=default) -> B:\n    z: C = g(x)\n    return [z + w for z in h], max(z), lambda k: k + f(v)"
    assert free_names(text) == ["default", "g", "w", "h", "v"]


def test_renaming_leaves_text_and_attributes_alone() -> None:
    text = "def f(x):\n    # f is fine: é\n    return 'é f', f(x).f + g.f\n"
    assert renamed(text, {"f": "longer"}) == "def longer(x):\n    # f is fine: é\n    return 'é f', longer(x).f + g.f\n"


def test_annotations_of_parameters_are_taken_out() -> None:
    text = "def f(x: Any, *, y: dict[str, int] = {}, z=1) -> Any:  # noqa: B006  # why\n    return x  # kept"
    assert bare(text) == "def f(x, *, y={}, z=1):\n    return x  # kept"


def test_a_name_that_an_import_would_take_is_left_to_the_user() -> None:
    made = closing_over_f(torch.float32)
    assert written(made)(2.0) == made(2.0) == 6.0


def closing_over_f(dtype: torch.dtype) -> Callable[..., Any]:
    F, np, sqrt = 3.0, F_relu, from_math  # noqa: N806
    return lambda x: float(np(torch.tensor(F * x, dtype=dtype))) + sqrt(0.0)


F_relu, from_math = F.relu, math.sqrt


def test_what_a_library_made_is_made_by_the_users_call() -> None:
    sources = Sources()
    sources.bind("function", uses_what_a_library_made)
    assert "made_by_a_library = np.vectorize(lambda x: x + 1)" in sources.definitions
    assert written(uses_what_a_library_made)(1.0) == 2.0


made_by_a_library = np.vectorize(lambda x: x + 1)


def uses_what_a_library_made(x: float) -> float:
    return float(made_by_a_library(x))
