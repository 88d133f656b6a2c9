"""Which custom rules a gradient of torch is made of, and what torch itself finds in them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gradwitness as gw
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
