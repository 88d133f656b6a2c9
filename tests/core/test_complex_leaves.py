"""Complex leaves: a gradient by both parts, in torch's convention and in jax's; a forgotten conjugate is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import gradwitness as gw
from gradwitness import ops

rng = np.random.default_rng(0)
PARAMS = {"w": rng.normal(size=(4, 3)) + 1j * rng.normal(size=(4, 3))}
BATCH = {"x": rng.normal(size=(8, 3)) + 1j * rng.normal(size=(8, 3)), "y": rng.normal(size=(8, 4))}


def in_torch(p: Any, b: Any, product: Any = lambda x, w: x @ w.T) -> Any:
    return ((product(b["x"], p["w"]).abs() ** 2 - b["y"]) ** 2).mean()


def in_jax(p: Any, b: Any) -> Any:
    return jnp.mean((jnp.abs(b["x"] @ p["w"].T) ** 2 - b["y"]) ** 2)


def gradient(p: Any, b: Any) -> Any:
    """By hand: dL/da + i dL/db, by the parts of w."""
    z = b["x"] @ p["w"].T
    return {"w": (4 * z * (np.abs(z) ** 2 - b["y"]) / z.size).T @ b["x"].conj()}


def in_numpy(p: Any, b: Any) -> Any:
    return np.mean((np.abs(b["x"] @ p["w"].T) ** 2 - b["y"]) ** 2)


@pytest.mark.parametrize("dtypes", ["float64", "complex64", np.complex128, torch.complex64])
def test_both_frameworks_agree_by_both_parts(dtypes: Any) -> None:
    mine = gw.Candidate("numpy", in_numpy, gradient=gradient)
    report = gw.verify({"torch": in_torch, "jax": in_jax, "mine": mine}, PARAMS, BATCH, dtypes=dtypes)
    assert {(row.parameter, str(row.verdict)) for row in report.rows} == {("w.real", "agree"), ("w.imag", "agree")}
    assert {row.shape for row in report.rows} == {(4, 3)}


def test_the_dtypes_of_complex_params_are_those_of_their_parts() -> None:
    narrow = {"w": torch.tensor(PARAMS["w"], dtype=torch.complex64)}
    report = gw.verify({"torch": in_torch}, narrow, BATCH)
    assert {row.dtype for row in report.rows} == {"float32"}
    assert report, repr(report)


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, w: Any) -> Any:
        ctx.save_for_backward(x, w)
        return x @ w.T

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        x, w = ctx.saved_tensors
        return g[0] @ w.conj(), g[0].T @ x.conj()


class Forgotten(Product):
    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        x, w = ctx.saved_tensors
        return g[0] @ w, g[0].T @ x


@pytest.mark.parametrize(("rule", "verdict"), [(Product, "agree"), (Forgotten, "disagree")])
def test_a_backward_that_forgot_to_conjugate_is_found(rule: Any, verdict: str) -> None:
    report = gw.verify({"torch": lambda p, b: in_torch(p, b, rule.apply)}, PARAMS, BATCH, dtypes="float64")
    assert {str(row.verdict) for row in report.rows} == {verdict}, repr(report)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_gradient_in_the_others_convention_is_called_the_conjugate(backend: str) -> None:
    loss = {"torch": in_torch, "jax": in_jax}[backend]

    def others(p: Any, b: Any) -> Any:
        if backend == "jax":
            return jax.tree.map(jnp.conj, jax.grad(in_jax)(p, b))
        w = p["w"].detach().requires_grad_()
        return {"w": torch.autograd.grad(in_torch({"w": w}, b), w)[0].conj()}

    mine = gw.Candidate(backend, loss, gradient=others)
    report = gw.verify({backend: loss, "mine": mine}, PARAMS, BATCH, dtypes="float64")
    found = {(row.candidate, row.parameter): row for row in report.rows}
    assert found["mine", "w.real"].verdict == "agree"
    assert found["mine", "w.imag"].verdict == "disagree"
    assert "the gradient of w is the conjugate" in found["mine", "w.imag"].message
    assert found[backend, "w.imag"].verdict == "agree"


def test_a_real_gradient_of_a_complex_leaf_is_refused() -> None:
    mine = gw.Candidate("numpy", in_numpy, gradient=lambda p, b: {"w": gradient(p, b)["w"].real})
    (row,) = gw.verify({"mine": mine}, PARAMS, BATCH, dtypes="float64").rows
    assert row.verdict == "error"
    assert "dtype float64, its parameter is complex: give dL/da + i dL/db" in row.message


def test_a_complex_batch_beside_real_params() -> None:
    def loss(p: Any, b: Any) -> Any:
        return in_torch({"w": p["w"].to(b["x"].dtype)}, b)

    assert gw.verify({"torch": loss}, {"w": PARAMS["w"].real}, BATCH)


def test_ops_have_no_complex_numbers_and_the_error_says_what_has() -> None:
    with pytest.raises(gw.GradwitnessError, match="give the loss in torch or jax"):
        gw.verify(lambda p, b: ops.tanh(p["w"]).sum(), PARAMS, {})


def test_a_complex_loss_is_refused() -> None:
    (row,) = gw.verify({"torch": lambda p, b: p["w"].sum()}, PARAMS, {}, dtypes="float64").rows
    assert "real number" in row.message


def test_wrt_names_a_complex_leaf_of_the_batch() -> None:
    report = gw.verify({"torch": in_torch}, PARAMS, BATCH, wrt="x", dtypes="float64")
    assert [row.parameter for row in report.rows] == ["x.real", "x.imag"]
    assert report, repr(report)


@pytest.mark.parametrize("path", ["all", "torch.func.grad"])
def test_paths(path: str) -> None:
    report = gw.verify({"torch": in_torch}, PARAMS, BATCH, paths=path, dtypes="float64")
    assert {str(row.verdict) for row in report.rows} <= {"agree", "unsupported"}, repr(report)


def test_in_a_subprocess() -> None:
    report = gw.verify({"torch": in_torch}, PARAMS, BATCH, dtypes="float64", timeout=60)
    assert report, repr(report)


def test_its_script_says_what_to_do_instead(tmp_path: Path) -> None:
    report = gw.verify({"torch": lambda p, b: in_torch(p, b, Forgotten.apply)}, PARAMS, BATCH, dtypes="float64")
    with pytest.raises(gw.GradwitnessError, match="real and the imaginary part as two leaves"):
        report.export_repro(tmp_path / "bug.py")
    assert not list(tmp_path.iterdir())


def test_a_conjugate_view_of_torch_is_a_leaf_as_any_other() -> None:
    params = {"w": torch.tensor(PARAMS["w"]).conj()}
    assert np.array_equal(gw.Problem("p", None, params, {}).leaves["w.imag"], -PARAMS["w"].imag)
    assert gw.verify({"torch": in_torch}, params, BATCH, dtypes="float64")


def test_two_leaves_of_one_path_are_refused() -> None:
    with pytest.raises(gw.GradwitnessError, match=r"a part of it has the path 'w.real'"):
        gw.Problem("p", None, {"w.real": np.ones(2), "w": np.ones(2) * 1j}, {})


def test_what_is_intended_of_a_complex_leaf_is_named_by_its_path() -> None:
    def loss(p: Any, b: Any) -> Any:
        return (p["w"].detach() * p["w"]).abs().pow(2).sum()

    report = gw.verify({"torch": loss}, PARAMS, {}, intended={"w": "detached"}, dtypes="float64")
    assert {str(row.verdict) for row in report.rows} == {"intended"}, repr(report)


def test_a_list_of_complex_numbers_is_no_array() -> None:
    with pytest.raises(gw.GradwitnessError, match=r"np.array"):
        gw.verify({"torch": in_torch}, {"w": [1 + 2j]}, BATCH)
