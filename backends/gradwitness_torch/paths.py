"""The ways to a gradient that research code takes in torch: `Candidate.path` names one."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

from gradwitness.errors import GradwitnessError, UnsupportedError
from gradwitness.lowering import Implementation, expect_one_number, expect_one_output, reduction_over_examples
from gradwitness.problem import Candidate, Problem
from gradwitness_torch.accumulating import differentiated
from gradwitness_torch.anew import anew
from gradwitness_torch.cotangents import strided_cotangents

__all__ = ["PATHS", "Path", "along", "one_number"]

Leaves = Mapping[str, torch.Tensor]
Gradients = dict[str, Any]
Loss = Callable[[Leaves], Any]
Both = Callable[[Leaves], tuple[torch.Tensor, Gradients]]
TORCH = os.path.dirname(torch.__file__)


@dataclass(frozen=True)
class Case:
    """What a path is made for: the loss of leaves by path, the user's own that it calls if there is one, the leaves to
    differentiate by, and where it is run."""

    loss: Loss
    own: Callable[..., Any] | None
    wrt: Sequence[str]
    problem: Problem
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class Path:
    """One way to the gradient, by what differs from the plain one: each part makes its own of a case, and raises
    UnsupportedError where the path does not apply.

    ready: what is made of the user's own loss. loss: of the loss of leaves by path, which is then differentiated by a
    plain backward pass. both: a function of leaves that gives (loss, gradients by path) in its place. accumulates:
    whether the backward pass is `loss.backward()`, and what it leaves in `.grad` the gradient.
    """

    ready: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda loss: loss
    loss: Callable[[Case], Loss] = lambda case: case.loss
    both: Callable[[Case], Both] | None = None
    accumulates: bool = False


def along(
    path: Path, implementation: Implementation, candidate: Candidate, problem: Problem, *, dtype: str, device: str
) -> Implementation:
    """The candidate's implementation, with its gradient taken along a path."""
    own = candidate.loss if callable(candidate.loss) else None
    at = getattr(torch, dtype), torch.device(device)
    case = Case(implementation.loss, own, implementation.reaching, problem, *at)
    implementation = replace(implementation, loss=_explaining(path.loss(case)))
    if path.both is None:
        return implementation
    both = _explaining(path.both(case))

    def value_and_gradient(leaves: Leaves) -> tuple[torch.Tensor, Gradients]:
        value, found = both(leaves)
        return value, {name: found.get(name) for name in problem.differentiated}

    def gradient(leaves: Leaves) -> Gradients:
        return value_and_gradient(leaves)[1]

    return replace(implementation, value_and_gradient=value_and_gradient, gradient=gradient)


def _explaining(function: Callable[[Leaves], Any]) -> Callable[[Leaves], Any]:
    def explained(leaves: Leaves) -> Any:
        try:
            return function(leaves)
        except Exception as error:
            torch._C._autograd._saved_tensors_hooks_enable()  # a compilation that fails may leave them disabled
            raise _explained(error) from error

    return explained


def one_number(loss: Any) -> torch.Tensor:
    """A loss as a tensor of no axes. Raises GradwitnessError for what is none."""
    expect_one_output(loss)
    if not isinstance(loss, torch.Tensor):
        without = "; return it without int(), float() or .item()" if isinstance(loss, int | float) else ""
        raise GradwitnessError(f"the loss must return a torch.Tensor of one number, got {type(loss).__name__}{without}")
    if loss.is_meta:
        raise GradwitnessError('the loss is on the device "meta", which holds no numbers: make its tensors on another')
    expect_one_number(loss.shape)
    if not loss.is_floating_point():
        raise GradwitnessError(f"the loss must return a real number with a gradient, got one of {loss.dtype}")
    return loss if loss.ndim == 0 else loss.reshape(())  # which would be a step of the backward


def _functional(case: Case) -> Both:
    """torch.func.grad, which differentiates a function and has no tape."""

    def both(leaves: Leaves) -> tuple[torch.Tensor, Gradients]:
        by, others = _split(leaves, case.wrt)
        found, value = torch.func.grad_and_value(lambda p: one_number(case.loss({**others, **p})))(by)
        return value, found

    return both


