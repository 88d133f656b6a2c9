"""Two gradients at hand are close if rounding explains what is between them; else it is said who is off."""

from __future__ import annotations

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
