"""A case of the judge: candidates at a point, and the verdicts that are right; rules of which both passes are given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
import pytest
import torch

import gradwitness as gw

__all__ = [
    "DOUBT",
    "RULES",
    "Case",
    "W",
    "abs_sign",
    "each",
    "expect_refused",
    "jax_rule",
    "logistic",
    "max_plus",
    "normal",
    "numpy_gradient",
    "power",
    "scattered",
    "squares",
    "summed",
    "torch_rule",
]

DOUBT = frozenset({"disagree", "inconclusive"})  # what a wrong gradient may be called where nothing can tell more


@dataclass(frozen=True)
class Case:
    """candidates: as gw.verify takes them. leaves: the gradients that it is about, every one by default. verdicts:
    those that are right. says: what their message must hold. how: further options of gw.verify. gap: why it is not yet
    so."""

    candidates: Any
    params: Mapping[str, Any]
    batch: Mapping[str, Any] = field(default_factory=dict)
    leaves: Collection[str] = ()
    verdicts: Collection[str] = ("disagree",)
    says: str = ""
    how: Mapping[str, Any] = field(default_factory=dict)
    gap: str = ""

    def report(self) -> gw.Report:
        with np.errstate(all="ignore"):
            return gw.verify(self.candidates, self.params, self.batch, **self.how)

    @property
    def by_values(self) -> Case:
        """The same, judged by the values of the losses alone."""
        return replace(self, how={**self.how, "capture": "never"})

    @property
    def may_be_captured(self) -> bool:
        given = self.candidates.values() if isinstance(self.candidates, Mapping) else [self.candidates]
        names = self.candidates if isinstance(self.candidates, Mapping) else ()
        backends = {one.backend for one in given if isinstance(one, gw.Candidate)} | set(names)
        return bool(backends & {"torch", "torch.compile", "jax"})

    def rows(self, report: gw.Report) -> list[gw.Row]:
        """Those that it is about."""
        return [row for row in report.rows if not self.leaves or row.parameter in self.leaves]

    def holds(self, report: gw.Report) -> bool:
        """Whether each of these rows has one of the right verdicts, and says why."""
        rows = self.rows(report)
        told = all(row.captured or self.says in row.message for row in rows)  # by a graph, it is told otherwise
        return bool(rows) and told and all(str(row.verdict) in self.verdicts for row in rows)


def each(kinds: Mapping[str, Mapping[str, Case]]) -> pytest.MarkDecorator:
    """Parametrizes a test by the cases of all kinds, each called "kind: case": judged by the values of the loss, and
    by its graph where there is one."""
    found = []
    for kind, cases in kinds.items():
        for name, case in cases.items():
            marks = [pytest.mark.xfail(strict=True, reason=case.gap)] if case.gap else []
            found.append(pytest.param(case.by_values, id=f"{kind}: {name}", marks=marks))
            if case.may_be_captured:  # every third also by day
                marks = [] if len(found) % 3 == 0 else [pytest.mark.nightly]
                found.append(pytest.param(case, id=f"{kind}: {name}, by its graph", marks=marks))
    return pytest.mark.parametrize("case", found)


def expect_refused(case: Case) -> None:
    """A wrong gradient: the report is not green, and says what is right."""
    report = case.report()
    assert not report, repr(report)
    assert case.holds(report), repr(report)


def torch_rule(forward: Callable[[Any], Any], slope: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """forward(x), with cotangent * slope(x) in its backward."""

    class Rule(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx: Any, *g: Any) -> Any:
            return g[0] * slope(*ctx.saved_tensors)

    rule: Any = Rule
    return lambda x: rule.apply(x)


def jax_rule(forward: Callable[[Any], Any], slope: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same for jax."""
    rule = jax.custom_vjp(forward)
    rule.defvjp(lambda x: (forward(x), x), lambda x, g: (g * slope(x),))
    return rule


def numpy_gradient(loss: Callable[[Any, Any], Any], gradient: Callable[[Any, Any], Any]) -> dict[str, gw.Candidate]:
    """A loss and its gradient by hand."""
    return {"mine": gw.Candidate("numpy", loss, gradient=gradient)}


RULES: dict[str, Callable[..., Any]] = {"torch": torch_rule, "jax": jax_rule}


# Losses and points


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


W = {"w": normal(1, 5)}


def logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def squares(p: Any, b: Any) -> Any:
    return (p["w"] ** 2).sum()


def power(n: int) -> Callable[[Any, Any], Any]:
    return lambda p, b: (p["w"] ** n).sum()


def summed(f: Callable[[Any], Any], path: str) -> Callable[[Any, Any], Any]:
    """The sum of f(x), beside that of v ** 3 where there is one."""
    return lambda p, b: f(p[path]).sum() + ((p["v"] ** 3).sum() if path != "v" and "v" in p else 0)


# What torch decides by equality


class MaxPlus(torch.autograd.Function):
    """The largest a + b along a matrix product's inner dimension; its backward asks who it was, off by a factor."""

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any, off: float) -> Any:
        out, ctx.off = (a[:, :, None] + b[None]).amax(1), off
        ctx.save_for_backward(a, b, out)
        return out

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        a, b, out = ctx.saved_tensors
        w = ((a[:, :, None] + b[None]) == out[:, None]).to(g[0].dtype) * g[0][:, None] * ctx.off
        return w.sum(2), w.sum(0), None


class AbsSign(torch.autograd.Function):
    """|x|, its sign kept in 8 bits."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(((x >= 0).to(x.dtype) * 2 - 1).to(torch.int8))
        return x.abs()

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return ctx.saved_tensors[0].to(g[0].dtype) * g[0]


def max_plus(off: float = 1.0) -> Callable[[Any, Any], Any]:
    rule: Any = MaxPlus
    return lambda p, b: rule.apply(p["a"], p["b"], off)


def abs_sign(x: Any) -> Any:
    rule: Any = AbsSign
    return rule.apply(x)


def scattered(x: Any, how: str) -> Any:
    index = torch.tensor([0, 0, 1, 2, 2, 2])[:, None].expand(-1, 2)
    return torch.zeros(4, 2, dtype=x.dtype).scatter_reduce(0, index, x, how, include_self=False)