def _compiled_gradient(case: Case) -> Both:
    """torch.compile of torch.func.grad of the loss: nothing of gradwitness that it could not follow is inside."""
    loss = case.loss if case.own is None else _of_leaves(case.own, case.problem)

    def gradient(by: Leaves, others: Leaves) -> Any:
        return torch.func.grad_and_value(lambda p: loss({**others, **p}).reshape(()))(by)

    compiled = _compiled(gradient)

    def both(leaves: Leaves) -> tuple[torch.Tensor, Gradients]:
        found, value = compiled(*_split(leaves, case.wrt))
        return value, found

    return both


def _of_leaves(own: Callable[..., Any], problem: Problem) -> Loss:
    """A user's loss as a function of leaves by path, by torch's own pytrees, which torch.compile knows."""
    if problem.complex:
        raise UnsupportedError("with complex leaves this path is not tried")
    order, structure = tree_flatten(problem.arguments({path: path for path in problem.leaves}))
    weights = problem.weights

    def loss(leaves: Leaves) -> torch.Tensor:
        value: torch.Tensor = own(*tree_unflatten([leaves[path] for path in order], structure))
        if not weights:
            return value
        outputs, _ = tree_flatten(value)
        total: torch.Tensor = sum((y * leaves[path]).sum() for y, path in zip(outputs, weights, strict=True))
        return total

    return loss


def _per_example(case: Case) -> Both:
    """vmap over the examples of the gradient of each, which are then summed, or averaged."""
    total = getattr(torch, reduction_over_examples(case.problem, *_value(case)))

    def both(leaves: Leaves) -> tuple[torch.Tensor, Gradients]:
        by, others = _split(leaves, case.wrt)
        single = {path: others.pop(path) for path in case.problem.by_example if path in others}

        def loss(p: Leaves, one: Leaves) -> torch.Tensor:
            return one_number(case.loss({**others, **p, **{path: x[None] for path, x in one.items()}}))

        each = torch.func.vmap(torch.func.grad_and_value(loss), in_dims=(None, 0), randomness="different")
        found, values = each(by, single)
        return total(values, dim=0), {path: total(g, dim=0) for path, g in found.items()}

    return both


def _value(case: Case) -> tuple[Callable[[Mapping[str, Any]], float], float]:
    """The loss of host arrays, in float64 where it runs there, and its unit roundoff."""

    def value(leaves: Mapping[str, Any], dtype: torch.dtype = torch.float64) -> float:
        placed = {path: torch.from_numpy(np.array(x, order="C")).to(case.device) for path, x in leaves.items()}
        floats = {path: x.to(dtype) for path, x in placed.items() if x.is_floating_point()}
        return one_number(case.loss({**placed, **floats})).item()

    try:
        value(case.problem.leaves)
    except Exception:  # noqa: BLE001  # a kernel of one dtype may raise anything in another
        return lambda leaves: value(leaves, case.dtype), torch.finfo(case.dtype).eps / 2
    return value, 2.0**-53


def _checkpointed(case: Case) -> Loss:
    return lambda leaves: checkpoint(case.loss, leaves, use_reentrant=False)


def _channels_last(case: Case) -> Loss:
    """Every array of four axes with its channels innermost in memory."""
    if not any(x.ndim == 4 for x in case.problem.leaves.values()):
        raise UnsupportedError("no array has four axes")
    return _laid_out(case, lambda x: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x)


def _non_contiguous(case: Case) -> Loss:
    """Every array with its last two axes swapped in memory and a gap after each element; what reads across finds
    other numbers there."""

    def layout(x: torch.Tensor) -> torch.Tensor:
        if x.ndim == 0:
            return x
        turned = x.mT if x.ndim > 1 else x
        others = ~turned if x.dtype == torch.bool else turned.detach() + 1
        apart = torch.stack([turned, others], dim=-1)[..., 0]
        return apart.mT if x.ndim > 1 else apart

    return _laid_out(case, layout)


