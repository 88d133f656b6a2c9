"""The 2-2-1 network of `gradwitness explain article`: the programs beside this one, held against each other."""

from typing import Any

import article_compile
import article_jax
import article_torch
import torch

import gradwitness as gw

PARAMS = {
    "hidden": {"weight": [[0.3, -0.1], [0.5, 0.2]], "bias": [0.1, -0.2]},  # a row per neuron
    "output": {"weight": [[0.4, -0.3]], "bias": [0.05]},
}
BATCH = {"x": [0.5, 0.8], "target": [1.0]}


def named(params: Any) -> dict[str, Any]:
    """As torch names them: hidden.weight and so on."""
    return {f"{layer}.{name}": array for layer, leaves in params.items() for name, array in leaves.items()}


def torch_loss(params: Any, batch: Any) -> Any:
    """The module, with these parameters in the place of its own; of shape [1]."""
    y = torch.func.functional_call(article_torch.Article(), named(params), batch["x"])
    return 0.5 * (y - batch["target"]) ** 2


def compiled_loss(params: Any, batch: Any) -> Any:
    """Compiled where it is written."""
    return article_compile.loss(named(params), batch["x"], batch["target"])


def jax_loss(params: Any, batch: Any) -> Any:
    """jax's weights have a row per input, and its output is one number."""
    hidden = {"weight": params["hidden"]["weight"].T, "bias": params["hidden"]["bias"]}
    output = {"weight": params["output"]["weight"][0], "bias": params["output"]["bias"][0]}
    return article_jax.loss({"hidden": hidden, "output": output}, batch["x"], batch["target"][0])


def run() -> gw.Report:
    """Each against differences of its own loss, and against the others."""
    return gw.verify(
        {"torch": torch_loss, "compiled": gw.Candidate("torch", compiled_loss), "jax": jax_loss},
        arrays(PARAMS),
        arrays(BATCH),
        name="article",
    )


def arrays(tree: Any) -> Any:
    """The lists as arrays, in float64."""
    if isinstance(tree, dict):
        return {name: arrays(branch) for name, branch in tree.items()}
    return torch.tensor(tree, dtype=torch.float64)


if __name__ == "__main__":
    report = run()
    print(report.table())
    raise SystemExit(not report)
