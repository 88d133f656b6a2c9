"""What a candidate says besides its gradient, and what its answers depend on besides the point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import gradwitness as gw
from benchmarks.adversary.corpus import Subject, Wrong
from benchmarks.adversary.frameworks import Framework, Tree
from benchmarks.adversary.kinds.points import normal

__all__ = ["SUBJECTS"]

BOTH = ("float64", "float32")
Make = Callable[[Framework, Subject], gw.Candidate]


def _together(value: Callable[[Framework, Any, Tree], Any]) -> Make:
    """A candidate whose value_and_gradient gives `value(f, loss, params)` for its loss."""

    def make(f: Framework, subject: Subject) -> gw.Candidate:
        gradient = subject.right_gradient(f)

        def both(params: Tree, batch: Tree) -> tuple[Any, Tree]:
            return value(f, subject.forward(f, params, batch), params), gradient(params, batch)

        return gw.Candidate(f.backend, lambda p, b: subject.forward(f, p, b), value_and_gradient=both)

    return make


def _remembering(said: Callable[[list[Tree]], Tree]) -> Make:
    """A candidate that gives `said(all gradients so far)`."""

    def make(f: Framework, subject: Subject) -> gw.Candidate:
        gradient, seen = subject.right_gradient(f), list[Tree]()

        def given(params: Tree, batch: Tree) -> Tree:
            seen.append(gradient(params, batch))
            del seen[:-50]
            return said(seen)

        return gw.Candidate(f.backend, lambda p, b: subject.forward(f, p, b), gradient=given)

    return make


def _random(scale: float, of_loss: bool) -> Make:
    """Noise without a seed: dropout that is not seeded, in small."""

    def make(f: Framework, subject: Subject) -> gw.Candidate:
        gradient, generator = subject.right_gradient(f), np.random.default_rng(7)

        def loss(params: Tree, batch: Tree) -> Any:
            return subject.forward(f, params, batch) * (1 + scale * of_loss * generator.normal())

        def given(params: Tree, batch: Tree) -> Tree:
            return {k: g * (1 + scale * generator.normal()) for k, g in gradient(params, batch).items()}

        return gw.Candidate(f.backend, loss, gradient=given)

    return make


def _stale(field: str) -> Make:
    """A backward that reads what the last forward pass left, whichever that was."""

    def make(f: Framework, subject: Subject) -> gw.Candidate:
        gradient, last = subject.right_gradient(f), dict[str, Any]()

        def loss(params: Tree, batch: Tree) -> Any:
            last.update(params if field == "params" else batch)
            return subject.forward(f, params, batch)

        def given(params: Tree, batch: Tree) -> Tree:
            return gradient({**params, **{k: last.get(k, v) for k, v in params.items()}}, batch)

        return gw.Candidate(f.backend, loss, gradient=given)

    return make


def _writing(f: Framework, subject: Subject) -> gw.Candidate:
    gradient = subject.right_gradient(f)

    def given(params: Tree, batch: Tree) -> Tree:
        found = gradient(params, batch)
        params["w"] *= 0.5
        return found

    return gw.Candidate(f.backend, lambda p, b: subject.forward(f, p, b), gradient=given)


def _loss(f: Framework, p: Tree, b: Tree) -> Any:
    return (f.tanh(b["x"] @ p["w"].T) ** 2).mean() + (p["v"] ** 2).sum() / 3


def _same(f: Framework, value: Any, params: Tree) -> Any:
    return value


def _nan(f: Framework, gradient: Tree, params: Tree, batch: Tree) -> Tree:
    return {**gradient, "w": f.where(params["w"] > 0, gradient["w"], gradient["w"] * float("nan"))}


EAGER = ("numpy", "torch")
SUBJECTS = (
    Subject(
        "value and gradient together",
        _loss,
        normal(0.8, w=(4, 3), v=3),
        (
            Wrong("another mean", 0.0, make=_together(lambda f, value, p: value * 12)),
            Wrong("value off by 1%", 0.0, make=_together(lambda f, value, p: value * 1.01)),
            Wrong(
                "regulariser not in the value", 0.0, make=_together(lambda f, value, p: value - (p["v"] ** 2).sum() / 3)
            ),
            Wrong("value of 0", 0.0, make=_together(lambda f, value, p: value * 0)),
        ),
        normal(x=(5, 3)),
        dtypes=BOTH,
        demanded=BOTH,
        make=_together(_same),
    ),
    Subject(
        "memory",
        _loss,
        normal(0.8, w=(4, 3), v=3),
        (
            Wrong("accumulates", 0.0, make=_remembering(lambda seen: {k: sum(g[k] for g in seen) for k in seen[0]})),
            Wrong("the first answer again", 0.0, make=_remembering(lambda seen: seen[0])),
            Wrong("the answer before", 0.0, make=_remembering(lambda seen: seen[max(len(seen) - 2, 0)])),
            Wrong("parameters of the last forward pass", 0.0, make=_stale("params")),
            Wrong("writes to its parameters", 0.0, make=_writing),
        ),
        normal(x=(5, 3)),
        frameworks=EAGER,
        dtypes=BOTH,
        demanded=BOTH,
        make=_remembering(lambda seen: seen[-1]),
    ),
    Subject(
        "chance",
        _loss,
        normal(0.8, w=(4, 3), v=3),
        tuple(
            Wrong(f"noise of {scale:g} in the {what}", 0.0, make=_random(scale, of_loss))
            for scale in (0.1, 1e-3)
            for what, of_loss in (("gradient", False), ("loss too", True))
        ),
        normal(x=(5, 3)),
        frameworks=EAGER,
        dtypes=BOTH,
        demanded=BOTH,
    ),
    Subject(
        "not a number",
        _loss,
        normal(0.8, w=(4, 3), v=3),
        (Wrong("NaN where w is negative", float("inf"), _nan, leaves=("w",)),),
        normal(x=(5, 3)),
        dtypes=BOTH,
        demanded=BOTH,
    ),
)
