"""Problems: leaves by path, rounding, and bad input named by its path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwitness import Problem, ops
from gradwitness.errors import ProblemError
from gradwitness.tree import flatten, rebuild


def loss(params: Any, batch: Any) -> Any:
    return ops.mse(ops.linear(batch["x"], params["w"]), batch["y"], reduction="mean", half=False)


def problem(**changes: Any) -> Problem:
    params = {"w": np.full((2, 3), 0.1)} | changes.pop("params", {})
    batch = {"x": np.full((4, 3), 0.7), "y": np.zeros((4, 2))} | changes.pop("batch", {})
    return Problem("linear", loss, params, batch, **changes)


def test_paths_join_levels_with_dots_and_rebuild_restores_the_structure() -> None:
    tree = {"layers": [{"w": 1}, {"w": 2}], "pair": (3, 4), "b": 5}
    leaves = flatten(tree, "params")
    assert leaves == {"layers.0.w": 1, "layers.1.w": 2, "pair.0": 3, "pair.1": 4, "b": 5}
    assert rebuild(tree, leaves, "params") == tree
    assert flatten(7, "params") == {"params": 7}
    assert flatten({"hidden.weight": 1, "hidden.bias": 2}, "params") == {"hidden.weight": 1, "hidden.bias": 2}


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"a.b": 1, "a": {"b": 2}}, "two leaves have the path 'a.b'"),
        ({0: 1, "0": 2}, "two leaves have the path '0'"),
        ({"a": {"": 1}}, "an empty key in a"),
    ],
)
def test_ambiguous_paths_are_refused(tree: Any, says: str) -> None:
    with pytest.raises(ProblemError, match=says):
        flatten(tree, "params")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"params": {"w": np.ones((2, 3), int)}}, "w: a parameter must be floating.*int64.*astype"),
        ({"params": {"w": np.array([[1.0, np.nan, np.inf]] * 2)}}, "w: 4 of 6 values are NaN or infinite"),
        ({"params": {"w": "text"}}, "w: expected an array of floats.*str"),
        ({"params": {"w": None}}, "w: expected an array.*NoneType"),
        ({"params": {"x": np.ones(2)}}, "params and batch both have a leaf 'x'"),
        ({"batch": {"x": np.ones((0, 3))}}, r"x: no elements \(shape \(0, 3\)\); give at least one example"),
        ({"params": {"w": np.ones((0, 3))}}, r"w: no elements \(shape \(0, 3\)\); leave it out: it has no gradient"),
        ({"wrt": ("z",)}, "wrt names 'z'.*w, x, y"),
        ({"batch": {"y": np.zeros((4, 2), int)}, "wrt": ("y",)}, "y: wrt must name floating leaves"),
    ],
)
def test_bad_input_is_one_error_with_the_path(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ProblemError, match=says):
        problem(**changes)


def test_no_params_is_an_error() -> None:
    with pytest.raises(ProblemError, match="nothing to differentiate"):
        Problem("empty", loss, {}, {"x": np.ones((4, 3))})


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float64", 0.1), ("float32", 0.10000000149011612), ("bfloat16", 0.10009765625), ("float16", 0.0999755859375)],
)
def test_rounding_happens_once_and_in_the_core(dtype: str, expected: float) -> None:
    rounded = problem().rounded(dtype)
    assert rounded.primals["w"][0, 0] == expected
    assert rounded.primals["w"].dtype == np.float64
    assert rounded.rounded(dtype).primals["w"][0, 0] == expected


def test_wrt_names_leaves_of_the_batch() -> None:
    assert problem(wrt=("x",)).differentiated == ("x",)
    assert problem().differentiated == ("w",)


def test_the_callers_arrays_are_not_touched() -> None:
    w = np.full((2, 3), 0.1, np.float32)
    made = problem(params={"w": w})
    made.rounded("bfloat16").at({"w": np.zeros((2, 3))})
    assert w.dtype == np.float32
    assert np.all(w == np.float32(0.1))


@pytest.mark.parametrize(
    ("changes", "by_example", "not_cut", "may_be_cut"),
    [
        ({}, ("x", "y"), (), True),
        # another leaf has as many rows, or columns: a kernel that loops over the one may read the other
        ({"params": {"w": np.ones((4, 3))}}, ("x", "y"), ("w",), False),
        ({"params": {"w": np.ones((2, 4))}}, ("x", "y"), ("w",), False),
        ({"batch": {"x": np.ones((4, 3)), "mask": np.ones((3, 4))}}, ("x", "y"), ("mask",), False),
        ({"params": {"b": np.ones(4)}, "batch": {"mask": np.ones((3, 4))}}, ("x", "y"), ("b", "mask"), False),
        # what is differentiated stays, so it is not cut with the others
        ({"wrt": ("x",)}, ("y",), ("x",), False),
        ({"batch": {"labels": np.arange(4), "rate": np.array(0.5), "k": np.ones(3)}}, ("x", "y", "labels"), (), True),
        ({"batch": {"x": np.ones((1, 3)), "y": np.ones((1, 2))}}, ("x", "y"), (), False),
    ],
)
def test_a_batch_may_be_cut_if_nothing_else_is_as_long(
    changes: dict[str, Any], by_example: tuple[str, ...], not_cut: tuple[str, ...], may_be_cut: bool
) -> None:
    found = problem(**changes)
    assert set(found.by_example) == set(by_example)
    assert set(found.not_cut) == set(not_cut)
    assert found.may_be_cut is may_be_cut


def test_without_a_batch_there_is_nothing_to_cut() -> None:
    alone = Problem("alone", lambda p, b: p["w"].sum(), {"w": np.ones(4)}, {})
    assert (alone.examples, alone.by_example, alone.may_be_cut) == (0, (), False)


def test_a_cotangent_is_cut_with_the_examples() -> None:
    def of_each(p: Any, b: Any) -> Any:
        return (b["x"] * p["w"]).sum(axis=-1)

    given = Problem("of each", of_each, {"w": np.ones(3)}, {"x": np.ones((4, 3))}, cotangent=np.ones(4))
    assert given.may_be_cut
    assert {path: x.shape for path, x in given.with_examples(2).leaves.items()} == {
        "w": (3,),
        "x": (2, 3),
        "cotangent": (2,),
    }


def test_a_network_is_copied_once() -> None:
    """By whoever moves it as well, as it may take gigabytes; what its user may still write to is copied."""
    given = np.ones((2, 3))
    made = Problem("own", None, {"w": given, "v": np.ones(2)}, {"x": np.ones(4)})
    assert not np.shares_memory(made.primals["w"], given)
    moved = made.rounded("float32").at({"v": np.zeros(2)})
    assert np.shares_memory(moved.primals["w"], made.primals["w"])
    assert np.shares_memory(moved.leaves["x"], made.leaves["x"])
    assert not moved.primals["w"].flags.writeable
