"""Losses that take one step in float32 whatever they are given, as mixed-precision code does.

Not in NumPy: its gradients here are torch's, whose float32 rounds otherwise than the loss's.
"""

from __future__ import annotations

from typing import Any

from benchmarks.adversary.corpus import Subject, Wrong
from benchmarks.adversary.faults import elements, factor, left_out, zeros
from benchmarks.adversary.frameworks import Framework, Loss, Tree
from benchmarks.adversary.frameworks import dtype_name as name_of
from benchmarks.adversary.kinds.points import normal

__all__ = ["SUBJECTS"]

BOTH = ("float64", "float32")
OWN = ("torch", "jax")


def _attention(detached: str = "", step: str = "float32") -> Loss:
    """softmax(scores.float()), as language models have it."""

    def loss(f: Framework, p: Tree, b: Tree) -> Any:
        q, k, v = (f.detach(p[name]) if name == detached else p[name] for name in ("q", "k", "v"))
        weights = f.softmax(f.cast(q @ k.T, step), -1)
        return ((f.cast(weights, name_of(p["v"])) @ v) * b["c"]).sum()

    return loss


def _rms_norm(f: Framework, p: Tree, b: Tree) -> Any:
    """As in LlamaRMSNorm."""
    x = f.cast(p["x"], "float32")
    x = x / f.sqrt((x * x).mean(-1)[..., None] + 1e-6)
    return (p["w"] * f.cast(x, name_of(p["w"])) * b["c"]).sum()


def _inverse_detached(f: Framework, p: Tree, b: Tree) -> Any:
    x = f.cast(p["x"], "float32")
    x = x / f.detach(f.sqrt((x * x).mean(-1)[..., None] + 1e-6))
    return (p["w"] * f.cast(x, name_of(p["w"])) * b["c"]).sum()


def _cross_entropy(f: Framework, p: Tree, b: Tree) -> Any:
    """Logits in float32, as training scripts make them."""
    logits = f.cast(b["x"] @ p["w"].T, "float32")
    chosen = (logits * f.cast(b["t"], "float32")).sum(-1)
    return (f.log(f.exp(logits).sum(-1)) - chosen).mean()


def _whole(f: Framework, p: Tree, b: Tree) -> Any:
    """All of it in float32, and the result called float64."""
    h = f.tanh(f.cast(b["x"], "float32") @ f.cast(p["w"], "float32").T)
    return f.cast((h @ f.cast(p["v"], "float32")) ** 2, name_of(p["w"])).mean()


def _fused(f: Framework, p: Tree, b: Tree) -> Any:
    import jax

    return (jax.nn.dot_product_attention(p["q"], p["k"], p["v"], is_causal=True) * b["c"]).sum()


def _one_hot(generator: Any) -> Tree:
    t = generator.permutation(8)[:6] % 4
    return {"x": generator.normal(size=(6, 3)), "t": (t[:, None] == range(4)).astype(float)}


SUBJECTS = (
    Subject(
        "attention, softmax in float32",
        _attention(),
        normal(q=(4, 3), k=(5, 3), v=(5, 2)),
        (
            factor(1.05, "q"),
            factor(-1.0, "k"),
            zeros("q"),
            elements([3, 4, 5], 0.0, leaf="k", off=0.05, name="one key forgotten"),
            left_out("v"),
        ),
        normal(c=(4, 2)),
        frameworks=OWN,
        dtypes=BOTH,
        seeds=(0, 1),
    ),
    Subject(
        "rms norm in float32",
        _rms_norm,
        normal(x=(4, 3), w=3),
        (Wrong("inverse detached", 0.05, loss=_inverse_detached, leaves=("x",)), factor(1.05, "x"), factor(0.9, "w")),
        normal(c=(4, 3)),
        frameworks=OWN,
        dtypes=BOTH,
        seeds=(0, 1),
    ),
    Subject(
        "cross-entropy in float32",
        _cross_entropy,
        normal(w=(4, 3)),
        (factor(1.05), factor(6.0), zeros(), elements([0, 1, 2], -1.0, leaf="w", off=0.1)),
        _one_hot,
        frameworks=OWN,
        dtypes=BOTH,
    ),
    Subject(
        "all in float32",
        _whole,
        normal(0.7, w=(6, 3), v=6),
        (factor(1.05, "w"), factor(0.5, "v"), zeros("w")),
        normal(x=(5, 3)),
        frameworks=OWN,
        dtypes=BOTH,
    ),
    Subject(
        "jax.nn.dot_product_attention",
        _fused,
        normal(q=(1, 4, 2, 3), k=(1, 4, 2, 3), v=(1, 4, 2, 3)),
        (factor(1.05, "q"), factor(-1.0, "k"), zeros("q")),
        normal(c=(1, 4, 2, 3)),
        frameworks=("jax",),
        dtypes=BOTH,
        seeds=(0, 1),
    ),
)
