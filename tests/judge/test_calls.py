"""What judging takes, in calls of the loss; what fails fast fails first; and how far a run has come is told."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gradwitness as gw

MOST = 450  # calls of the loss for a small GPT in float64
WIDTH, HEADS, VOCABULARY, LENGTH = 8, 2, 11, 6


class Counted:
    """A loss that counts its calls."""

    def __init__(self, loss: Callable[[Any, Any], Any]) -> None:
        self.loss, self.calls = loss, 0

    def __call__(self, params: Any, batch: Any) -> Any:
        self.calls += 1
        return self.loss(params, batch)


def block(x: Any, p: Any) -> Any:
    batch, length, width = x.shape
    qkv = F.linear(F.layer_norm(x, (width,), p["norm1"], p["shift1"]), p["qkv"], p["qkv_bias"])
    q, k, v = (z.view(batch, length, HEADS, -1).transpose(1, 2) for z in qkv.chunk(3, -1))
    seen = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
    x = x + F.linear(seen, p["out"], p["out_bias"])
    h = F.gelu(F.linear(F.layer_norm(x, (width,), p["norm2"], p["shift2"]), p["up"], p["up_bias"]))
    return x + F.linear(h, p["down"], p["down_bias"])


def gpt(p: Any, b: Any) -> Any:
    x = p["words"][b["x"]] + p["places"]
    for layer in p["blocks"]:
        x = block(x, layer)
    x = F.layer_norm(x, (WIDTH,), p["norm"], p["shift"])
    return F.cross_entropy((x @ p["words"].T).flatten(0, 1), b["y"].flatten())


def parameters(layers: int) -> dict[str, Any]:
    """12 tensors for each layer, and 4, as GPT-2 is initialised."""
    rng, n = np.random.default_rng(0), WIDTH
    matrix: Callable[..., Any] = lambda *shape: 0.02 * rng.standard_normal(shape)  # noqa: E731
    blocks = [
        {"norm1": np.ones(n), "shift1": np.zeros(n), "norm2": np.ones(n), "shift2": np.zeros(n)}
        | {"qkv": matrix(3 * n, n), "qkv_bias": np.zeros(3 * n), "out": matrix(n, n), "out_bias": np.zeros(n)}
        | {"up": matrix(4 * n, n), "up_bias": np.zeros(4 * n), "down": matrix(n, 4 * n), "down_bias": np.zeros(n)}
        for _ in range(layers)
    ]
    top = {"words": matrix(VOCABULARY, n), "places": matrix(LENGTH, n), "norm": np.ones(n), "shift": np.zeros(n)}
    return top | {"blocks": blocks}


def verified(layers: int) -> tuple[gw.Report, int]:
    """(the report on a small GPT, the calls of its loss)."""
    words = np.random.default_rng(1).integers(0, VOCABULARY, (3, LENGTH + 1))
    loss = Counted(gpt)
    batch = {"x": words[:, :-1], "y": words[:, 1:]}
    report = gw.verify({"torch": loss}, parameters(layers), batch, dtypes="float64", capture="never")
    return report, loss.calls


@pytest.mark.parametrize("layers", [2, 4])
def test_every_element_of_a_small_gpt_is_seen_in_few_calls(layers: int) -> None:
    report, calls = verified(layers)
    assert report, repr(report)
    assert len(report.rows) == 12 * layers + 4
    assert calls <= MOST
    sizes = sum(int(np.prod(row.shape)) for row in report.rows if row.shape is not None)
    seen = sum(row.seen for row in report.rows if row.seen is not None)
    zeros = layers * WIDTH  # a key's bias moves no softmax
    assert sizes - zeros - sizes // 1000 <= seen <= sizes - zeros, "all that are not claimed to be 0, but 1 in 1000"


def test_calls_do_not_grow_with_the_number_of_tensors() -> None:
    """What is seen takes no more; those that show a reader one number beside another are of 32 tensors at most."""
    (small, few), (large, more), (largest, most) = verified(2), verified(4), verified(12)
    assert (len(small.rows), len(large.rows), len(largest.rows)) == (28, 52, 148)
    assert max(more, most) <= few + 2 * (32 - 28) + 40  # another step here and there
    shown = [row.fd_error is not None for row in largest.rows]
    assert sum(shown) == 32


@pytest.mark.parametrize(("dtype", "most"), [("float64", 95), ("float32", 110)])
def test_memory_is_that_of_a_dozen_copies(dtype: str, most: int) -> None:
    """In bytes per parameter, of which a copy in float64 takes 8: nothing is kept of what can be drawn again."""
    params = {f"w{i}": np.random.default_rng(i).standard_normal(100_000) for i in range(10)}
    by_hand = gw.Candidate(
        "numpy",
        lambda p, b: float(sum(np.sum(np.sin(w)) for w in p.values())),
        gradient=lambda p, b: {name: np.cos(w) for name, w in p.items()},
    )
    tracemalloc.start()
    try:
        report = gw.verify({"mine": by_hand}, params, dtypes=dtype)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report, repr(report)
    assert peak / 1e6 <= most


def dropout(p: Any, b: Any) -> Any:
    return (F.dropout(b["x"] @ p["w"], 0.5) ** 2).mean()


def attention_dropout(p: Any, b: Any) -> Any:
    q = (b["x"] @ p["w"])[None]
    return F.scaled_dot_product_attention(q, q, q, dropout_p=0.3).square().mean()


def noise(p: Any, b: Any) -> Any:
    h = b["x"] @ p["w"]
    return ((h + 0.1 * torch.randn_like(h)).tanh()).mean()


@pytest.mark.parametrize("dtypes", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("loss", [dropout, attention_dropout, noise])
def test_what_is_random_is_told_after_few_calls(loss: Callable[[Any, Any], Any], dtypes: str) -> None:
    counted = Counted(loss)
    draw = np.random.default_rng(0).standard_normal
    report = gw.verify({"torch": counted}, {"w": draw((4, 3))}, {"x": draw((8, 4))}, dtypes=dtypes)
    assert {str(row.verdict) for row in report.rows} == {"nondeterministic"}, repr(report)
    assert counted.calls <= 10


def squares(p: Any, b: Any) -> Any:
    return (p["w"] ** 2).sum()


@pytest.mark.parametrize("dtypes", ["float64", ("float64", "float32")])
@pytest.mark.parametrize(
    "candidates",
    [
        {"torch": squares},
        {"torch": squares, "jax": squares},
        {"mine": gw.Candidate("numpy", squares, gradient=lambda p, b: {"w": 2 * p["w"]})},
    ],
    ids=["one", "two", "by hand"],
)
def test_progress_tells_which_of_how_many_steps_begins(candidates: Any, dtypes: Any) -> None:
    told: list[str] = []
    assert gw.verify(candidates, {"w": np.array([1.0, 2.0])}, dtypes=dtypes, progress=told.append)
    counted = [re.search(r"\((\d+) of (\d+)", text) for text in told]
    assert all(counted), told
    steps = [(int(found[1]), int(found[2])) for found in counted if found]
    assert [k for k, _ in steps] == list(range(1, len(told) + 1))
    assert {n for _, n in steps} == {len(told)}
    assert all(any(label in text for text in told) for label in candidates)
