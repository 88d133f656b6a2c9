"""Arrays of balls: the rules' own ufuncs on numbers of 256 bits, and branches that are not decided by chance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.special
from flint import arb, ctx

from gradwitness_numpy.balls import Balls, UndecidedError, balls, precision


@pytest.fixture
def ties() -> Iterator[list[str]]:
    with precision(256) as found:
        yield found


@pytest.fixture
def blurred(ties: list[str]) -> Any:
    """Zero, known to 2^-200."""
    return arb(0, 2.0**-200)


def array(*numbers: Any) -> Any:
    made = np.empty(len(numbers), object)
    made[:] = numbers
    return made.view(Balls)


def test_the_callers_precision_is_put_back() -> None:
    before = ctx.prec
    with precision(300):
        assert ctx.prec == 300
    assert ctx.prec == before
    with pytest.raises(ZeroDivisionError), precision(300):
        raise ZeroDivisionError
    assert ctx.prec == before


@pytest.mark.usefixtures("ties")
def test_floats_are_exact_and_the_rest_stays() -> None:
    x = balls(np.array([0.1, 2.5], np.float32))
    assert all(v.is_exact() for v in x)
    assert x.astype(np.float64).tolist() == [np.float32(0.1), 2.5]
    assert balls(np.arange(3)).dtype == np.int64
    assert balls(True) is True


@pytest.mark.usefixtures("ties")
@pytest.mark.parametrize(
    ("ufunc", "by_definition"),
    [
        (np.exp, lambda x: x.exp()),
        (np.log1p, lambda x: (1 + x).log()),
        (np.expm1, lambda x: x.exp() - 1),
        (np.tanh, lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp())),
        (np.sqrt, lambda x: (x.log() / 2).exp()),
        (scipy.special.expit, lambda x: x.exp() / (1 + x.exp())),
        (scipy.special.ndtr, lambda x: (1 + (x / arb(2).sqrt()).erf()) / 2),
    ],
)
def test_functions_hold_in_every_digit(ufunc: Any, by_definition: Any) -> None:
    x = balls(np.array([0.3, 2.0, 0, 41.5])[[0, 1, 3]])
    for found, argument in zip(ufunc(x), x, strict=True):
        assert found.rel_accuracy_bits() > 200
        assert found.overlaps(by_definition(argument))


@pytest.mark.usefixtures("ties")
@pytest.mark.parametrize(("left", "right"), [((3, 4), (4, 2)), ((4,), (4, 2)), ((3, 4), (4,)), ((5, 3, 4), (1, 4, 2))])
def test_matrix_products_have_numpys_shapes_and_values(left: Any, right: Any) -> None:
    draw = np.random.default_rng(0).normal
    x, y = draw(size=left), draw(size=right)
    product = balls(x) @ balls(y)
    assert product.shape == (x @ y).shape
    np.testing.assert_allclose(product.astype(np.float64), x @ y, rtol=1e-14)


@pytest.mark.usefixtures("ties")
def test_reductions_to_a_scalar_stay_arrays_of_balls() -> None:
    total = balls(np.array([0.5, 0.25])).sum()
    assert isinstance(total, Balls)
    assert total.shape == ()


@pytest.mark.parametrize("branch", [lambda x: x > 0, lambda x: x < 0, lambda x: x >= 0, np.sign])
def test_a_straddled_branch_is_refused(branch: Any, blurred: Any) -> None:
    with pytest.raises(UndecidedError, match="undecided branch"):
        branch(array(blurred))
    assert branch(balls(np.array([0.0]))) in ([True], [False], [0])  # exactly 0 is decided


@pytest.mark.usefixtures("ties")
def test_nan_is_on_no_side_of_a_branch_and_stays_nan_in_a_maximum() -> None:
    nan = balls(np.array([np.nan]))
    with pytest.raises(UndecidedError):
        np.sign(nan)
    assert not np.isfinite(np.maximum(nan, 0.0)).any()


@pytest.mark.parametrize("ufunc", [np.maximum, np.minimum])
def test_a_tie_is_covered_and_on_record(ufunc: Any, blurred: Any, ties: list[str]) -> None:
    other = arb(2.0**-201, 2.0**-200)
    (found,) = ufunc(array(blurred), array(other))
    assert found.contains(blurred)
    assert found.contains(other)
    assert len(ties) == 1
    assert ufunc(array(arb(1)), array(arb(2))) == (array(arb(2)) if ufunc is np.maximum else array(arb(1)))
    assert len(ties) == 1


def test_the_winner_of_a_tie_is_the_first_with_the_largest_midpoint(ties: list[str]) -> None:
    wide = 2.0**-200
    x = array(arb(0, wide), arb(wide / 2, wide), arb(wide / 2, wide), arb(-1))
    assert (x == x.max()).tolist() == [False, True, True, False]
    assert ties
