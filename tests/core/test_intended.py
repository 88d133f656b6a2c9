"""Gradients that are meant to differ from the derivative: declared, and held against each other."""

from __future__ import annotations

import itertools
import re
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


def by_the_identity(p: Any, d: Any) -> Any:
    return by_detaching(p, d)


def twice(p: Any, d: Any) -> Any:
    return by_detaching(p, d, 2.0)


def verdicts(
    candidates: Mapping[str, Any], intended: Mapping[str, str | tuple[str, float]] | None = STRAIGHT
) -> dict[str, set[str]]:
    given = {label: gw.Candidate("torch", loss) for label, loss in candidates.items()}
    report = gw.verify(given, PARAMS, BATCH, intended=intended, dtypes=("float64", "float32"))
    assert all(str(row.verdict) == "agree" for row in report.rows if row.parameter == "w"), repr(report)
    return {
        label: {str(row.verdict) for row in report.rows if (row.candidate, row.parameter) == (label, "encoder.mask")}
        for label in candidates
    }


def messages(report: gw.Report, parameter: str = "encoder.mask") -> dict[str, str]:
    return {row.candidate: row.message for row in report.rows if row.parameter == parameter}


def test_what_is_declared_and_the_same_everywhere_is_intended() -> None:
    two = {"function": by_function, "detaching": by_detaching}
    assert verdicts(two) == {"function": {"intended"}, "detaching": {"intended"}}
    assert verdicts(two, None) == {"function": {"disagree"}, "detaching": {"disagree"}}
    candidates = {label: gw.Candidate("torch", loss) for label, loss in two.items()}
    assert gw.verify(candidates, PARAMS, BATCH, intended=STRAIGHT), "it is accepted"


def test_where_two_differ_nobody_knows_which_is_meant() -> None:
    for order in (("function", "twice"), ("twice", "function")):
        losses = {"function": by_function, "twice": twice}
        candidates = {label: gw.Candidate("torch", losses[label]) for label in order}
        report = gw.verify(candidates, PARAMS, BATCH, intended=STRAIGHT)
        assert {(r.candidate, str(r.verdict)) for r in report.rows if r.parameter == "encoder.mask"} == {
            ("function", "disagree"),
            ("twice", "disagree"),
        }
        said = messages(report)
        assert said["function"] == "declared as straight-through, but it differs from that of 'twice'"
        assert said["twice"] == "declared as straight-through, but it differs from that of 'function'"


@pytest.mark.parametrize("order", list(itertools.permutations(("function", "detaching", "twice"))))
def test_no_vote_is_counted_among_three_in_any_order(order: tuple[str, ...]) -> None:
    """Two are alike, and both differ from the third: no pair is let pass for being in the majority."""
    losses = {"function": by_function, "detaching": by_the_identity, "twice": twice}
    report = gw.verify(
        {label: gw.Candidate("torch", losses[label]) for label in order}, PARAMS, BATCH, intended=STRAIGHT
    )
    said = messages(report)
    assert {str(r.verdict) for r in report.rows if r.parameter == "encoder.mask"} == {"disagree"}
    assert "that of 'twice'" in said["function"]
    assert "that of 'twice'" in said["detaching"]
    assert f"that of {next(label for label in order if label != 'twice')!r}" in said["twice"]


def test_one_that_is_the_derivative_differs_from_one_that_is_not() -> None:
    found = {"function": gw.Candidate("torch", by_function), "plain": gw.Candidate("torch", plain)}
    report = gw.verify(found, PARAMS, BATCH, intended=STRAIGHT)
    assert {str(r.verdict) for r in report.rows if r.parameter == "encoder.mask"} == {"disagree"}
    assert messages(report)["plain"].endswith("differs from that of 'function', and it is the derivative")


def test_one_that_did_not_run_is_held_against_nobody() -> None:
    def broken(p: Any, d: Any) -> Any:
        raise RuntimeError("no kernel")

    candidates = {"function": by_function, "broken": broken, "detaching": by_detaching}
    report = gw.verify({k: gw.Candidate("torch", v) for k, v in candidates.items()}, PARAMS, BATCH, intended=STRAIGHT)
    found = {(r.candidate, str(r.verdict)) for r in report.rows if r.parameter in ("encoder.mask", None)}
    assert found == {("function", "intended"), ("detaching", "intended"), ("broken", "error")}


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


# Within a distance


