"""A module and a loss of it, as `gradwitness.verify` takes them: a function of the parameters by name."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from gradwitness.errors import GradwitnessError
from gradwitness.protocol import WRITER
from gradwitness_torch.copies import Copies
from gradwitness_torch.written import write_loss

__all__ = ["from_module"]

Tensors = dict[str, torch.Tensor]
LossOfModule = Callable[[Any, Any], Any]
LossOfParams = Callable[[Tensors, Any], Any]
PREFIX = "module."  # of the names of the user's module in a _Loss


def from_module(module: nn.Module, loss: LossOfModule, *, seed: int | None = None) -> tuple[LossOfParams, Tensors]:
    """Turn a module into a `loss(params, batch)` and its `params`, for a candidate of torch in `gradwitness.verify`.

    module: a torch.nn.Module. It stays untouched: each call runs a copy of the module as it is now, in its present mode
    (train or eval). The copy's parameters stay in place for its backward.
    loss: `loss(module, batch)`, which calls the module that it is given, its submodules or its parameters as usual, and
    returns one number, or arrays beside `cotangent=`.
    seed: of the numbers that torch draws in a call, such as a dropout in train mode, so that it draws the same each
    time. A compiled loss cannot be seeded. Without it such a module is `nondeterministic`.

    Returns (loss, params). params are copies of the parameters that require a gradient, by torch's names, in their
    dtypes and on their devices. A shared parameter comes once, by its first name. Buffers and frozen parameters begin
    each call as they are now, on the device of the params, and, if they are floating, in their dtype.

    Raises GradwitnessError for a module without a parameter to differentiate, a lazy one, or one that cannot be copied,
    and for a loss that uses the module itself instead of the one that it is given.
    """
    _expect_usable(module, loss)
    held = _Loss(_copy(module), loss)
    trained: Tensors = {name: p for name, p in held.named_parameters() if p.requires_grad}
    every = chain(held.named_parameters(), held.named_buffers())
    others = {name: x.detach() for name, x in every if name not in trained}
    copies = None if any(map(_is_compiled, held.modules())) else Copies(held)

    def loss_of_params(params: Tensors, batch: Any) -> Any:
        like = next(iter(params.values()))
        given = {PREFIX + name: x for name, x in params.items()}
        given |= {name: _copy_beside(like, x) for name, x in others.items()}
        if torch.compiler.is_compiling():  # which cannot seed, and has what is run again in its graph
            return torch.func.functional_call(held, given, (batch,), strict=True)
        _expect_all(params, trained)
        with nullcontext() if seed is None else _seeded(seed, like.device):
            if copies is None:
                return torch.func.functional_call(held, given, (batch,), strict=True)
            with copies.one(given) as module:
                return module(batch)

    vars(loss_of_params)[WRITER] = loss_of_params, partial(write_loss, module=held.module, loss=loss, seed=seed)
    return loss_of_params, {name.removeprefix(PREFIX): p.detach().clone() for name, p in trained.items()}


class _Loss(nn.Module):
    """A loss as the module around the user's own: in its forward, that one has the parameters of the call."""

    def __init__(self, module: nn.Module, loss: LossOfModule) -> None:
        super().__init__()
        self.module = module
        self._loss = loss

    def forward(self, batch: Any) -> Any:
        return self._loss(self.module, batch)


def _expect_usable(module: Any, loss: Any) -> None:
    if not isinstance(module, nn.Module) or not callable(loss):
        raise GradwitnessError(
            "from_module takes a torch.nn.Module and a loss(module, batch), "
            f"got {type(module).__name__} and {type(loss).__name__}"
        )
    if lazy := [name for name, x in chain(module.named_parameters(), module.named_buffers()) if is_lazy(x)]:
        raise GradwitnessError(f"{', '.join(lazy)}: lazy, without a shape yet; call the module once on a batch before")
    if not any(p.requires_grad for p in module.parameters()):
        raise GradwitnessError("no parameter of the module requires a gradient: there is nothing to differentiate")
    if name := _own_name(module, loss):
        raise GradwitnessError(
            f"the loss uses {name!r}, the module itself, which keeps its own parameters; "
            "let it use the module that it is given: loss(module, batch)"
        )


def _is_compiled(part: nn.Module) -> bool:
    """Whether the code that it runs holds its parameters. Such code runs none of it again in its backward."""
    return isinstance(part, torch.jit.ScriptModule) or type(part).__module__.startswith("torch._dynamo")


def _expect_all(params: Tensors, trained: Tensors) -> None:
    lacking = [name for name in (full.removeprefix(PREFIX) for full in trained) if name not in params]
    unknown = [name for name in params if PREFIX + name not in trained]
    if lacking or unknown:
        what = f"lack {', '.join(lacking)}" if lacking else f"have {', '.join(unknown)}, unknown to the module"
        raise GradwitnessError(f"params {what}; from_module gives those that its loss takes")


def _own_name(module: nn.Module, loss: Callable[..., Any]) -> str:
    """The name by which the loss refers to the module from outside its own arguments; empty if it does not."""
    try:
        names = inspect.getclosurevars(loss)
    except (TypeError, ValueError):  # not a Python function, or one whose names have no values yet
        return ""
    return next((name for name, value in {**names.globals, **names.nonlocals}.items() if value is module), "")


def _copy(module: nn.Module) -> nn.Module:
    """A copy for what forward may leave in a module: a count, or a cache in another dtype."""
    try:
        copied = copy.deepcopy(module)
    except Exception as error:  # noqa: BLE001  # a module may hold anything
        raise GradwitnessError(
            f"the module cannot be copied: {type(error).__name__}: {error}. Give a module without what copy.deepcopy "
            "refuses: open files, trainers, and tensors with a history, as torch.nn.utils.weight_norm has them and "
            "torch.nn.utils.parametrizations.weight_norm has not"
        ) from None
    copied.zero_grad()
    return copied


def _copy_beside(like: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A copy that may be written to, on the device of `like` and, if it is floating, in its dtype."""
    return x.to(like.device, like.dtype if x.is_floating_point() else x.dtype, copy=True)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """What torch draws is as after `torch.manual_seed(seed)`, and the caller's generators stay as they were."""
    gpu = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpu):
        torch.default_generator.manual_seed(seed)
        for each in gpu:
            torch.cuda.default_generators[each.index].manual_seed(seed)
        yield
