"""A layer norm written by hand in NumPy, held against the gradient in 256 bits and against torch and JAX."""

from typing import Any

import numpy as np

import gradwitness as gw
from gradwitness import ops

EPS = 1e-5


def loss(params: Any, batch: Any) -> Any:
    """The loss once more, over gradwitness.ops: what every backend runs, and the reference is the gradient of."""
    hidden = ops.layer_norm(batch["x"], params["weight"], params["bias"], eps=EPS)
    return ops.mse(hidden, batch["y"], reduction="mean", half=False)


def gradient(params: Any, batch: Any) -> Any:
    """As in a hand-written backward: the normalised rows are kept from the forward pass."""
    x = batch["x"]
    normalised = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + x.dtype.type(EPS))
    g = 2 * (normalised * params["weight"] + params["bias"] - batch["y"]) / batch["y"].size
    by_normalised = g * params["weight"]
    centred = by_normalised - by_normalised.mean(axis=-1, keepdims=True)
    along = (by_normalised * normalised).mean(axis=-1, keepdims=True)
    by_x = (centred - normalised * along) / np.sqrt(x.var(axis=-1, keepdims=True) + x.dtype.type(EPS))
    return {"weight": (g * normalised).sum(axis=0), "bias": g.sum(axis=0), "x": by_x}


def run() -> gw.Report:
    """By the inputs as well: a layer passes its gradient on."""
    draw = np.random.default_rng(0).normal
    params, batch = {"weight": draw(size=6), "bias": draw(size=6)}, {"x": draw(size=(8, 6)), "y": draw(size=(8, 6))}
    return gw.verify(
        loss,
        params,
        batch,
        wrt=("weight", "bias", "x"),
        backends="numpy, torch, jax",
        candidates={"mine": gw.Candidate("numpy", gradient=gradient)},
        dtypes=("float64", "float32"),
        name="layer norm",
    )


if __name__ == "__main__":
    report = run()
    print(report.table())
    raise SystemExit(not report)
