"""Arrays of balls: the rules' own ufuncs on numbers of 256 bits, and branches that are not decided by chance."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.special
from flint import arb, ctx

from gradwitness import ops, verify
from gradwitness_numpy.balls import Balls, UndecidedError, balls, precision, same


@pytest.fixture
def bits() -> Iterator[None]:
    with precision(256):
        yield


@pytest.fixture
def blurred(bits: None) -> Any:
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


@pytest.mark.usefixtures("bits")
def test_floats_are_exact_and_the_rest_stays() -> None:
    x = balls(np.array([0.1, 2.5], np.float32))
    assert all(v.is_exact() for v in x)
    assert x.astype(np.float64).tolist() == [np.float32(0.1), 2.5]
    assert balls(np.arange(3)).dtype == np.int64
    assert balls(True) is True


@pytest.mark.usefixtures("bits")
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


@pytest.mark.usefixtures("bits")
@pytest.mark.parametrize(("left", "right"), [((3, 4), (4, 2)), ((4,), (4, 2)), ((3, 4), (4,)), ((5, 3, 4), (1, 4, 2))])
def test_matrix_products_have_numpys_shapes_and_values(left: Any, right: Any) -> None:
    draw = np.random.default_rng(0).normal
    x, y = draw(size=left), draw(size=right)
    product = balls(x) @ balls(y)
    assert product.shape == (x @ y).shape
    np.testing.assert_allclose(product.astype(np.float64), x @ y, rtol=1e-14)


@pytest.mark.usefixtures("bits")
def test_reductions_to_a_scalar_stay_arrays_of_balls() -> None:
    total = balls(np.array([0.5, 0.25])).sum()
    assert isinstance(total, Balls)
    assert total.shape == ()


@pytest.mark.parametrize("branch", [lambda x: x > 0, lambda x: x < 0, lambda x: x >= 0, np.sign])
def test_a_straddled_branch_is_refused(branch: Any, blurred: Any) -> None:
    with pytest.raises(UndecidedError, match="undecided branch"):
        branch(array(blurred))
    assert branch(balls(np.array([0.0]))) in ([True], [False], [0])  # exactly 0 is decided


@pytest.mark.usefixtures("bits")
def test_nan_is_on_no_side_of_a_branch_and_stays_nan_in_a_maximum() -> None:
    nan = balls(np.array([np.nan]))
    with pytest.raises(UndecidedError):
        np.sign(nan)
    assert not np.isfinite(np.maximum(nan, 0.0)).any()


@pytest.mark.parametrize("ufunc", [np.maximum, np.minimum])
def test_a_tie_is_covered(ufunc: Any, blurred: Any) -> None:
    other = arb(2.0**-201, 2.0**-200)
    (found,) = ufunc(array(blurred), array(other))
    assert found.contains(blurred)
    assert found.contains(other)
    assert ufunc(array(arb(1)), array(arb(2))) == (array(arb(2)) if ufunc is np.maximum else array(arb(1)))


@pytest.mark.usefixtures("bits")
def test_a_maximum_took_its_slope_from_the_largest_midpoint() -> None:
    wide = 2.0**-200
    x = array(arb(0, wide), arb(wide / 2, wide), arb(wide / 2, wide), arb(-1))
    assert same(x, x.max()).tolist() == [False, True, True, False]


def test_equality_of_overlapping_balls_is_undecided(blurred: Any) -> None:
    with pytest.raises(UndecidedError):
        array(blurred) == array(arb(0, 2.0**-210))  # noqa: B015
    assert (array(blurred) == array(blurred)).tolist() == [True]
    assert (array(blurred) == array(arb(1))).tolist() == [False]


@pytest.mark.usefixtures("bits")
@pytest.mark.parametrize("x", [-1e300, -1e4, 0.0, 1e4, 1e300])
def test_a_sigmoid_of_any_size(x: float) -> None:
    (found,) = scipy.special.expit(balls(np.array([x])))
    assert found.is_finite()
    assert float(found) == scipy.special.expit(x)


def test_threads_wait_for_each_other() -> None:
    before, seen = ctx.prec, list[int]()

    def work() -> None:
        for bits in (100, 200):
            with precision(bits):
                seen.append(bits - ctx.prec)
                time.sleep(0.01)
                seen.append(bits - ctx.prec)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [0] * 16
    assert ctx.prec == before


@pytest.mark.parametrize("key", [1, (Ellipsis, 1), (1,)])
def test_one_element_that_is_read_beside_others_has_a_gradient_in_256_bits(key: Any) -> None:
    def loss(p: Any, b: Any) -> Any:
        x = ops.broadcast_to(p["x"].reshape(6), shape=(3, 6)).reshape(-1)
        return (x[slice(0, 4)] ** 2.0).sum() + x[key] ** 3.0 + x.sum()

    report = verify(loss, {"x": np.arange(1.0, 7.0).reshape(2, 3)}, {}, backends="numpy", dtypes="float64")
    assert report, repr(report)
    assert "no reference in 256 bits" not in report.table(verbose=True)


def test_what_is_subtracted_from_itself_is_zero_and_no_ball_around_it(bits: None) -> None:
    x = balls(np.array([0.3, -2.0])) / balls(np.array([0.7, 3.0]))
    assert [number.is_exact() and number == 0 for number in (x - x).tolist()] == [True, True]
    assert not (x - (x + 0)).tolist()[0].is_exact()

    def loss(p: Any, b: Any) -> Any:
        y = p["w"] / b["c"]
        return ops.elu(ops.mse(y, y, reduction="mean", half=True))

    params, batch = {"w": np.arange(1.0, 7.0).reshape(2, 3)}, {"c": np.array([[0.3], [0.7]])}
    report = verify(loss, params, batch, backends="numpy", dtypes="float64")
    assert report, repr(report)
    assert "no reference in 256 bits" not in report.table(verbose=True)
