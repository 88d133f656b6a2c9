"""`python -m benchmarks.cost.gpt`: what it takes to verify a GPT, as its user wrote it in torch, by its size.

Training steps, forward and backward in the same dtype, are timed in the same run: a ratio means something on any
machine. GPT-2's 124 million parameters are `--width 768 --layers 12 --heads 12 --vocabulary 50257 --length 64`.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import nn

import gradwitness as gw
from benchmarks.cost.measure import step_seconds
from gradwitness_torch import from_module


class Block(nn.Module):
    """Causal attention and a perceptron, layer norm before each and residual around each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        q, k, v = (y.view(shape).transpose(1, 2) for y in self.qkv(self.norm_1(x)).chunk(3, -1))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + self.out(attended)
        return x + torch.as_tensor(self.down(F.gelu(self.up(self.norm_2(x)))))


class Gpt(nn.Module):
    """Embeddings of (vocabulary, width), tied to the output, and `layers` blocks."""

    def __init__(self, *, width: int, layers: int, heads: int, vocabulary: int, length: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        for p in self.parameters():  # as GPT-2 begins; no weight is exactly 0 or 1
            p.data += 0.02 * torch.randn_like(p)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        x = self.tokens(characters) + self.places(torch.arange(characters.shape[1]))
        for block in self.blocks:
            x = block(x)
        return torch.as_tensor(self.norm(x) @ self.tokens.weight.T)


def cross_entropy(module: Any, batch: Any) -> torch.Tensor:
    return F.cross_entropy(module(batch["x"]).flatten(0, 1), batch["y"].flatten())


def training(loss: Any, params: Any, batch: Any, dtype: torch.dtype) -> float:
    """Seconds of a training step."""
    leaves = {name: p.to(dtype).requires_grad_() for name, p in params.items()}
    return step_seconds(lambda: loss(leaves, batch), list(leaves.values()))


@click.command()
@click.option("--width", default=32, show_default=True)
@click.option("--layers", default=2, show_default=True)
@click.option("--heads", default=4, show_default=True)
@click.option("--vocabulary", default=64, show_default=True)
@click.option("--length", default=32, show_default=True)
@click.option("--batch", "examples", default=4, show_default=True)
@click.option("--dtype", type=click.Choice(["float64", "float32"]), default="float32", show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--capture", type=click.Choice(["never", "auto"]), default="never", show_default=True)
def main(examples: int, dtype: str, threads: int, capture: str, **sizes: int) -> None:
    """Verify one GPT, and print what it took."""
    torch.set_num_threads(threads)
    verify_tiny(dtype)
    before = peak()
    torch.manual_seed(0)
    loss, params = from_module(Gpt(**sizes), cross_entropy)
    x, y = (torch.randint(0, sizes["vocabulary"], (examples, sizes["length"])) for _ in range(2))
    batch, calls = {"x": x, "y": y}, Counter[str]()

    def counted(p: Any, b: Any) -> Any:
        calls["loss"] += 1
        return loss(p, b)

    step = training(loss, params, batch, getattr(torch, dtype))
    started = time.perf_counter()
    said = lambda text: click.echo(text, err=True)  # noqa: E731
    report = gw.verify({"torch": counted}, params, batch, dtypes=dtype, capture=capture, progress=said)
    taken = time.perf_counter() - started
    count = sum(p.numel() for p in params.values())
    verdicts = Counter(str(row.verdict) for row in report.rows)
    click.echo(
        f"{count} parameters, {len(params)} tensors, {dtype}: {taken:.1f} s, {taken / step:.0f} training steps of "
        f"{step:.3g} s, {calls['loss']} calls of the loss; {sum(row.seen or 0 for row in report.rows)} elements seen; "
        f"{peak() / 2**30:.1f} GiB, {(peak() - before) / count:.0f} bytes per parameter beyond torch itself; "
        f"{', '.join(f'{n} {v}' for v, n in verdicts.items())}"
    )


def verify_tiny(dtype: str) -> None:
    """What is imported once is no cost of a size."""
    loss, params = from_module(nn.Linear(2, 1), lambda m, b: m(b["x"]).square().sum())
    gw.verify({"torch": loss}, params, {"x": torch.ones(2, 2)}, dtypes=dtype)


def peak() -> int:
    """The largest resident size so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
