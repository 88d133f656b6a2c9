"""A training of a torch module as it runs: what `gradwitness.watch` takes down between the start and the end of a
`with` block.

A step ends with `optimizer.step()`. The loss and the norm of the gradient are looked at in each step, everything else
in one of `every`: that walks the graph that autograd keeps. The first step runs in anomaly mode, without its checks, so
that ops have the user's lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any

import torch
from torch.nn.utils import clip_grad
from torch.optim import optimizer as optimizers

from gradwitness.training import NonFinite, Training
from gradwitness_torch.autograd_graph import AutogradGraph, without_slope

__all__ = ["TorchWatcher"]

CLIPPING = "_clip_grads_with_norm_"  # what every way to clip by norm calls
ALIKE = 1e-3  # part by which weights of examples may differ
Gradients = list[torch.Tensor]


class TorchWatcher:
    """Of one module. Between `start` and `stop` it stands in backward(), in clipping, and in every optimizer's step."""

    step: Callable[..., Any] | None = None

    def __init__(self, module: torch.nn.Module, every: int) -> None:
        self.training = Training()
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._names = {id(p): name for name, p in self._parameters.items()}
        self._every, self._stack = every, ExitStack()
        self._lines: list[str] = []
        self._ops: list[str] = []
        self._risky: list[tuple[tuple[int, ...], str]] = []
        self._without_slope: Any = None
        self._weights: list[float] = []  # of an example, in each backward pass of this step
        self._is_fresh = False  # whether no backward pass has run since the last step

    def start(self) -> None:
        self.training.received = dict.fromkeys(self._parameters, 0)
        stack = self._stack
        stack.enter_context(_replaced(torch.autograd, "backward", self._around_backward))
        if hasattr(clip_grad, CLIPPING):
            stack.enter_context(_replaced(clip_grad, CLIPPING, self._around_clipping))
        stack.callback(optimizers.register_optimizer_step_pre_hook(self._before_step).remove)
        before = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
        stack.callback(torch.autograd.set_detect_anomaly, *before)
        self._take_down_lines()

    def stop(self) -> None:
        self._stack.close()

    @property
    def _step(self) -> int:
        """The one that runs, from 1."""
        return self.training.steps + 1

    @property
    def _looks_closely(self) -> bool:
        return self.training.steps % self._every == 0

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
        if self._is_fresh:
            self._expect_nothing_left()
        self._is_fresh = False
        if loss.grad_fn is None or self.training.nonfinite is not None:
            return
        is_finite = math.isfinite(loss.item()) if loss.numel() == 1 else bool(torch.isfinite(loss.detach()).all())
        if not is_finite or self._looks_closely:
            self._walk(loss, is_finite)
        self._without_slope = without_slope(loss, self._risky) if is_finite else None

    def _walk(self, loss: torch.Tensor, is_finite: bool) -> None:
        graph = AutogradGraph(loss, self._lines, self._names)
        if graph.names != self._ops and is_finite:
            if any(graph.lines):
                torch.autograd.set_detect_anomaly(False)
                self._ops, self._lines = graph.names, graph.lines
            else:
                self._take_down_lines()  # of the next step, as this one's ops have run
        if not is_finite:
            found = graph.culprit()
            self.training.nonfinite = NonFinite(self._step, "the loss", found.origin, found.place, found.line)
            return
        self._risky = graph.risky()
        self.training.logs |= dict.fromkeys(graph.logs_of_softmax())
        if (averaged := graph.averaged()) is not None:
            node, count = averaged
            node.register_prehook(partial(self._weighed, count))

    def _weighed(self, count: float, cotangents: tuple[torch.Tensor | None, ...]) -> None:
        """Take down what an example of this backward pass counts for."""
        if cotangents and cotangents[0] is not None and cotangents[0].numel() == 1:
            self._weights.append(abs(float(cotangents[0])) / count)

    def _expect_nothing_left(self) -> None:
        left = [p.grad for p in self._parameters.values() if p.grad is not None]
        if left and (self._looks_closely or self.training.steps == 1) and (size := _norm(left)) > 0:
            self.training.carried[self._step] = size

    # Clipping

    def _around_clipping(self, clip: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(clip)
        def watched(parameters: Any, max_norm: float, total_norm: torch.Tensor, *rest: Any, **options: Any) -> Any:
            self.training.clipped.append((float(total_norm), float(max_norm)))
            return clip(parameters, max_norm, total_norm, *rest, **options)

        return watched

    # Steps

    def _before_step(self, optimizer: torch.optim.Optimizer, arguments: Any, options: Any) -> None:
        mine = [p for group in optimizer.param_groups for p in group["params"] if id(p) in self._names]
        if not mine:
            return  # another module's
        gradients = {self._names[id(p)]: p.grad for p in mine if p.grad is not None}
        norm = _norm(gradients.values())
        self.training.norms[self._step] = norm
        if not math.isfinite(norm) and self.training.nonfinite is None:
            self.training.nonfinite = self._of_gradient(gradients)
        if self._looks_closely:
            self.training.looked_at += 1
            for name in gradients:
                self.training.received[name] += 1
            self._compare_weights()
        self._weights = []
        self.training.steps += 1
        self._is_fresh = True

    def _compare_weights(self) -> None:
        if len(self._weights) > 1 and min(self._weights) < (1 - ALIKE) * max(self._weights):
            self.training.unequal[self._step] = tuple(self._weights)

    def _of_gradient(self, gradients: Mapping[str, torch.Tensor]) -> NonFinite:
        """Whose gradient is not finite, of a loss that was."""
        wrong = [name for name, g in gradients.items() if not bool(torch.isfinite(g).all())]
        what = f"the gradient of {wrong[-1]}" if wrong else "the gradient"
        found = self._without_slope
        place, line = ("an op behind it", "") if found is None else (found.place, found.line)
        return NonFinite(self._step, what, "op", place, line, backwards=True)


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
