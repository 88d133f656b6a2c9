"""Gradients that are meant to differ from the derivative: declared, and held against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

import gradwitness as gw
from gradwitness.errors import ProblemError

RNG = np.random.default_rng(0)
PARAMS = {"encoder": {"mask": RNG.standard_normal(5)}, "w": RNG.standard_normal(5)}
BATCH = {"x": RNG.standard_normal((8, 5))}
STRAIGHT: Mapping[str, str] = {"encoder.*": "straight-through"}


class Step(torch.autograd.Function):
    """1 where positive, and in the backward pass as if it were the identity."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return (x > 0).to(x)

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return g[0]


def masked(mask: Any, p: Any, d: Any) -> Any:
    return ((d["x"] * mask * p["w"]).sum(-1) ** 2).mean()


def by_function(p: Any, d: Any) -> Any:
    mask = torch.as_tensor(Step.apply(p["encoder"]["mask"]))  # type: ignore[no-untyped-call]
    return masked(mask, p, d)


def by_detaching(p: Any, d: Any, slope: float = 1.0) -> Any:
    m = p["encoder"]["mask"]
    return masked((m > 0).to(m) + slope * (m - m.detach()), p, d)


def plain(p: Any, d: Any) -> Any:
    return masked((p["encoder"]["mask"] > 0).to(p["w"]), p, d)


def verdicts(candidates: Mapping[str, Any], intended: Mapping[str, str] | None = STRAIGHT) -> dict[str, set[str]]:
    given = {label: gw.Candidate("torch", loss) for label, loss in candidates.items()}
    report = gw.verify(given, PARAMS, BATCH, intended=intended, dtypes=("float64", "float32"))
    assert all(str(row.verdict) == "agree" for row in report.rows if row.parameter == "w"), repr(report)
    return {
        label: {str(row.verdict) for row in report.rows if (row.candidate, row.parameter) == (label, "encoder.mask")}
        for label in candidates
    }


def test_what_is_declared_and_the_same_everywhere_is_intended() -> None:
    two = {"function": by_function, "detaching": by_detaching}
    assert verdicts(two) == {"function": {"intended"}, "detaching": {"intended"}}
    assert verdicts(two, None) == {"function": {"disagree"}, "detaching": {"disagree"}}
    candidates = {label: gw.Candidate("torch", loss) for label, loss in two.items()}
    assert gw.verify(candidates, PARAMS, BATCH, intended=STRAIGHT), "it is accepted"


def test_one_that_differs_from_the_others_is_not() -> None:
    found = verdicts({"function": by_function, "twice": lambda p, d: by_detaching(p, d, 2.0)})
    assert found == {"function": {"intended"}, "twice": {"disagree"}}


def test_one_that_is_the_derivative_says_so() -> None:
    report = gw.verify(gw.Candidate("torch", plain), PARAMS, BATCH, intended=STRAIGHT)
    row = next(row for row in report.rows if row.parameter == "encoder.mask")
    assert str(row.verdict) == "agree"
    assert "declared as straight-through, yet it is the derivative" in row.message


def test_a_gradient_cut_off_may_be_intended() -> None:
    cut = gw.Candidate("torch", lambda p, d: masked(torch.tanh(p["encoder"]["mask"].detach()), p, d))
    assert {str(r.verdict) for r in gw.verify(cut, PARAMS, BATCH, intended={"encoder.mask": "frozen"}).rows} == {
        "intended",
        "agree",
    }


def test_nan_is_never_intended() -> None:
    def broken(p: Any, d: Any) -> Any:
        m = p["encoder"]["mask"]
        return by_function(p, d) + (m - m).sum().sqrt()

    rows = gw.verify(gw.Candidate("torch", broken), PARAMS, BATCH, intended=STRAIGHT).rows
    assert next(str(r.verdict) for r in rows if r.parameter == "encoder.mask") == "nonfinite"


def test_a_declaration_must_fit() -> None:
    with pytest.raises(ProblemError, match="intended names 'encoder', which no differentiated leaf matches"):
        gw.verify(gw.Candidate("torch", plain), PARAMS, BATCH, intended={"encoder": "straight-through"})
    with pytest.raises(ProblemError, match="stop_gradient"):
        gw.verify(lambda p, d: p["w"].sum(), PARAMS, BATCH, intended={"w": "frozen"})