def _laid_out(case: Case, layout: Callable[[torch.Tensor], torch.Tensor]) -> Loss:
    return lambda leaves: case.loss({path: layout(x) for path, x in leaves.items()})


def _strided_cotangents(case: Case) -> Both:
    """A plain backward pass, in which rules of the user's own get cotangents that are not contiguous."""

    def both(leaves: Leaves) -> tuple[torch.Tensor, Gradients]:
        by = {path: leaves[path].detach().requires_grad_() for path in case.wrt}
        value = one_number(case.loss({**leaves, **by}))
        with strided_cotangents() as seen:
            found, _ = differentiated(value, by)
        if not seen:
            raise UnsupportedError("no autograd.Function of one's own runs, which would get other cotangents")
        return value, found

    return both


def _split(leaves: Leaves, wrt: Sequence[str]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    return {path: leaves[path] for path in wrt}, {path: x for path, x in leaves.items() if path not in wrt}


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """In one graph: what breaks it is an error, and never run eagerly in silence."""
    compiled: Callable[..., Any] = torch.compile(anew(function), fullgraph=True, dynamic=False)
    return compiled


PATHS: dict[str, Path] = {
    "eager": Path(),
    "backward": Path(accumulates=True),
    "torch.func.grad": Path(both=_functional),
    "torch.compile": Path(ready=_compiled),
    "torch.compile(grad)": Path(both=_compiled_gradient),
    "vmap": Path(both=_per_example),
    "checkpoint": Path(loss=_checkpointed),
    "non-contiguous": Path(loss=_non_contiguous),
    "channels-last": Path(loss=_channels_last),
    "strided cotangents": Path(both=_strided_cotangents),
}

REFUSALS = {  # what torch says where a loss was not written for a path -> what it lacks
    "it must override the setup_context staticmethod": "torch.func needs autograd.Functions with setup_context: split "
    "forward(ctx, ...) into forward(...) and setup_context(ctx, inputs, output); that of a custom_op has none",
    "Tensor.requires_grad_() (or perhaps using torch.autograd.functional.* APIs) inside": "torch.func refuses "
    "requires_grad_() inside a loss: take inner gradients by torch.func.grad",
    "yet support saved tensor hooks": "torch.func runs no torch.utils.checkpoint inside a loss",
    "using `torch.autograd.grad` with `torch._dynamo": "torch.compile follows no torch.autograd.grad inside a loss: "
    "take inner gradients by torch.func.grad",
    "There was no fake impl registered": "torch.compile needs a fake of each custom_op: give it register_fake",
    "does not have vmap support": "vmap needs a rule of the autograd.Function: give it generate_vmap_rule = True, or a "
    "vmap staticmethod",
}
FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)\n\s*(?P<code>[^\n]*)')


def _is_of_dynamo(error: Exception) -> bool:
    """Whether torch.compile raised it. Its modules take seconds to import, and what was never compiled needs none."""
    if "torch._dynamo" not in sys.modules:
        return False
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)


def _explained(error: Exception) -> Exception:
    """What torch raises on a path, in one line: UnsupportedError where the loss was not written for it."""
    text = str(error)
    for said, means in REFUSALS.items():
        if said in text:
            return UnsupportedError(means)
    if not _is_of_dynamo(error):
        return error
    where = ""
    for frame in FRAME.finditer(text.partition("from user code")[2]):
        if TORCH not in frame["file"]:  # the innermost line of the user's own
            where = f" at {os.path.basename(frame['file'])}:{frame['line']}, {frame['code'].strip(' :')[:60]}"
    explanation = re.search(r"Explanation: ([^\n]*)", text)
    inner = re.search(r"got \w+\([\"'](.*)[\"']\)", text)
    why = next((found[1] for found in (inner, explanation) if found), "")
    return GradwitnessError(f"the graph breaks{where}: {next(iter(text.splitlines()), '')} ({why[:200]})")
