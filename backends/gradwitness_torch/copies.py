"""A copy of a module for each call: what its backward runs again, however late, still has the tensors of that call."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["Copies"]

Tensors = Mapping[str, torch.Tensor]
PARTS = ("_parameters", "_buffers", "_modules")  # of a module, in torch's own registers


class Copies:
    """Copies of a module that share with it everything but its parameters, its buffers, its submodules and whatever
    else refers to these: a bound method, a list of layers, the weights that a recurrent layer keeps side by side.

    The module itself is kept as it is, but for its state: an attribute that a call gives another value has it in the
    next call as well.
    """

    def __init__(self, module: nn.Module) -> None:
        self._modules = list(module.modules())
        every = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
        self._names = {id(x): name for name, x in reversed(every)}  # of what is shared, the first
        parts = {*map(id, self._modules), *self._names}
        self._linked = [[k for k, x in _attributes(m) if _refers(x, parts)] for m in self._modules]

    def __reduce__(self) -> tuple[type[Copies], tuple[nn.Module]]:
        """Made anew in another process, where objects have other ids."""
        return Copies, (self._modules[0],)

    @contextmanager
    def one(self, tensors: Tensors) -> Iterator[Any]:
        """A copy whose parameters and buffers are these, by their first names, for as long as it forwards."""
        new = [object.__new__(type(old)) for old in self._modules]
        memo: dict[int, Any] = {id(old): copied for old, copied in zip(self._modules, new, strict=True)}
        memo |= {key: tensors[name] for key, name in self._names.items()}
        for old, copied, linked in zip(self._modules, new, self._linked, strict=True):
            state = dict(old.__dict__)
            state |= {part: {name: memo.get(id(x), x) for name, x in state[part].items()} for part in PARTS}
            state |= {name: copy.deepcopy(state[name], memo) for name in linked}
            copied.__dict__.update(state)
        yield new[0]
        self._remember(new)

    def _remember(self, new: Iterable[nn.Module]) -> None:
        """Keep the state of a call, but for what belongs to its own copy."""
        parts = {*map(id, new)}
        for old, copied, linked in zip(self._modules, new, self._linked, strict=True):
            for name, value in _attributes(copied):
                changed = value is not old.__dict__.get(name, copied)
                if changed and name not in linked and not _refers(value, parts):
                    old.__dict__[name] = value


def _attributes(module: nn.Module) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in module.__dict__.items() if name not in PARTS]


def _refers(value: Any, parts: Collection[int]) -> bool:
    """Whether a copy of the value would be one of these objects, by id, or hold one."""
    memo = _Noting(parts)
    try:
        copy.deepcopy(value, memo)
    except Exception:  # noqa: BLE001  # what cannot be copied, such as a tensor with a history
        return memo.met
    return memo.met


class _Noting(dict[int, Any]):
    """The memo of a `copy.deepcopy` that notes whether it meets one of these objects, and copies none of them."""

    met = False

    def __init__(self, parts: Collection[int]) -> None:
        super().__init__()
        self._parts = parts

    def get(self, key: int, default: Any = None) -> Any:
        if key in self._parts:
            self.met = True
            return None
        return super().get(key, default)
