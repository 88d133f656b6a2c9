"""The 2-2-1 network of `gradwitness explain article`: the programs beside this one, held against each other."""

from typing import Any

import article_compile
import article_jax
import article_torch
import torch

import gradwitness as gw

PARAMS = article_compile.PARAMS  # by torch's names: hidden.weight and so on; a row per neuron
BATCH = {"x": [0.5, 0.8], "target": [1.0]}


def torch_loss(params: Any, batch: Any) -> Any:
    """The module, with these parameters in the place of its own; of shape [1]."""
    y = torch.func.functional_call(article_torch.Article(), params, batch["x"])
    return 0.5 * (y - batch["target"]) ** 2


def compiled_loss(params: Any, batch: Any) -> Any:
    """Compiled where it is written."""
    return article_compile.loss(params, batch["x"], batch["target"])


def jax_loss(params: Any, batch: Any) -> Any:
    """jax's weights have a row per input, and its output is one number."""
    hidden = {"weight": params["hidden.weight"].T, "bias": params["hidden.bias"]}
    output = {"weight": params["output.weight"][0], "bias": params["output.bias"][0]}
    return article_jax.loss({"hidden": hidden, "output": output}, batch["x"], batch["target"][0])


def run() -> gw.Report:
    """Each against differences of its own loss, and against the others."""
    return gw.verify(
        {"torch": torch_loss, "compiled": gw.Candidate("torch", compiled_loss), "jax": jax_loss},
        {name: torch.tensor(p, dtype=torch.float64) for name, p in PARAMS.items()},
        {name: torch.tensor(x, dtype=torch.float64) for name, x in BATCH.items()},
        name="article",
    )


if __name__ == "__main__":
    report = run()
    print(report.table())
    raise SystemExit(not report)
