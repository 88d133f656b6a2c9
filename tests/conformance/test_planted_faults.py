"""A sign flipped in any one NumPy vjp turns `gradwitness verify --ops` to exit 1, with numpy named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from gradwitness.cli import cli
from gradwitness.networks import single_ops
from gradwitness.ops import OPS
from gradwitness_numpy.rules import RULES

DIFFERENTIABLE = sorted({p.name.split(".")[0] for p in single_ops.op_problems()})


def flipped(cotangent: Any) -> Any:
    """The same cotangent with its sign turned, dense or a slab."""
    if cotangent is None:
        return None
    return replace(cotangent, values=-cotangent.values) if hasattr(cotangent, "values") else -cotangent


def verify_ops(monkeypatch: pytest.MonkeyPatch, op: str, *options: str) -> Any:
    """`gradwitness verify article --ops` with the problems of one op."""
    mine = [p for p in single_ops.op_problems() if p.name.split(".")[0] == op]
    monkeypatch.setattr(single_ops, "op_problems", lambda seed: mine)
    return CliRunner().invoke(cli, ["verify", "--jobs", "1", "article", "--ops", "--dtype", "float64", *options])


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_a_flipped_sign_is_found_and_numpy_named(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RULES[op]
    monkeypatch.setitem(RULES, op, replace(rule, vjp=lambda g, step: [flipped(c) for c in rule.vjp(g, step)]))
    result = verify_ops(monkeypatch, op, "--backend", "numpy,torch")
    assert result.exit_code == 1
    at_fault = [line for line in result.output.splitlines() if line.startswith(f"{op}.") and "disagree:" in line]
    assert at_fault
    assert all(" numpy " in line for line in at_fault)


def test_without_a_fault_the_same_command_is_green(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify_ops(monkeypatch, "matmul", "--backend", "numpy,torch").exit_code == 0


def test_every_differentiable_op_is_tried() -> None:
    not_differentiable = {n for n in OPS if n not in DIFFERENTIABLE}
    assert not_differentiable == {
        "stop_gradient", "one_hot", "equal", "not_equal", "less", "less_equal", "greater", "greater_equal"
    }  # fmt: skip
