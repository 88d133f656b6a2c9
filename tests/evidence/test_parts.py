"""The parts of a gradient: each is named after the elements that it adds up."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pytest

from gradwitness.dtypes import Array
from gradwitness.evidence.parts import families


def parts(shape: tuple[int, ...], masks: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """By name, which elements are added up."""
    operand = np.random.default_rng(0).normal(size=shape)
    gradient = np.random.default_rng(1).normal(size=shape)
    found: dict[str, Array] = {}
    for family in families(operand, gradient, masks or {}):
        single = np.eye(operand.size).reshape(-1, *shape)
        seen = np.array([family.sums(x) for x in single])
        assert seen.shape == (operand.size, family.size)
        found |= {family.name(number): seen[:, number].reshape(shape) for number in range(family.size)}
    return found


@pytest.mark.parametrize("shape", [(), (5,), (4, 5), (2, 3, 4), (2, 3, 4, 2), (1, 3, 4, 2)])
def test_slices_are_those_that_their_names_index(shape: tuple[int, ...]) -> None:
    found = parts(shape)
    slices = {name: seen for name, seen in found.items() if "[" in name}
    for name, seen in slices.items():
        expected = np.zeros(shape)
        expected[eval(f"np.s_{name.removeprefix('in ')}")] = 1
        np.testing.assert_array_equal(seen, expected, err_msg=name)
    for axis, extent in enumerate(shape):
        if 1 < extent < np.prod(shape):
            pattern = r"in \[" + axis * ":, " + r"\d+(, :)*\]"
            assert sum(bool(re.fullmatch(pattern, name)) for name in slices) >= extent
    assert np.all(found["on average"] == 1)


def test_heads_and_rows_of_heads_are_parts_of_their_own() -> None:
    found = parts((2, 3, 4, 2))
    assert {"in [1, 2, :, :]", "in [1, 2, 3, :]", "in [:, 2, :, :]"} <= set(found)
    assert not {"in [0, 1, :, :]"} & set(parts((1, 3, 4, 2))), "one example: that is the head itself"


@pytest.mark.parametrize(("extent", "last"), [(40, {8}), (16, set()), (64, {16, 32}), (130, {2})])
def test_the_last_block_is_what_is_left_of_an_axis(extent: int, last: set[int]) -> None:
    found = [seen for name, seen in parts((extent,)).items() if name.startswith("in the last")]
    assert {int(seen.sum()) for seen in found} == last
    for seen in found:
        assert np.all(seen[-int(seen.sum()) :] == 1)


def test_the_border_is_that_of_the_last_two_axes() -> None:
    seen = parts((2, 4, 5))["at the border"]
    assert np.all(seen[:, 1:-1, 1:-1] == 0)
    assert seen.sum() == 2 * (20 - 6)
    assert "at the border" not in parts((2, 2))


def test_signs_divide_the_elements() -> None:
    found = parts((4, 5))
    for of in ("it", "the operand"):
        assert np.all(found[f"where {of} is negative"] + found[f"where {of} is positive"] == 1)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 5), (1, 5), (5,)])
def test_a_mask_of_the_first_or_last_axes_divides_them(shape: tuple[int, ...]) -> None:
    mask = np.arange(np.prod(shape)).reshape(shape) % 2 == 0
    found = parts((4, 5), {"mask": mask})
    spread = np.broadcast_to(mask[:, None] if shape == (4,) else mask, (4, 5))
    np.testing.assert_array_equal(found["where mask is true"], spread)
    np.testing.assert_array_equal(found["where mask is false"], ~spread)


@pytest.mark.parametrize("shape", [(), (3,), (5, 4), (1, 4, 5)])
def test_a_mask_of_another_shape_divides_nothing(shape: tuple[int, ...]) -> None:
    assert "where mask is true" not in parts((4, 5), {"mask": np.zeros(shape, bool)})
