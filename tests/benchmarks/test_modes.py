"""benchmarks.modes and benchmarks.checkpoints: what is timed is the same, and where two curves cross."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from click.testing import CliRunner

import gradwitness as gw
from benchmarks import checkpoints, modes
from gradwitness.networks import network
from gradwitness_torch.quiet import quiet


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [({1: 0.1, 4: 0.5, 16: 2.0}, 8.0), ({1: 2.0, 4: 3.0}, None), ({1: 0.1, 4: 0.2}, None), ({4: 1.0, 16: 2.0}, 4.0)],
)
def test_the_crossover_lies_between_two_points(ratios: dict[int, float], expected: float | None) -> None:
    found = modes.crossover(ratios)
    assert found == expected if expected is None else found == pytest.approx(expected)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_both_modes_give_one_jacobian(backend: str) -> None:
    with jax.enable_x64(True), quiet():  # torch.func.jvp warns when it is first called
        ways = modes.BACKENDS[backend](5)
        forward, reverse = (np.asarray(ways[name]()) for name in ("forward", "reverse"))
    assert forward.shape == (5, modes.INPUTS)
    np.testing.assert_allclose(forward, reverse, rtol=1e-10, atol=1e-14)


def test_the_table_has_a_row_for_each_number_of_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "OUTPUTS", (1, 2))
    monkeypatch.setattr(modes, "BACKENDS", {"numpy": modes.in_numpy})
    found = CliRunner().invoke(modes.main, ["--rounds", "1"])
    assert found.exit_code == 0, found.output
    assert [line.split()[:2] for line in found.output.splitlines()[2:4]] == [["numpy", "1"], ["numpy", "2"]]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_checkpoints_give_the_same_gradient(dtype: str) -> None:
    report = gw.verify(network("transformer"), backends=["torch"], candidates=checkpoints.candidates(4), dtypes=dtype)
    found: dict[str, Any] = {}
    for row in report.rows:
        found.setdefault(row.candidate, set()).add(str(row.verdict))
    assert found == {name: {"agree"} for name in ("torch", "torch, checkpoints", "jax, checkpoints")}, repr(report)
