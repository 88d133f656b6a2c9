"""A training of a torch module as it runs: what `gradwitness.watch` takes down between the start and the end of a
`with` block.

A step ends with `optimizer.step()`. The loss and the norm of the gradient are looked at in each step, everything else
in one of `every`: that walks the graph that autograd keeps. The first step runs in anomaly mode, without its checks, so
that ops have the user's lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import torch
from torch.nn.utils import clip_grad
from torch.optim import optimizer as optimizers

from gradwitness.training import NonFinite, Training
from gradwitness_torch.autograd_graph import AutogradGraph, Culprit, without_slope

__all__ = ["TorchWatcher"]

CLIPPING = "_clip_grads_with_norm_"  # what every way to clip by norm calls
ALIKE = 1e-3  # part by which weights of examples may differ


@dataclass
class _Stepped:
    """An optimizer of the module. rates: the learning rate of each parameter at its first step. steps: how many it has
    made; is_clean: whether a backward pass since its last step began with nothing in `.grad` of its parameters; left:
    the norm of what was there instead, where it was looked at.
    """

    parameters: dict[str, torch.nn.Parameter]
    rates: dict[str, float]
    steps: int = 0
    is_clean: bool = True
    left: float = 0.0

    def looks_closely(self, every: int) -> bool:
        """Whether its next step is to be looked at: one of `every`, and the second, which may be the first mistake."""
        return self.steps % every == 0 or self.steps == 1


class TorchWatcher:
    """Of one module. Between `start` and `stop` it stands in backward(), in clipping, and in every optimizer's step.

    Each optimizer of the module's parameters counts its own steps. What is seen before a step counts once that is made:
    a scaler that skips a step has dealt with it.
    """

    step: Callable[..., Any] | None = None

    def __init__(self, module: torch.nn.Module, every: int) -> None:
        self.training = Training()
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._names = {id(p): name for name, p in self._parameters.items()}
        self._every, self._stack = every, ExitStack()
        self._ops: list[str] = []
        self._lines: list[str] = []
        self._risky: list[tuple[tuple[int, ...], str]] = []
        self._without_slope: Culprit | None = None
        self._nonfinite: NonFinite | None = None  # of the step that is under way
        self._optimizers: dict[int, _Stepped] = {}
        self._before: dict[str, tuple[float, float]] = {}
        self._weights: dict[tuple[str, ...], list[dict[Any, float]]] = {}  # of what is averaged, by the ops of a loss

    def start(self) -> None:
        stack, self._before = self._stack, _sums(self._parameters)
        stack.enter_context(_replaced(torch.autograd, "backward", self._around_backward))
        if hasattr(clip_grad, CLIPPING):
            stack.enter_context(_replaced(clip_grad, CLIPPING, self._around_clipping))
        stack.callback(optimizers.register_optimizer_step_pre_hook(self._before_step).remove)
        before = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
        stack.callback(torch.autograd.set_detect_anomaly, *before)
        self._take_down_lines()

    def stop(self) -> None:
        self.training.nonfinite = self.training.nonfinite or self._nonfinite
        after = _sums(self._parameters)
        still = [name for name, sums in self._before.items() if sums == after[name]]
        self.training.still = {name: self._why_still(name) for name in still}
        self._stack.close()

    def _why_still(self, name: str) -> str:
        mine = [one for one in self._optimizers.values() if name in one.parameters]
        if not mine:
            return "it is in no optimizer that stepped"
        return f"its steps, at a learning rate of {mine[0].rates[name]:g}, round to nothing, or are undone"

    @property
    def _step(self) -> int:
        """The one that runs, from 1."""
        return self.training.steps + 1

    @property
    def _looks_closely(self) -> bool:
        """Whether the next step of some optimizer is to be looked at."""
        every = self._every
        return not self._optimizers or any(one.looks_closely(every) for one in self._optimizers.values())

    def _take_down_lines(self) -> None:
        """From the next op on, until a backward pass."""
        torch.autograd.set_detect_anomaly(True, check_nan=False)

    # Backward passes

    def _around_backward(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(backward)
        def watched(tensors: Any, *arguments: Any, **options: Any) -> Any:
            for loss in [tensors] if isinstance(tensors, torch.Tensor) else tensors:
                self._before_backward(loss)
            return backward(tensors, *arguments, **options)

        return watched

    def _before_backward(self, loss: torch.Tensor) -> None:
        self._look_at_what_is_left()
        if loss.grad_fn is None or self.training.nonfinite is not None:
            return
        is_finite = math.isfinite(loss.item()) if loss.numel() == 1 else bool(torch.isfinite(loss.detach()).all())
        if not is_finite or self._looks_closely:
            self._walk(loss, is_finite)
        self._without_slope = without_slope(loss, self._risky) if is_finite else None

    def _walk(self, loss: torch.Tensor, is_finite: bool) -> None:
        graph = AutogradGraph(loss, self._ops, self._lines, self._names)
        if not graph.is_of_module:
            return
        if not is_finite:
            found = graph.culprit()
            self._nonfinite = NonFinite(self._step, "the loss", found.origin, found.place, found.line)
            return
        if graph.names != self._ops:
            if any(graph.lines):
                torch.autograd.set_detect_anomaly(False)
                self._ops, self._lines = graph.names, graph.lines
            else:
                self._take_down_lines()  # of the next step, as this one's ops have run
        self._risky = graph.risky()
        self.training.logs |= dict.fromkeys(graph.logs_of_softmax())
        weights: dict[Any, float] = {}
        averaged = graph.averaged()
        for node, count in averaged:
            node.register_prehook(partial(self._weighed, weights, node, count))
        self._weights.setdefault(tuple(graph.names), []).append(weights)

    def _weighed(
        self, weights: dict[Any, float], node: Any, count: float, cotangents: tuple[torch.Tensor | None, ...]
    ) -> None:
        """Take down what a number that it averages counts for in this backward pass."""
        if cotangents and cotangents[0] is not None and cotangents[0].numel() == 1:
            weights[node] = abs(float(cotangents[0])) / count

    def _look_at_what_is_left(self) -> None:
        """Whether the gradients of an optimizer begin anew with this backward pass."""
        for one in self._optimizers.values():
            if one.is_clean:
                continue
            left = [p.grad for p in one.parameters.values() if p.grad is not None]
            one.left = _norm(left) if one.looks_closely(self._every) else 0.0
            one.is_clean = not left or (one.looks_closely(self._every) and one.left == 0)
        if all(p.grad is None for p in self._parameters.values()):  # also after a step that was skipped
            self._weights, self._nonfinite = {}, None

    # Clipping

    def _around_clipping(self, clip: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(clip)
        def watched(parameters: Any, max_norm: float, total_norm: torch.Tensor, *rest: Any, **options: Any) -> Any:
            if any(id(p) in self._names for p in parameters):
                self.training.clipped.append((float(total_norm), float(max_norm)))
            return clip(parameters, max_norm, total_norm, *rest, **options)

        return watched

    # Steps

    def _before_step(self, optimizer: torch.optim.Optimizer, arguments: Any, options: Any) -> None:
        mine = {
            self._names[id(p)]: p for group in optimizer.param_groups for p in group["params"] if id(p) in self._names
        }
        if not mine:
            return  # another module's
        if (one := self._optimizers.get(id(optimizer))) is None:
            one = self._optimizers[id(optimizer)] = _Stepped(mine, self._rates(optimizer))
        training, gradients = self.training, {name: p.grad for name, p in mine.items() if p.grad is not None}
        norm = _norm(gradients.values())
        training.norms[self._step] = norm
        training.nonfinite = training.nonfinite or self._nonfinite
        if not math.isfinite(norm) and training.nonfinite is None:
            training.nonfinite = self._of_gradient(gradients)
        if one.looks_closely(self._every):
            self._look(one, gradients)
        self._weights, self._nonfinite = {}, None
        one.steps, one.is_clean = one.steps + 1, False
        training.steps = max(training.steps, one.steps)

    def _rates(self, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """The learning rate of each parameter of the module."""
        groups = [(float(group.get("lr", 0.0)), group["params"]) for group in optimizer.param_groups]
        return {self._names[id(p)]: rate for rate, found in groups for p in found if id(p) in self._names}

    def _look(self, one: _Stepped, gradients: Mapping[str, torch.Tensor]) -> None:
        training = self.training
        training.looked_at += 1
        if not one.is_clean and one.left > 0:
            training.carried[self._step] = one.left
        for name in one.parameters:
            training.receive(name, name in gradients and bool(gradients[name].detach().any()))
        for passes in self._weights.values():
            self._compare([tuple(weights.values()) for weights in passes])

    def _compare(self, passes: Sequence[tuple[float, ...]]) -> None:
        """Backward passes of the same ops: whether what each averages counts for as much in all of them."""
        for weights in zip(*passes, strict=False):
            if len(weights) > 1 and min(weights) < (1 - ALIKE) * max(weights):
                self.training.unequal[self._step] = weights

    def _of_gradient(self, gradients: Mapping[str, torch.Tensor]) -> NonFinite:
        """Whose gradient is not finite, of a loss that was."""
        wrong = [name for name, g in gradients.items() if not bool(torch.isfinite(g).all())]
        what = f"the gradient of {wrong[-1]}" if wrong else "the gradient"
        found = self._without_slope
        place, line = ("an op behind it", "") if found is None else (found.place, found.line)
        return NonFinite(self._step, what, "op", place, line, backwards=True)


@torch.no_grad()
def _sums(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, tuple[float, float]]:
    """Two sums of each parameter, one of which changes if any of its numbers does. A sum of NaN equals no other."""
    found = {}
    for name, p in parameters.items():
        wide = p.detach().double().flatten()
        found[name] = float(wide.sum()), float(wide.abs().sum())
    return found


@torch.no_grad()
def _norm(gradients: Iterable[torch.Tensor]) -> float:
    dense = [g if g.layout is torch.strided else g.coalesce().values() for g in gradients]
    if not dense:
        return 0.0
    size = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(dense)), dtype=torch.float64))
    if math.isfinite(size):
        return size
    return math.hypot(*(float(torch.linalg.vector_norm(g.double())) for g in dense))  # squares may overflow before


@contextmanager
def _replaced(place: Any, name: str, around: Callable[[Any], Any]) -> Any:
    was = getattr(place, name)
    setattr(place, name, around(was))
    try:
        yield
    finally:
        setattr(place, name, was)
