"""A case of the judge: candidates at a point, and the verdicts that are right; rules of which both passes are given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import pytest
import torch

import gradwitness as gw

__all__ = ["DOUBT", "Case", "each", "jax_rule", "numpy_gradient", "torch_rule"]

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

    def rows(self, report: gw.Report) -> list[gw.Row]:
        """Those that it is about."""
        return [row for row in report.rows if not self.leaves or row.parameter in self.leaves]

    def holds(self, report: gw.Report) -> bool:
        """Whether each of these rows has one of the right verdicts, and says why."""
        rows = self.rows(report)
        return bool(rows) and all(str(row.verdict) in self.verdicts and self.says in row.message for row in rows)


def each(kinds: Mapping[str, Mapping[str, Case]]) -> pytest.MarkDecorator:
    """Parametrizes a test by the cases of all kinds, each called "kind: case"."""
    found = []
    for kind, cases in kinds.items():
        for name, case in cases.items():
            marks = [pytest.mark.xfail(strict=True, reason=case.gap)] if case.gap else []
            found.append(pytest.param(case, id=f"{kind}: {name}", marks=marks))
    return pytest.mark.parametrize("case", found)


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
