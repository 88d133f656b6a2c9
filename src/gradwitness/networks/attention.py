"""A causal transformer over characters of a sonnet."""

from __future__ import annotations

from typing import Any

from gradwitness import ops
from gradwitness.networks.data import characters, vocabulary_size
from gradwitness.networks.initial import affine, bias, dense, generator, weight
from gradwitness.ops import Value
from gradwitness.problem import Problem

__all__ = ["transformer"]

EPS = 1e-5


def transformer(
    *,
    batch: int = 5,
    time: int = 7,
    width: int = 10,
    heads: int = 3,
    depth: int = 4,
    hidden: int = 16,
    blocks: int = 2,
    seed: int = 0,
) -> Problem:
    """`blocks` of attention and perceptron, layer norm before each, residual around each; cross entropy.

    Embeddings (vocabulary, width) are tied: they also weigh the output. Each of `heads` heads has
    `depth` dimensions. Key biases have a true gradient of 0: a softmax ignores what its row shares.
    Vaswani et al., arXiv:1706.03762; layer norm first: Xiong et al., arXiv:2002.04745, figure 1b.
    """
    rng = generator("transformer", seed)
    text = characters(batch, time + 1, offset=int(rng.integers(500)))
    params = {
        "embedding": weight(rng, vocabulary_size(), width),
        "position": weight(rng, time, width),
        "blocks": [_block(rng, width, heads * depth, hidden) for _ in range(blocks)],
        "norm": affine(rng, width),
        "bias": bias(rng, vocabulary_size()),
    }

    def loss(params: Any, batch: Any) -> Value:
        x = ops.take(params["embedding"], batch["characters"], axis=0) + params["position"]
        for block in params["blocks"]:
            x = x + _attend(block["attention"], ops.layer_norm(x, **block["norm_1"], eps=EPS), heads)
            x = x + _perceptron(block, ops.layer_norm(x, **block["norm_2"], eps=EPS))
        logits = ops.linear(ops.layer_norm(x, **params["norm"], eps=EPS), params["embedding"], params["bias"])
        return ops.cross_entropy(logits.reshape(-1, logits.shape[-1]), batch["next"].reshape(-1), reduction="mean")

    return Problem("transformer", loss, params, {"characters": text[:, :-1], "next": text[:, 1:]})


def _block(rng: Any, width: int, inner: int, hidden: int) -> dict[str, Any]:
    return {
        "norm_1": affine(rng, width),
        "attention": {
            **{name: dense(rng, width, inner) for name in ("query", "key", "value")},
            "output": dense(rng, inner, width),
        },
        "norm_2": affine(rng, width),
        "up": dense(rng, width, hidden),
        "down": dense(rng, hidden, width),
    }


def _attend(params: Any, x: Value, heads: int) -> Value:
    """Causal attention of x (batch, time, width) to itself."""
    query, key, value = (_split(ops.linear(x, **params[name]), heads) for name in ("query", "key", "value"))
    mixed = ops.scaled_dot_product_attention(query, key, value, is_causal=True)
    joined = ops.transpose(mixed, axes=(0, 2, 1, 3)).reshape(*x.shape[:2], -1)
    return ops.linear(joined, **params["output"])


def _split(x: Value, heads: int) -> Value:
    """(batch, time, heads * depth) as (batch, heads, time, depth)."""
    return ops.transpose(x.reshape(*x.shape[:2], heads, -1), axes=(0, 2, 1, 3))


def _perceptron(block: Any, x: Value) -> Value:
    return ops.linear(ops.gelu(ops.linear(x, **block["up"])), **block["down"])
