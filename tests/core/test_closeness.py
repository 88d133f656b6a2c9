"""Two gradients at hand are close if rounding explains what is between them; else it is said who is off."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gradwitness as gw
from gradwitness import ops

DRAW = np.random.default_rng(0).standard_normal
PARAMS = {"w": DRAW((30, 40)).astype(np.float32), "b": DRAW(30).astype(np.float32)}
BATCH = {"x": DRAW((5, 40)).astype(np.float32)}


def in_torch(p: Any, b: Any) -> Any:
    return (F.silu(b["x"] @ p["w"].T + p["b"]) ** 2).mean()


def in_jax(p: Any, b: Any) -> Any:
    return jnp.mean(jax.nn.silu(b["x"] @ p["w"].T + p["b"]) ** 2)


def traced(p: Any, b: Any) -> Any:
    hidden = ops.silu(ops.linear(b["x"], p["w"], p["b"]))
    return (hidden * hidden).mean()


def of_torch(dtype: torch.dtype) -> dict[str, Any]:
    p = {path: torch.from_numpy(x).to(dtype).requires_grad_() for path, x in PARAMS.items()}
    loss = in_torch(p, {"x": torch.from_numpy(BATCH["x"]).to(dtype)})
    return dict(zip(p, torch.autograd.grad(loss, list(p.values())), strict=True))


def of_jax() -> Any:
    return jax.grad(in_jax)({path: jnp.asarray(x) for path, x in PARAMS.items()}, {"x": jnp.asarray(BATCH["x"])})


@pytest.mark.parametrize(
    "loss", [{"torch": in_torch}, gw.Candidate("jax", in_jax), traced], ids=["torch", "jax", "traced"]
)
def test_two_frameworks_are_close_whichever_loss_is_given(loss: Any) -> None:
    mine, theirs = of_torch(torch.float32), of_jax()
    gw.assert_gradients_close(mine, theirs, loss=loss, params=PARAMS, batch=BATCH)


@pytest.mark.parametrize(
    ("factor", "who"), [("mine", "mine is off"), ("theirs", "theirs is off"), ("both", "mine and theirs are off")]
)
def test_what_differs_is_named_and_who_is_off(factor: str, who: str) -> None:
    mine, theirs = of_torch(torch.float32), of_torch(torch.float64)
    if factor in ("mine", "both"):
        mine = {**mine, "b": mine["b"] * 1.0001}
    if factor in ("theirs", "both"):
        theirs = {**theirs, "b": theirs["b"] * 0.9998}
    with pytest.raises(
        AssertionError, match=rf"^b: they differ by .* noise floors; worst at \[\d+\]: .*; {who} from"
    ) as told:
        gw.assert_gradients_close(mine, theirs, loss={"torch": in_torch}, params=PARAMS, batch=BATCH)
    assert len(str(told.value).splitlines()) == 1


def test_float64_asks_for_more_digits() -> None:
    mine, theirs = of_torch(torch.float32), of_torch(torch.float64)
    with pytest.raises(AssertionError, match="mine is off from the derivative"):
        gw.assert_gradients_close(mine, theirs, loss=traced, params=PARAMS, batch=BATCH, dtype="float64")


def test_none_is_zeros_and_another_tree_is_refused() -> None:
    mine = of_torch(torch.float32)
    with pytest.raises(AssertionError, match=r"^b: they differ by 1 of their norm"):
        gw.assert_gradients_close(mine, {**mine, "b": None}, loss=traced, params=PARAMS, batch=BATCH)
    with pytest.raises(gw.GradwitnessError, match=r"theirs has v, which is no leaf of params"):
        gw.assert_gradients_close(mine, {**mine, "v": mine["b"]}, loss=traced, params=PARAMS, batch=BATCH)
    with pytest.raises(AssertionError, match=r"^w: theirs has shape \(40, 30\), its parameter \(30, 40\)"):
        gw.assert_gradients_close(mine, {**mine, "w": mine["w"].T}, loss=traced, params=PARAMS, batch=BATCH)


@pytest.mark.parametrize(
    "loss", [{"torch": in_torch}, gw.Candidate("jax", in_jax), traced], ids=["torch", "jax", "traced"]
)
def test_two_that_are_wrong_alike_do_not_confirm_each_other(loss: Any) -> None:
    right = of_torch(torch.float32)
    wrong = {**right, "b": 2 * right["b"]}
    with pytest.raises(AssertionError) as told:
        gw.assert_gradients_close(wrong, wrong, loss=loss, params=PARAMS, batch=BATCH)
    assert re.fullmatch(
        r"b: mine and theirs are close to each other, and both are off from the derivative of the loss: by 1 of its "
        r"norm, \S+ noise floors; worst at \[\d+\]: (\S+), expected \S+",
        str(told.value),
    )


@pytest.mark.parametrize(
    "loss", [{"torch": lambda p, b: (p["w"].detach() * p["w"]).sum()}, lambda p, b: ops.sum(ops.relu(p["w"]))]
)
def test_what_the_loss_itself_detaches_or_a_convention_at_a_kink_is_not_off(loss: Any) -> None:
    at, meant = np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 2.0])
    if callable(loss):
        meant = np.array([1.0, 1.0, 1.0])  # where relu takes 0 at 0
    gw.assert_gradients_close({"w": meant}, {"w": meant}, loss=loss, params={"w": at})


def test_a_graph_that_does_not_prove_to_be_the_loss_refutes_nobody() -> None:
    def by_bisection(p: Any, b: Any) -> Any:  # its graph is constant: the root of x**2 - w
        low, high = torch.zeros_like(p["w"]), 1 + p["w"]
        for _ in range(60):
            middle = (low + high) / 2
            is_below = middle * middle < p["w"]
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return (low + high).sum() / 2

    at = np.array([2.0, 3.0])
    found = {"w": 0.5 / np.sqrt(at)}
    gw.assert_gradients_close(found, found, loss={"torch": by_bisection}, params={"w": at})


@pytest.mark.parametrize("missing", [{"b": None}, {}])
def test_a_gradient_that_is_missing_is_named(missing: Any) -> None:
    right = of_torch(torch.float32)
    lacking = {"w": right["w"], **missing}
    for mine, theirs, who in ((right, lacking, "theirs has"), (lacking, lacking, "mine and theirs have")):
        with pytest.raises(AssertionError, match=rf"^b: .*; {who} no gradient, which counts as zeros$"):
            gw.assert_gradients_close(mine, theirs, loss=traced, params=PARAMS, batch=BATCH)


SQUARES = {"torch": lambda p, b: (p["w"] ** 2).sum()}
POINT = {"w": DRAW(8)}
UNDEFINED = {
    "all of it": np.full(8, np.nan),
    "one": np.r_[2 * POINT["w"][:7], np.nan],
    "one, and the others are wrong": np.r_[6 * POINT["w"][:7], np.nan],
    "infinite": np.full(8, np.inf),
}


@pytest.mark.parametrize("loss", [SQUARES, lambda p, b: ops.sum(p["w"] * p["w"])], ids=["torch", "traced"])
@pytest.mark.parametrize("who", ["mine", "theirs", "mine and theirs"])
@pytest.mark.parametrize("kind", UNDEFINED)
def test_what_is_not_finite_is_close_to_nothing(kind: str, who: str, loss: Any) -> None:
    given = {name: UNDEFINED[kind] if name in who else 2 * POINT["w"] for name in ("mine", "theirs")}
    with pytest.raises(AssertionError, match=f"w: {who.split()[0]} is NaN or infinite at "):
        gw.assert_gradients_close({"w": given["mine"]}, {"w": given["theirs"]}, loss=loss, params=POINT)


@pytest.mark.parametrize("faint", [{}, {"v": np.zeros(5)}], ids=["None", "zeros"])
def test_a_gradient_that_both_lack_is_off_however_faint_it_is(faint: Any) -> None:
    loss = {"torch": lambda p, b: (p["w"] ** 2).sum() + 1e-13 * p["v"].sum()}
    both = {"w": 20 * POINT["w"], **faint}
    with pytest.raises(AssertionError, match="v: mine and theirs are close to each other, and both are off"):
        gw.assert_gradients_close(both, both, loss=loss, params={"w": 10 * POINT["w"], "v": DRAW(5)})
