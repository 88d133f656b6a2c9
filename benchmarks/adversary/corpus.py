"""What the corpus is made of: subjects, each a loss at a point, with its right gradient and wrong ones.

The expected verdicts are data, and never fitted to what a judge says. A change of the corpus is a new VERSION.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np

import gradwitness as gw
from benchmarks.adversary.frameworks import Framework, Loss, Tree, framework

__all__ = ["VERSION", "Case", "Change", "Draw", "Subject", "Wrong", "cases_of", "distance", "gradient_in"]

VERSION = "1"
Draw = Callable[[np.random.Generator], Tree]
Change = Callable[[Framework, Tree, Tree, Tree], Tree]
Gradient = Callable[[Framework, Tree, Tree], Tree]


def _nothing(generator: np.random.Generator) -> Tree:
    return {}


@dataclass(frozen=True, eq=False)
class Wrong:
    """A gradient that is not the derivative.

    change(f, gradient, params, batch): the right gradient with the fault in it; or loss: one with the fault in its
    own rules. off: by how much it is wrong, at least, relative to the norm of a leaf at fault (infinity where the right
    gradient is zero). leaves: those at fault, all by default; one accepted verdict there is a false green. make: the
    candidate itself, where the fault is not in the gradient (off is then 0). frameworks, dtypes: if not the subject's.
    only_in: the dtype in which it is wrong, if there is but one.
    """

    name: str
    off: float
    change: Change | None = None
    loss: Loss | None = None
    leaves: tuple[str, ...] = ()
    make: Callable[[Framework, Subject], gw.Candidate] | None = None
    frameworks: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    only_in: str = ""


@dataclass(frozen=True, eq=False)
class Subject:
    """A loss at a point.

    loss: as the candidate has it, with rules of its own perhaps; plain: the same without them, by whose autodiff
    the right gradient is known. exact(f, params, batch): the right gradient, where no autodiff gives it. demanded: the
    dtypes in which `inconclusive` is not good enough for the right one. make: the right candidate, if it is special.
    rights: further gradients that are right too, by name. beside: another candidate takes part, `right`, or `wrong`
    by the same fault, or, beside a right one, by the first.
    """

    name: str
    loss: Loss
    params: Draw
    wrongs: tuple[Wrong, ...]
    batch: Draw = _nothing
    plain: Loss | None = None
    exact: Gradient | None = None
    frameworks: tuple[str, ...] = ("numpy", "torch", "jax")
    dtypes: tuple[str, ...] = ("float64",)
    seeds: tuple[int, ...] = (0,)
    demanded: tuple[str, ...] = ()
    make: Callable[[Framework, Subject], gw.Candidate] | None = None
    rights: Mapping[str, Change] = field(default_factory=dict)
    beside: str = ""

    @property
    def forward(self) -> Loss:
        """The loss, free of rules."""
        return self.plain or self.loss

    def right_gradient(self, f: Framework) -> Callable[[Tree, Tree], Tree]:
        if self.exact is not None:
            return partial(self.exact, f)
        return f.gradient(self.loss)

    def at(self, seed: int) -> tuple[Tree, Tree]:
        """(params, batch), in float64."""
        generator = np.random.default_rng(seed)
        return self.params(generator), self.batch(generator)


@dataclass(frozen=True, eq=False)
class Case:
    """One candidate, to be judged: expected to be accepted, or not to be.

    fault: what is wrong with it; None for a right one. variant: the name of another gradient that is right too.
    """

    kind: str
    subject: Subject
    framework: str
    dtype: str
    seed: int
    fault: Wrong | None = None
    variant: str = ""

    @property
    def name(self) -> str:
        what = f"wrong: {self.fault.name}" if self.fault else "right" + (f": {self.variant}" if self.variant else "")
        seed = f", seed {self.seed}" if len(self.subject.seeds) > 1 else ""
        return f"{self.kind} / {self.subject.name} / {self.framework} {self.dtype}{seed} / {what}"

    @property
    def is_right(self) -> bool:
        return self.fault is None

    @property
    def demands_agreement(self) -> bool:
        return self.is_right and self.dtype in self.subject.demanded

    @cached_property
    def point(self) -> tuple[Tree, Tree]:
        return self.subject.at(self.seed)

    @property
    def at_fault(self) -> tuple[str, ...]:
        """The leaves that must not be accepted; of a right one, none."""
        if self.fault is None:
            return ()
        return self.fault.leaves or tuple(self.point[0])

    def gradient(self, f: Framework) -> Callable[[Tree, Tree], Tree]:
        """What the candidate gives, in the arrays of f."""
        subject, fault = self.subject, self.fault
        if fault is not None and fault.loss is not None:
            return f.gradient(fault.loss)
        right = subject.right_gradient(f)
        change = fault.change if fault else subject.rights.get(self.variant)
        return right if change is None else partial(_changed, f, right, change)

    def candidate(self) -> gw.Candidate:
        f = framework(self.framework)
        make = self.fault.make if self.fault else self.subject.make
        if make is not None:
            return make(f, self.subject)
        if self.framework == "ops":
            return gw.Candidate("torch", gradient=self.gradient(framework("torch")))
        if self.by_hand:
            return gw.Candidate(f.backend, partial(self.subject.forward, f), gradient=self.gradient(f))
        return gw.Candidate(f.backend, partial((self.fault and self.fault.loss) or self.subject.loss, f))

    @property
    def by_hand(self) -> bool:
        """Whether its gradient is given beside the loss, in the place of the framework's."""
        if self.framework == "numpy" or self.variant:
            return True
        return self.fault.loss is None if self.fault else self.subject.exact is not None

    def verified(self) -> gw.Report:
        """The report of the judge."""
        params, batch = self.point
        candidate = self.candidate()
        if self.framework == "ops":
            loss = partial(self.subject.forward, framework("ops"))
            mine = {"mine": candidate}
            return gw.verify(loss, params, batch, backends="numpy", candidates=mine, dtypes=self.dtype, seed=self.seed)
        candidates = {**self.others(), "mine": candidate}
        return gw.verify(candidates, params, batch, dtypes=self.dtype, seed=self.seed)

    def others(self) -> dict[str, gw.Candidate]:
        """The candidate beside it, from the other framework."""
        if not self.subject.beside:
            return {}
        other = replace(self, framework="numpy" if self.framework == "torch" else "torch", fault=None, variant="")
        if self.subject.beside == "wrong":
            other = replace(other, fault=self.fault or self.subject.wrongs[0])
        return {"other": other.candidate()}


