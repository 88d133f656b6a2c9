"""Whole networks, of 4 to 60 leaves: perceptrons, a small GPT, a convnet with max-pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.adversary.corpus import Draw, Subject, Wrong
from benchmarks.adversary.faults import elements, factor, left_out, zeros
from benchmarks.adversary.frameworks import Framework, Loss, Tree
from benchmarks.adversary.kinds.points import normal

__all__ = ["SUBJECTS", "perceptron"]

BOTH = ("float64", "float32")


def perceptron(depth: int, activation: str, residual: bool = False) -> Loss:
    def loss(f: Framework, p: Tree, b: Tree) -> Any:
        h = b["x"]
        for layer in range(depth):
            z = h @ p[f"w{layer}"].T + p[f"b{layer}"]
            h = h + getattr(f, activation)(z) if residual else getattr(f, activation)(z)
        return ((h - b["y"]) ** 2).mean()

    return loss


def _layers(depth: int, width: int) -> Draw:
    def draw(generator: np.random.Generator) -> Tree:
        weights = {f"w{k}": generator.normal(size=(width, width)) / np.sqrt(width) for k in range(depth)}
        return weights | {f"b{k}": 0.3 * generator.normal(size=width) for k in range(depth)}

    return draw


def _transposed(leaf: str) -> Callable[[Framework, Tree, Tree, Tree], Tree]:
    return lambda f, gradient, params, batch: {**gradient, leaf: gradient[leaf].T}


def _norm(f: Framework, x: Any, weight: Any, bias: Any, detached: bool = False) -> Any:
    middle = x.mean(-1)[..., None]
    centred = x - (f.detach(middle) if detached else middle)
    return weight * centred / f.sqrt((centred**2).mean(-1)[..., None] + 1e-5) + bias


BLOCKS, WIDTH, LENGTH, WORDS = 2, 12, 6, 9


def _gpt(causal: bool = True, detached: bool = False, tied: bool = True) -> Loss:
    """Embedding, blocks of one head each, and the embedding again for the logits."""
    mask, cut = np.tril(np.ones((LENGTH, LENGTH))), -1e9

    def attention(f: Framework, p: Tree, k: int, x: Any) -> Any:
        q, key, v = (x @ p[f"{name}{k}"] for name in ("q", "k", "v"))
        scores = q @ key.T / np.sqrt(WIDTH).item()
        scores = f.where(f.constant(mask, x) > 0, scores, cut) if causal else scores
        return f.softmax(scores, -1) @ v @ p[f"o{k}"]

    def loss(f: Framework, p: Tree, b: Tree) -> Any:
        x = b["words"] @ p["embedding"] + p["position"]
        for k in range(BLOCKS):
            x = x + attention(f, p, k, _norm(f, x, p[f"g{k}"], p[f"s{k}"], detached))
            h = _norm(f, x, p[f"gm{k}"], p[f"sm{k}"], detached)
            x = x + f.silu(h @ p[f"u{k}"] + p[f"c{k}"]) @ p[f"d{k}"]
        logits = _norm(f, x, p["gf"], p["sf"]) @ (p["embedding"] if tied else f.detach(p["embedding"])).T
        return (f.log(f.exp(logits).sum(-1)) - (logits * b["next"]).sum(-1)).mean()

    return loss


def _gpt_params(generator: np.random.Generator) -> Tree:
    def normal(*shape: int) -> Any:
        return generator.normal(size=shape) / np.sqrt(WIDTH)

    found = {"embedding": 2 * normal(WORDS, WIDTH), "position": normal(LENGTH, WIDTH)}
    for k in range(BLOCKS):
        found |= {f"{name}{k}": normal(WIDTH, WIDTH) for name in "qkvo"}
        found |= {f"u{k}": normal(WIDTH, 24), f"c{k}": normal(24), f"d{k}": normal(24, WIDTH)}
        found |= {f"{name}{k}": 1 + normal(WIDTH) for name in ("g", "gm")}
        found |= {f"{name}{k}": normal(WIDTH) for name in ("s", "sm")}
    return found | {"gf": 1 + normal(WIDTH), "sf": normal(WIDTH)}


def _sentence(generator: np.random.Generator) -> Tree:
    words = generator.integers(WORDS, size=LENGTH + 1)
    return {"words": np.eye(WORDS)[words[:-1]], "next": np.eye(WORDS)[words[1:]]}


def _of(loss: Loss) -> Callable[[Framework, Tree, Tree, Tree], Tree]:
    """The gradient of another loss, as a backward with a bug has it."""
    return lambda f, gradient, params, batch: f.gradient(loss)(params, batch)


GPT_WRONGS = (
    Wrong("causal mask dropped", 0.02, _of(_gpt(causal=False)), leaves=("q0", "k0", "v0", "embedding")),
    Wrong("means of norms detached", 1e-3, _of(_gpt(detached=True)), leaves=("embedding", "u0", "q0")),
    Wrong("tied embedding's second path dropped", 0.1, _of(_gpt(tied=False)), leaves=("embedding",)),
    Wrong("o0 transposed", 0.1, _transposed("o0"), leaves=("o0",)),
    factor(1.02, "d1"),
    zeros("c0"),
    left_out("s1"),
)


def _convolved(f: Framework, x: Any, w: Any) -> Any:
    """3 x 3, without padding."""
    height, width = x.shape[2] - 2, x.shape[3] - 2
    return sum(
        f.einsum("nchw,oc->nohw", x[:, :, i : i + height, j : j + width], w[:, :, i, j])
        for i in range(3)
        for j in range(3)
    )


def _pooled(f: Framework, x: Any) -> Any:
    n, c, h, w = x.shape
    return f.amax(f.amax(x.reshape(n, c, h // 2, 2, w // 2, 2), 5), 3)


def _convnet(masked: bool = True) -> Loss:
    def loss(f: Framework, p: Tree, b: Tree) -> Any:
        z = _convolved(f, b["x"], p["w1"]) + p["b1"][:, None, None]
        h = _pooled(f, f.relu(z) if masked else z + f.detach(f.relu(z) - z))
        h = f.relu(_convolved(f, h, p["w2"]) + p["b2"][:, None, None])
        logits = h.reshape(h.shape[0], -1) @ p["v"] + p["c"]
        return (f.log(f.exp(logits).sum(-1)) - (logits * b["t"]).sum(-1)).mean()

    return loss


def _convnet_params(generator: np.random.Generator) -> Tree:
    def normal(*shape: int, scale: float = 0.4) -> Any:
        return scale * generator.normal(size=shape)

    return {
        "w1": normal(3, 1, 3, 3),
        "b1": normal(3),
        "w2": normal(4, 3, 3, 3, scale=0.25),
        "b2": normal(4),
        "v": normal(16, 5),
        "c": normal(5),
    }


def _images(generator: np.random.Generator) -> Tree:
    return {"x": generator.normal(size=(3, 1, 10, 10)), "t": np.eye(5)[generator.integers(5, size=3)]}


def _unflipped(f: Framework, gradient: Tree, params: Tree, batch: Tree) -> Tree:
    return {**gradient, "w2": f.flip(gradient["w2"], (2, 3))}


SUBJECTS = (
    *(
        Subject(
            f"{activation} perceptron, {2 * depth} leaves",
            perceptron(depth, activation, residual=depth > 5),
            _layers(depth, width),
            (
                factor(1.02, "w1"),
                Wrong("w1 transposed", 0.1, _transposed("w1"), leaves=("w1",)),
                factor(1 / 5, "b0"),
                zeros("b1"),
                left_out("b0"),
                elements(range(width), 0.0, leaf="w0", off=0.02, name="first row of w0 zero"),
            )[: 6 if depth < 10 else 2],
            normal(x=(5, width), y=(5, width)),
            frameworks=("numpy", "torch", "jax") if depth < 10 else ("torch",),
            dtypes=BOTH if depth < 10 else ("float32",),
            demanded=() if activation == "relu" else BOTH,
        )
        for depth, width, activation in ((2, 8, "tanh"), (3, 8, "relu"), (6, 6, "silu"), (30, 5, "tanh"))
    ),
    Subject(
        "small GPT",
        _gpt(),
        _gpt_params,
        GPT_WRONGS,
        _sentence,
        frameworks=("torch",),
        dtypes=BOTH,
    ),
    Subject(  # which is mostly compilation there
        "small GPT in jax",
        _gpt(),
        _gpt_params,
        (GPT_WRONGS[0], factor(1.02, "d1")),
        _sentence,
        frameworks=("jax",),
        dtypes=("float32",),
    ),
    Subject(
        "relu convnet with max-pooling",
        _convnet(),
        _convnet_params,
        (
            Wrong("relu's mask forgotten", 0.05, _of(_convnet(masked=False)), leaves=("w1", "b1")),
            Wrong("kernel of w2 not flipped", 0.1, _unflipped, leaves=("w2",)),
            factor(1.02, "v"),
            factor(1 / 3, "c"),
            zeros("b1"),
            left_out("b2"),
        ),
        _images,
        frameworks=("torch", "jax"),
        dtypes=BOTH,
    ),
)