class NearlyIdentity(torch.autograd.Function):
    """The identity, whose backward pass is an adjoint that is right to a tolerance."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, off: float) -> torch.Tensor:
        ctx.off = off
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return g[0] * (1 + ctx.off), None


def off_by(off: float) -> gw.Candidate:
    def loss(p: Any, d: Any) -> Any:
        mask: Any = NearlyIdentity.apply(p["encoder"]["mask"], off)  # type: ignore[no-untyped-call]
        return masked(torch.tanh(mask), p, d)

    return gw.Candidate("torch", loss)


@pytest.mark.parametrize(
    ("off", "distance", "verdict", "says"),
    [
        (1e-3, 1e-2, "intended", "adjoint: 0.001 of its norm from the derivative, of 0.01 allowed"),
        (-1e-3, 2e-3, "intended", "adjoint: 0.001 of its norm"),
        (1e-3, 1e-4, "disagree", "adjoint, but 0.001 of its norm from the derivative, where 0.0001 is allowed"),
        (-1.0, 1e-2, "disagree", "adjoint, but 0 where the derivative is"),
        (0.0, 1e-4, "agree", "declared as adjoint, yet it is the derivative"),
        (1e-3, 1e-15, "disagree", "where 1e-15 is allowed"),
    ],
)
def test_an_adjoint_may_be_off_by_what_was_said_and_no_more(
    off: float, distance: float, verdict: str, says: str
) -> None:
    report = gw.verify(off_by(off), PARAMS, BATCH, intended={"encoder.*": ("adjoint", distance)})
    (row,) = (row for row in report.rows if row.parameter == "encoder.mask")
    if distance > 1e-12:
        assert (str(row.verdict), says in row.message) == (verdict, True), row.message
    else:
        assert str(row.verdict) in (verdict, "inconclusive"), "differences may not see as much"


def test_two_adjoints_may_be_on_either_side() -> None:
    """Each within the distance, they may be twice as far from one another."""
    intended: Mapping[str, tuple[str, float]] = {"encoder.*": ("adjoint", 2e-3)}
    report = gw.verify({"above": off_by(1.5e-3), "below": off_by(-1.5e-3)}, PARAMS, BATCH, intended=intended)
    assert {str(row.verdict) for row in report.rows} == {"intended", "agree"}
    report = gw.verify({"above": off_by(1.5e-3), "far": off_by(-9e-3)}, PARAMS, BATCH, intended=intended)
    assert {str(row.verdict) for row in report.rows if row.parameter == "encoder.mask"} == {"disagree"}


# Named elements


class RowOfPadding(torch.autograd.Function):
    """The identity, whose backward pass leaves out some elements, and turns the sign of one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, out: Any, turned: int | None) -> torch.Tensor:
        ctx.out, ctx.turned = out, turned
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        given = g[0].clone()
        given[ctx.out] = 0
        if ctx.turned is not None:
            given.view(-1)[ctx.turned] *= -1
        return given, None, None


TABLE = {"embedding": RNG.standard_normal((4, 3)), "w": RNG.standard_normal(3)}


def padded(out: Any, turned: int | None = None) -> gw.Candidate:
    def loss(p: Any, d: Any) -> Any:
        table: Any = RowOfPadding.apply(p["embedding"], out, turned)  # type: ignore[no-untyped-call]
        return (torch.tanh(table) @ p["w"]).square().sum()

    return gw.Candidate("torch", loss)


def of_the_table(candidate: gw.Candidate, key: str) -> tuple[str, str]:
    report = gw.verify(candidate, TABLE, {}, intended={key: "padding"}, dtypes=("float64",))
    (row,) = (row for row in report.rows if row.parameter == "embedding")
    return str(row.verdict), row.message


@pytest.mark.parametrize(
    ("out", "key"),
    [
        (0, "embedding[0]"),
        (-1, "embedding[-1]"),
        (slice(1, 3), "embedding[1:3]"),
        (slice(None, None, 2), "embedding[::2]"),
        ((2, 1), "embedding[2, 1]"),
        ((slice(None), 1), "embedding[:,1]"),
        (slice(None), "embedding[:]"),
        (0, "emb*[0]"),
    ],
)
def test_elements_that_are_named_may_differ_and_no_others(out: Any, key: str) -> None:
    where = key[key.index("[") :]
    assert of_the_table(padded(out), key) == ("intended", f"padding at {where}; the other elements agree")
    named = np.zeros((4, 3), bool)
    named[out] = True
    if not named.all():
        other = int(np.flatnonzero(~named)[-1])
        verdict, message = of_the_table(padded(out, other), key)
        assert verdict == "disagree"
        place = [int(i) for i in np.unravel_index(other, (4, 3))]
        assert f"finite differences refute it at {place}" in message


# Bad input


@pytest.mark.parametrize(
    "given",
    [
        5,
        None,
        (),
        ("adjoint",),
        ("adjoint", 0),
        ("adjoint", 1),
        ("adjoint", -1e-3),
        ("adjoint", 1.5),
        ("adjoint", np.nan),
        ("adjoint", "near"),
        ("adjoint", 1e-3, 2),
        (1e-3, "adjoint"),
        {"reason": "adjoint"},
    ],
)
def test_a_declaration_is_a_reason_or_a_reason_and_a_distance(given: Any) -> None:
    with pytest.raises(
        ProblemError, match=r"'encoder.\*' needs a reason, or \(reason, distance\) with a distance between 0"
    ):
        gw.verify(gw.Candidate("torch", plain), PARAMS, BATCH, intended={"encoder.*": given})


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("w[9]", "index 9 is out of bounds for axis 0 with size 5; w has shape (5,)"),
        ("w[7:9]", "intended names 'w[7:9]', but no element is there; w has shape (5,)"),
        ("w[3:1]", "no element is there"),
        ("w[0, 0]", "too many indices"),
        ("w[1:2:0]", "slice step cannot be zero; w has shape (5,)"),
        ("w[0,]", "'w[0,]' names no elements: give an index for each axis, such as [0], [1:3] or [0, :]"),
        ("w[1:2:3:4]", "names no elements"),
        ("w[--1]", "names no elements"),
        ("w[]", "no differentiated leaf matches: encoder.mask, w"),
        ("w[first]", "no differentiated leaf matches"),
        ("x[0]", "no differentiated leaf matches"),
    ],
)
def test_elements_are_named_as_an_index_names_them(key: str, says: str) -> None:
    with pytest.raises(ProblemError, match=re.escape(says)):
        gw.verify(gw.Candidate("torch", plain), PARAMS, BATCH, intended={key: "padding"})
