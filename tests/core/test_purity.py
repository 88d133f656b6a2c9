"""What a function keeps from one call to the next, and where that cannot be asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import gradwitness as gw

RNG = np.random.default_rng(0)
Loss = Any


def remembering() -> Loss:
    """A loss that is scaled by the fewest examples that it has seen."""
    fewest: list[int] = []

    def loss(p: Any, d: Any) -> Any:
        fewest.append(len(d["x"]))
        return torch.tanh(d["x"] @ p["w"]).sum() / min(fewest)

    return loss


def verify(examples: int, features: int) -> gw.Report:
    params, batch = {"w": RNG.standard_normal(features)}, {"x": RNG.standard_normal((examples, features))}
    return gw.verify(gw.Candidate("torch", remembering()), params, batch, dtypes=("float64",))


@pytest.mark.parametrize(("examples", "features"), [(4, 3), (2, 3), (3, 5)])
def test_what_is_kept_from_a_batch_of_another_size_is_found_where_it_may_be_tried(examples: int, features: int) -> None:
    (row,) = verify(examples, features).rows
    assert str(row.verdict) == "nondeterministic"
    assert "before and after a batch of another size" in row.message


def test_where_another_extent_is_the_same_no_smaller_batch_is_tried_and_the_report_says_so() -> None:
    (row,) = verify(4, 4).rows
    assert str(row.verdict) == "agree"
    assert row.message == "not tried with a batch of another size, as w has an extent of 4 too"


def test_that_is_said_of_a_gradient_beside_a_graph_too() -> None:
    def graph(p: Any, b: Any) -> Any:
        return (b["x"] @ p["w"]).sum()

    mine = gw.Candidate("numpy", gradient=lambda p, b: {"w": b["x"].sum(0)})
    params, batch = {"w": RNG.standard_normal(4)}, {"x": RNG.standard_normal((4, 4))}
    report = gw.verify(graph, params, batch, backends="numpy", candidates={"mine": mine}, dtypes="float64")
    assert [(row.candidate, str(row.verdict), row.message) for row in report.rows] == [
        ("numpy", "agree", ""),
        ("mine", "agree", "not tried with a batch of another size, as w has an extent of 4 too"),
    ]


def test_it_is_not_said_of_a_gradient_that_is_wrong_anyway() -> None:
    params, batch = {"w": RNG.standard_normal(4)}, {"x": RNG.standard_normal((4, 4))}
    mine = gw.Candidate(
        "numpy", lambda p, b: (b["x"] @ p["w"]).sum(), gradient=lambda p, b: {"w": 2 * b["x"].sum(axis=0)}
    )
    (row,) = gw.verify(mine, params, batch, dtypes="float64").rows
    assert (str(row.verdict), "batch of another size" in row.message) == ("disagree", False)


def test_a_single_example_is_not_cut_and_nothing_is_said_of_it() -> None:
    (row,) = verify(1, 3).rows
    assert (str(row.verdict), row.message) == ("agree", "")