def _changed(f: Framework, right: Callable[[Tree, Tree], Tree], change: Change, params: Tree, batch: Tree) -> Tree:
    return change(f, right(params, batch), params, batch)


# of the faults of a subject, every so many are shown in a framework, others in the next dtype; all are in torch
EVERY = {"numpy": 2, "torch": 1, "jax": 3, "ops": 1}
NOT_THERE = {("numpy", "bfloat16"), ("numpy", "float16")}


def cases_of(kind: str, subjects: Sequence[Subject]) -> Iterator[Case]:
    """Every candidate of these subjects, right ones first."""
    for subject in subjects:
        for seed, name, (number, dtype) in product(subject.seeds, subject.frameworks, enumerate(subject.dtypes)):
            if (name, dtype) in NOT_THERE:
                continue
            right = Case(kind, subject, name, dtype, seed)
            yield right
            yield from (replace(right, variant=variant) for variant in subject.rights)
            every = EVERY[name] if len(subject.frameworks) > 1 else 1
            for place, fault in enumerate(subject.wrongs):
                if (place + number + seed) % every == 0 and _applies(fault, right):
                    yield replace(right, fault=fault)


def _applies(fault: Wrong, to: Case) -> bool:
    return to.framework in (fault.frameworks or (to.framework,)) and to.dtype in (fault.dtypes or (to.dtype,))


def gradient_in(case: Case, dtype: str = "float64") -> dict[str, Any]:
    """What the candidate gives in this dtype, as NumPy's float64; a leaf that it leaves out, as zeros."""
    params, batch = case.point
    if case.subject.frameworks == ("jax",):
        import jax

        with jax.enable_x64(True):
            found = case.gradient(framework("jax"))(params, batch)
            return {k: np.asarray(found.get(k, np.zeros(v.shape))) for k, v in params.items()}
    import torch

    f = framework("torch")
    tensors = ({k: f.cast(torch.tensor(v), dtype) for k, v in tree.items()} for tree in (params, batch))
    found = {k: f.cast(g.detach(), "float64").numpy() for k, g in case.gradient(f)(*tensors).items()}
    return {k: found.get(k, np.zeros(v.shape)) for k, v in params.items()}


def distance(case: Case) -> dict[str, float]:
    """By leaf at fault, how far the candidate's gradient is from the right one, relative to the right one's norm."""
    dtype = (case.fault and case.fault.only_in) or "float64"
    right, wrong = (gradient_in(c, dtype) for c in (replace(case, fault=None), case))
    return {leaf: _relative(wrong[leaf], right[leaf]) for leaf in case.at_fault}


def _relative(wrong: Any, right: Any) -> float:
    if not np.isfinite(wrong).all() or (not right.any() and wrong.any()):
        return float("inf")
    scale = float(np.abs(right).max()) or 1.0  # squares of subnormals would be 0
    return float(np.linalg.norm(((wrong - right) / scale).ravel()) / np.linalg.norm((right / scale).ravel()))
