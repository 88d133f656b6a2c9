"""A test suite that uses the plugin, with a right gradient and a wrong one; copied, and run by pytest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradwitness as gw
from gradwitness.networks import network
from gradwitness_pytest.verifier import VerifyGradients


def loss(params: Any, batch: Any) -> Any:
    return ((np.tanh(batch["x"] @ params["w"].T + params["b"]) - batch["y"]) ** 2).mean()


def gradient(params: Any, batch: Any) -> Any:
    hidden = np.tanh(batch["x"] @ params["w"].T + params["b"])
    g = 2 * (hidden - batch["y"]) / hidden.size * (1 - hidden**2)
    return {"w": g.T @ batch["x"], "b": g.sum(axis=0)}


def a_mean_for_a_sum(params: Any, batch: Any) -> Any:
    found = gradient(params, batch)
    return found | {"b": found["b"] / len(batch["x"])}


draw = np.random.default_rng(0).normal
PARAMS, BATCH = {"w": draw(size=(4, 3)), "b": draw(size=4)}, {"x": draw(size=(8, 3)), "y": draw(size=(8, 4))}
RIGHT = {"mine": gw.Candidate("numpy", loss, gradient=gradient)}
WRONG = {"mine": gw.Candidate("numpy", loss, gradient=a_mean_for_a_sum)}


def test_right(verify_gradients: VerifyGradients) -> None:
    report = verify_gradients(RIGHT, PARAMS, BATCH)
    assert report
    assert [row.network for row in report.rows] == ["test_right"] * 2


def test_fault(verify_gradients: VerifyGradients) -> None:
    verify_gradients(WRONG, PARAMS, BATCH)


def test_second_call(verify_gradients: VerifyGradients) -> None:
    verify_gradients(RIGHT, PARAMS, BATCH)
    verify_gradients(WRONG, PARAMS, BATCH)


@pytest.mark.parametrize("where", ["a/b", "a-b"])
def test_elsewhere(
    verify_gradients: VerifyGradients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    verify_gradients(RIGHT, PARAMS, BATCH, name="tanh")


def test_own_seed(verify_gradients: VerifyGradients) -> None:
    verify_gradients(WRONG, PARAMS, BATCH, seed=7)


def test_problem(verify_gradients: VerifyGradients) -> None:
    report = verify_gradients(network("article"), backends="numpy", dtypes="float64")
    assert {row.network for row in report.rows} == {"article"}


def test_fault_that_is_expected(verify_gradients: VerifyGradients) -> None:
    with pytest.raises(pytest.fail.Exception, match="mine b: disagree"):
        verify_gradients(WRONG, PARAMS, BATCH)


def test_allowed(verify_gradients: VerifyGradients) -> None:
    verify_gradients(WRONG, PARAMS, BATCH, allow="disagree")


def test_required(verify_gradients: VerifyGradients) -> None:
    verify_gradients(RIGHT, PARAMS, BATCH, require=["numpy", "mine"])


def test_required_and_absent(verify_gradients: VerifyGradients) -> None:
    verify_gradients(RIGHT, PARAMS, BATCH, require="torch")


def test_usage_label(verify_gradients: VerifyGradients) -> None:
    verify_gradients({"mine": loss}, PARAMS, BATCH)


def test_usage_trace(verify_gradients: VerifyGradients) -> None:
    verify_gradients(lambda params, batch: params["nowhere"], PARAMS, BATCH)


def test_usage_allow(verify_gradients: VerifyGradients) -> None:
    verify_gradients(RIGHT, PARAMS, BATCH, allow="everything")


def test_usage_require(verify_gradients: VerifyGradients) -> None:
    verify_gradients(RIGHT, PARAMS, BATCH, require="tensorflow")


def test_usage_option(verify_gradients: VerifyGradients) -> None:
    verify_gradients(RIGHT, PARAMS, BATCH, tolerance=1e-3)


def test_unused() -> None:
    pass
