"""Which custom rules a gradient of torch is made of, and what torch itself finds in them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

import gradwitness as gw
from gradwitness.run.failing import short
from tests.backends.torch_rules import (
    BATCH,
    PARAMS,
    Square,
    layer,
    message,
    verdicts,
    verify,
)


def test_the_rules_that_ran_are_named() -> None:
    report = verify(layer(Square.apply))
    assert all(row.custom == {"Square": True} for row in report.rows if row.parameter)
    assert "\ncustom rule Square ran in mine [eager], mine [backward], mine [torch.func.grad], mine [" in report.table()
    assert not any(row.custom for row in verify(layer(torch.square)).rows)


@pytest.mark.parametrize("named", [Square, "Square", [Square]])
def test_a_rule_that_was_bypassed_is_an_error(named: Any) -> None:
    """It is used on a GPU only, say."""

    def guarded(p: Any, d: Any) -> Any:
        z = d["x"] @ p["w"]
        return (Square.apply(z) if z.is_cuda else z * z).mean()  # type: ignore[no-untyped-call]

    report = gw.verify({"mine": gw.Candidate("torch", guarded, custom=named)}, PARAMS, BATCH)
    (row,) = report.rows
    assert str(row.verdict) == "error"
    assert row.message.startswith("the backward of Square never ran")
    used = gw.Candidate("torch", lambda p, d: Square.apply(d["x"] @ p["w"]).mean(), custom=named)  # type: ignore[no-untyped-call]
    assert gw.verify({"mine": used}, PARAMS, BATCH)


def test_a_detached_rule_did_not_run() -> None:
    def detached(p: Any, d: Any) -> Any:
        z = d["x"] @ p["w"]
        with torch.no_grad():
            used = Square.apply(z)  # type: ignore[no-untyped-call]
        return (used.detach() * 0 + z * z).mean()

    (row,) = gw.verify(gw.Candidate("torch", detached, custom=Square), PARAMS, BATCH).rows
    assert "the backward of Square never ran" in row.message


def test_rules_are_told_from_a_subprocess_too() -> None:
    used = gw.Candidate("torch", lambda p, d: Square.apply(d["x"] @ p["w"]).mean(), custom="Square")  # type: ignore[no-untyped-call]
    report = verify(used, ["vmap"], timeout=300)
    assert [row.custom for row in report.rows] == [{"Square": True}], repr(report)
    plain = gw.Candidate("torch", lambda p, d: (d["x"] @ p["w"]).square().mean(), custom="Square")
    assert "the backward of Square never ran" in gw.verify(plain, PARAMS, BATCH, timeout=300).rows[0].message


def squares(ctx: Any, g: Any) -> Any:
    return 2 * g * ctx.saved_tensors[0], None


def keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[0])


def op(name: str, *, fake: bool = True, writes: bool = False) -> Any:
    """x * x, with room to work in, to which it writes though its schema says that it does not."""

    @torch.library.custom_op(f"gradwitness_test::{name}", mutates_args=())
    def square(x: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
        if writes:
            room.fill_(1.0)
        return x * x

    square.register_autograd(squares, setup_context=keep)
    if fake:
        square.register_fake(lambda x, room: torch.empty_like(x))
    return square


def applied(square: Any) -> gw.Candidate:
    return gw.Candidate("torch", lambda p, d: square(d["x"] @ p["w"], torch.zeros(3)).sum(), custom=square)


@pytest.mark.slow
def test_a_custom_op_passes_its_opcheck_and_is_named() -> None:
    report = verify(applied(op("right")), ["eager", "torch.compile"])
    assert verdicts(report) == {"eager": "agree", "torch.compile": "agree"}, repr(report)
    assert report.rows[0].custom == {"gradwitness_test::right": True}


def test_a_schema_that_lies_is_found_by_opcheck() -> None:
    report = gw.verify({"mine": applied(op("lies", writes=True))}, PARAMS, BATCH)
    found = {row.candidate: row for row in report.rows}
    assert str(found["mine"].verdict) == "agree", repr(report)
    fault = found["mine gradwitness_test::lies"]
    assert str(fault.verdict) == "error"
    assert fault.message.startswith("fails torch.library.opcheck's test_schema: ")
    assert not report


def off(ctx: Any, g: Any) -> Any:
    return 2 * g * ctx.saved_tensors[0] * 1.01, None


def scaled(name: str, backward: Any) -> Any:
    """x * x * by, of which one argument goes by keyword alone."""

    @torch.library.custom_op(f"gradwitness_test::{name}", mutates_args=())
    def square(x: torch.Tensor, by: torch.Tensor, *, power: int = 2) -> torch.Tensor:
        return x**power * by

    def kept(ctx: Any, inputs: Any, keyword_only_inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    square.register_autograd(backward, setup_context=kept)
    square.register_fake(lambda x, by, *, power=2: torch.empty_like(x))
    return square


@pytest.mark.parametrize("backward", [squares, off])
def test_a_custom_op_that_is_wrong_by_itself_is_named(backward: Any) -> None:
    square = scaled(f"scaled_{backward.__name__}", backward)

    def loss(p: Any, b: Any) -> Any:
        return square(b["x"] @ p["w"], torch.ones(3).to(p["w"]), power=2).sum()

    (row,) = (row for row in gw.verify({"mine": gw.Candidate("torch", loss)}, PARAMS, BATCH).rows if row.parameter)
    named = "; wrong by itself: the backward of gradwitness_test::scaled_off (input 0, by 0.01 of its norm)"
    assert (named in row.message) is (backward is off), row.message


def test_an_op_that_is_applied_where_no_gradient_passes_is_said_to_be() -> None:
    square = op("detached")

    def loss(p: Any, b: Any) -> Any:
        return (square(p["w"].detach(), torch.zeros(3)) * p["w"]).sum()

    report = gw.verify({"mine": gw.Candidate("torch", loss)}, PARAMS, BATCH)
    assert report.rows[0].custom == {"gradwitness_test::detached": False}


@pytest.mark.slow
def test_a_custom_op_without_a_fake_is_reported_where_it_matters() -> None:
    candidate = applied(op("real", fake=False))
    assert gw.verify({"mine": candidate}, PARAMS, BATCH), "in eager mode it lacks nothing"
    report = verify(candidate, ["eager", "torch.compile"])
    found = verdicts(report)
    assert found.pop("eager") == "agree"
    assert found == {"gradwitness_test::real": "unsupported", "torch.compile": "unsupported"}
    assert "register_fake" in message(report, "torch.compile")
    assert "torch.library.opcheck's test_faketensor" in report.table()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # which torch.compile gives of torch
def test_rules_are_told_of_a_loss_that_is_compiled_where_it_is_written() -> None:
    """And it stays compiled: torch gives up on what it once met where it cannot compile."""
    compiled = torch.compile(lambda x, w: Square.apply(x @ w).mean(), fullgraph=True)  # type: ignore[no-untyped-call]
    candidate = gw.Candidate("torch", lambda p, d: compiled(d["x"], p["w"]), custom=Square)
    report = gw.verify({"mine": candidate, "also": candidate}, PARAMS, BATCH)
    assert report, repr(report)
    assert [row.custom for row in report.rows] == [{"Square": True}] * 2


class OffIfCompiled(Square):
    """Right in eager. Compiled it takes another way, as a kernel of its own would."""

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * ctx.saved_tensors[0] * (3 if torch.compiler.is_compiling() else 2)


class Off(Square):
    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return 3 * g * ctx.saved_tensors[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            Off,
            "; run eagerly, wrong by itself: the backward of Off (input 0, by 0.5 of its norm) at "
            f"{short(__file__)}:{inspect.getsourcelines(Off.backward)[1]}",
        ),
        (
            OffIfCompiled,
            "; run eagerly, the backward of OffIfCompiled is right by itself: at fault may be what torch.compile makes "
            "of it",
        ),
    ],
)
def test_of_compiled_code_rules_are_looked_at_eagerly_and_that_is_said(rule: Any, said: str) -> None:
    candidate = gw.Candidate("torch.compile", lambda p, d: rule.apply(d["x"] @ p["w"]).mean())
    (row,) = gw.verify({"mine": candidate}, PARAMS, BATCH).rows
    assert str(row.verdict) == "disagree"
    assert row.message.endswith(said), row.message


class ForEightRows(Square):
    """It divides by the number of rows that it sees, which is one under vmap."""

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x = ctx.saved_tensors[0]
        return 2 * g * x * (8 / x.shape[0]) ** 0.5


def test_where_a_path_alone_is_at_fault_the_rule_is_said_to_be_right() -> None:
    report = verify(layer(ForEightRows.apply), "vmap")
    assert "the backward of ForEightRows is right by itself: at fault may be what vmap makes of it" in repr(report)
