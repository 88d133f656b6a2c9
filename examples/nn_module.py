"""A torch module with batch norm and tied weights, eager and compiled, held against the same network in JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from torch import nn

import gradwitness as gw
from gradwitness_torch import from_module


class NextWord(nn.Module):
    """Scores of the words that may follow each word; one table of vectors is input and output layer."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.norm = nn.BatchNorm1d(width)
        self.output = nn.Linear(width, words)
        self.output.weight = self.embedding.weight

    def forward(self, words: torch.Tensor) -> Any:
        return self.output(torch.tanh(self.norm(self.embedding(words))))


def torch_loss(module: Any, batch: Any) -> torch.Tensor:
    """The module is called as ever: its parameters are those on trial."""
    return F.cross_entropy(module(batch["word"]), batch["next"])


def jax_loss(params: Any, batch: Any) -> jax.Array:
    """The same from the definitions, by torch's names."""
    x = params["embedding.weight"][batch["word"]]
    x = (x - x.mean(axis=0)) / jnp.sqrt(x.var(axis=0) + 1e-5)
    x = jnp.tanh(x * params["norm.weight"] + params["norm.bias"])
    scores = jax.nn.log_softmax(x @ params["embedding.weight"].T + params["output.bias"])
    return -jnp.take_along_axis(scores, batch["next"][:, None], axis=1).mean()


def run() -> gw.Report:
    """Each against differences of its own loss, and against the others."""
    torch.manual_seed(0)
    loss, params = from_module(NextWord(words=9, width=4), torch_loss)
    batch = {"word": torch.randint(9, (12,)), "next": torch.randint(9, (12,))}
    candidates = {"torch": loss, "torch.compile": loss, "jax": jax_loss}
    return gw.verify(candidates, params, batch, dtypes=("float64", "float32"), name="next word")


if __name__ == "__main__":
    report = run()
    print(report.table())
    raise SystemExit(not report)
