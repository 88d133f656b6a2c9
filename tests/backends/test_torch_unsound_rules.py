"""Backwards that write to what is not theirs, rules that never ran, checkpoints that do not repeat themselves."""

from __future__ import annotations

from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd.function import BackwardCFunction
from torch.utils.checkpoint import checkpoint

import gradwitness as gw
from gradwitness_torch.intercepting import replacing_backwards
from tests.backends.torch_rules import BATCH, PARAMS, Square

SAVED = torch.ones(3, dtype=torch.float64)


class Writing(torch.autograd.Function):
    """x * w, whose backward writes to what `to` names of what it holds."""

    to = ""

    @staticmethod
    def forward(ctx: Any, x: Any, w: Any) -> Any:
        ctx.own = x + 0.0
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        x, w = ctx.saved_tensors
        found = g[0] * w, g[0] * x
        {"": SAVED, "own": ctx.own, "argument": x, "parameter": w, "cotangent": g[0], "closed over": HELD[-1]}[
            Writing.to
        ].data.mul_(2.0)
        return found


HELD = [SAVED]


def writing(p: Any, b: Any) -> Any:
    HELD.append(p["w"])
    return (Writing.apply(b["x"] @ torch.eye(4).to(p["w"]), p["w"][:, 0]) * b["y"]).sum()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("", ""),
        ("argument", "its backward writes to what it saved, which is an argument or a result of its forward"),
        ("parameter", "its backward writes to w, which belongs to the caller"),
        ("closed over", "its backward writes to w, which belongs to the caller"),
        ("cotangent", "its backward writes to grad_output, which others may hold too"),
    ],
)
def test_a_backward_that_writes_to_what_others_hold_is_an_error_by_its_name(
    to: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writing, "to", to)
    report = gw.verify({"mine": gw.Candidate("torch", writing)}, PARAMS, {**BATCH, "y": BATCH["x"][::-1].copy()})
    found = {row.candidate: row for row in report.rows}
    assert str(found["mine"].verdict) == "agree", repr(report)
    assert bool(report) is not bool(said)
    if said:
        assert found["mine Writing"].message.startswith(f"fails to leave its arguments alone: {said}")


def test_one_that_writes_to_what_it_saved_for_itself_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writing, "to", "own")
    report = gw.verify({"mine": gw.Candidate("torch", writing)}, PARAMS, {**BATCH, "y": BATCH["x"]}, paths="eager")
    assert report, repr(report)
    assert "Writing: unsupported: fails a second backward: its backward writes to what it saved" in report.table()


class InPlace(Square):
    """It writes to its argument, and torch counts that."""

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            slope = 2 * g * x
            x.add_(1.0)
        return slope


def test_a_backward_that_writes_to_a_parameter_as_torch_sees_is_named() -> None:
    (row,) = gw.verify(gw.Candidate("torch", lambda p, b: InPlace.apply(p["w"]).sum()), PARAMS).rows  # type: ignore[no-untyped-call]
    assert str(row.verdict) == "error"
    assert row.message.startswith("the backward of InPlace modifies w, which belongs to the caller"), row.message


# Rules that were applied


def test_a_rule_whose_backward_never_ran_is_said_without_being_asked() -> None:
    def detaching(p: Any, b: Any) -> Any:
        return (Square.apply(p["w"]).detach() * p["w"]).sum() + Square.apply(b["x"]).sum()  # type: ignore[no-untyped-call]

    report = gw.verify({"mine": gw.Candidate("torch", detaching)}, PARAMS, BATCH)
    assert {tuple((row.custom or {}).items()) for row in report.rows} == {(("Square", False),)}
    assert "\ncustom rule Square was applied, but its backward never ran, in mine\n" in report.table()


# Checkpoints


def checkpointed(how: str, *, reentrant: bool) -> gw.Report:
    """Of a block that is scaled by how often it ran, or drops half of its elements and perhaps forgets which."""

    def loss(p: Any, b: Any) -> Any:
        torch.manual_seed(0)
        count = 0

        def block(x: Any) -> Any:
            nonlocal count
            count += 1
            y = torch.tanh(x @ b["w"]) * (count if how == "counts" else 1)
            return (torch.nn.functional.dropout(y, 0.5) if how.startswith("drops") else y) ** 2

        return checkpoint(block, p["x"], use_reentrant=reentrant, preserve_rng_state=how != "drops").sum()

    return gw.verify({"mine": gw.Candidate("torch", loss)}, {"x": BATCH["x"]}, {"w": np.eye(4) + 0.1})


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("how", ["counts", "drops"])
def test_a_checkpoint_whose_second_forward_differs_is_named(how: str, reentrant: bool) -> None:
    report = checkpointed(how, reentrant=reentrant)
    named = [row for row in report.rows if row.candidate.startswith("mine checkpoint at test_torch_unsound_rules.py:")]
    assert [str(row.verdict) for row in named] == ["error"], repr(report)
    assert named[0].message.startswith("fails to repeat itself: its second forward differs from its first, ")
    assert report.rows[0].custom == {}, "it is no rule"


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("how", ["repeats", "drops and preserves"])
def test_one_that_repeats_itself_is_not(how: str, reentrant: bool) -> None:
    report = checkpointed(how, reentrant=reentrant)
    assert report, repr(report)


# Threads


def test_what_one_thread_replaces_another_neither_sees_nor_puts_back() -> None:
    """Two that overlap: the second would build on what the first replaced, and put that back at its end."""
    plain, inside, done = BackwardCFunction.apply, Event(), Event()
    built_on: list[Any] = []

    def kept(own: Any) -> Any:
        built_on.append(own)
        return own

    def other() -> None:
        with replacing_backwards(kept):
            inside.set()
            done.wait(5)

    thread = Thread(target=other)
    with replacing_backwards(lambda own: lambda *args: own(*args)):
        thread.start()
        inside.wait(0.2)
    done.set()
    thread.join()
    assert BackwardCFunction.apply is plain
    assert built_on[0] is plain
