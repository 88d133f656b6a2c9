"""Models as people write them in flax nnx and in equinox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from gradwitness_jax import from_pytree

__all__ = ["mixer", "transformer"]

Loss = Callable[[Any, Any], Any]
WORDS, WIDTH, CLASSES = 50, 16, 5


class Block(nnx.Module):
    """Attention and a perceptron, each behind a norm and beside the identity.

    A bias of the keys would have no part in the loss: its gradient is 0 but for the rounding of the norms, which
    compute in float32.
    """

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.attention = nnx.MultiHeadAttention(num_heads=4, in_features=WIDTH, use_bias=False, decode=False, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(WIDTH, rngs=rngs), nnx.RMSNorm(WIDTH, rngs=rngs)])
        self.up, self.down = nnx.Linear(WIDTH, 32, rngs=rngs), nnx.Linear(32, WIDTH, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        length = x.shape[1]
        x = x + self.attention(self.norms[0](x), mask=jnp.tril(jnp.ones((length, length), bool)))
        return x + self.down(nnx.gelu(self.up(self.norms[1](x))))


class Transformer(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.words = nnx.Embed(WORDS, WIDTH, rngs=rngs)
        self.blocks = nnx.List([Block(rngs), Block(rngs)])
        self.head = nnx.Linear(WIDTH, WORDS, rngs=rngs)

    def __call__(self, words: Any) -> Any:
        x = self.words(words)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def transformer() -> tuple[Loss, Any, Any]:
    graph, state = nnx.split(Transformer(nnx.Rngs(0)))

    def loss(state: Any, batch: Any) -> Any:
        scores = nnx.merge(graph, state)(batch["words"][:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(scores, batch["words"][:, 1:]).mean()

    return *from_pytree(state, loss), {"words": np.random.default_rng(0).integers(WORDS, size=(2, 7))}


class Mixing(eqx.Module):
    """A perceptron over the patches, and one over the channels."""

    norms: list[eqx.nn.LayerNorm]
    patches: eqx.nn.MLP
    channels: eqx.nn.MLP

    def __init__(self, patches: int, key: jax.Array) -> None:
        first, second = jax.random.split(key)
        self.norms = [eqx.nn.LayerNorm((WIDTH, patches)), eqx.nn.LayerNorm((patches, WIDTH))]
        self.patches = eqx.nn.MLP(patches, patches, 24, depth=1, activation=jax.nn.gelu, key=first)
        self.channels = eqx.nn.MLP(WIDTH, WIDTH, 24, depth=1, activation=jax.nn.gelu, key=second)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + jax.vmap(self.patches)(self.norms[0](x))
        x = x.T
        return (x + jax.vmap(self.channels)(self.norms[1](x))).T


class Mixer(eqx.Module):
    """Tolstikhin et al., "MLP-Mixer", arXiv:2105.01601."""

    cut: eqx.nn.Conv2d
    blocks: list[Mixing]
    head: eqx.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        cut, head, *keys = jax.random.split(key, 4)
        self.cut = eqx.nn.Conv2d(3, WIDTH, 4, stride=4, key=cut)
        self.blocks = [Mixing(4, k) for k in keys]
        self.head = eqx.nn.Linear(WIDTH, CLASSES, key=head)

    def __call__(self, image: jax.Array) -> jax.Array:
        x = self.cut(image).reshape(WIDTH, -1)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(axis=1))


def mixer() -> tuple[Loss, Any, Any]:
    def loss(module: Any, batch: Any) -> Any:
        scores = jax.vmap(module)(batch["x"])
        return optax.softmax_cross_entropy_with_integer_labels(scores, batch["y"]).mean()

    images = np.random.default_rng(1).standard_normal((2, 3, 8, 8))
    return *from_pytree(Mixer(jax.random.key(0)), loss), {"x": images, "y": np.arange(2)}
