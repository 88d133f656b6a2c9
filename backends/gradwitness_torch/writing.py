"""What a rule's backward writes to that is not its own: its cotangent, what it saved, a leaf. Bytes tell: torch does
not count what `.data` or a kernel writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from gradwitness_torch.intercepting import (
    name_of,
    node_of,
    replacing_apply,
    replacing_backwards,
    replacing_saved,
)

__all__ = ["Leaves", "Writes", "bytes_of", "watching_writes"]

Leaves = Mapping[str, torch.Tensor]
TO_COTANGENT = "its backward writes to grad_output, which others may hold too"
TO_SHARED = "its backward writes to what it saved, which is an argument or a result of its forward, and not its own"
TO_SAVED = "its backward writes to what it saved, so that it can run only once"


@dataclass
class Writes:
    """By rule, in words. others: to what others hold. leaves: the leaves among that, by path. own: to what it saved
    for itself."""

    others: dict[str, str] = field(default_factory=dict)
    own: dict[str, str] = field(default_factory=dict)
    leaves: dict[str, list[str]] = field(default_factory=dict)


@contextmanager
def watching_writes(writes: Writes, leaves: Leaves, *, closely: bool = False) -> Iterator[None]:
    """Fills `writes` with what backwards inside do. closely: look at every leaf before and after each of them, also at
    those that a rule has from elsewhere than its arguments."""
    given: dict[int, tuple[Any, frozenset[int]]] = {}  # what went in and out, by the id of the node, which is kept
    reading: dict[int, _Kept] = {}
    looking = partial(_looking, writes=writes, leaves=leaves, closely=closely, given=given, reading=reading)
    with (
        replacing_apply(partial(_remembering, given=given)),
        replacing_saved(partial(_reading, reading=reading)),
        replacing_backwards(looking),
    ):
        yield


class _Kept:
    """Tensors, with their bytes as they were."""

    def __init__(self, tensors: Any) -> None:
        self._before: list[tuple[torch.Tensor, bytes]] = []
        self.add(tensors)

    def add(self, tensors: Any) -> None:
        self._before += [(x, bytes_of(x)) for x in _with_memory(tensors)]

    @property
    def written(self) -> list[torch.Tensor]:
        return [x for x, before in self._before if before != bytes_of(x)]


def _remembering(plain: Callable[..., Any], given: dict[int, tuple[Any, frozenset[int]]]) -> Callable[..., Any]:
    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        result = plain(cls, *args, **kwargs)
        if name_of(cls) and (node := node_of(result)) is not None:
            given[id(node)] = node, frozenset(map(_memory, _with_memory((args, kwargs, result))))
        return result

    return apply


def _reading(plain: Callable[..., Any], reading: dict[int, _Kept]) -> Callable[..., Any]:
    def read(self: Any) -> Any:
        saved = plain(self)
        if id(self) in reading:
            reading[id(self)].add(saved)
        return saved

    return read


def _looking(
    plain: Callable[..., Any],
    writes: Writes,
    leaves: Leaves,
    closely: bool,
    given: dict[int, tuple[Any, frozenset[int]]],
    reading: dict[int, _Kept],
) -> Callable[..., Any]:
    def looked(self: Any, *cotangents: Any) -> Any:
        if (name := name_of(self._forward_cls)) is None:
            return plain(self, *cotangents)
        arrived, every = _Kept(cotangents), _Kept(list(leaves.values()) if closely else ())
        saved = reading[id(self)] = _Kept(list(vars(self).values()))
        try:
            result = plain(self, *cotangents)
        finally:
            reading.pop(id(self), None)
        written = {_memory(x) for x in [*saved.written, *every.written]}
        if paths := [path for path, x in leaves.items() if _memory(x) in written]:
            writes.leaves.setdefault(name, paths)
            writes.others.setdefault(name, f"its backward writes to {', '.join(paths)}, which belongs to the caller")
        elif arrived.written:
            writes.others.setdefault(name, TO_COTANGENT)
        elif written & given.get(id(self), (None, frozenset()))[1]:
            writes.others.setdefault(name, TO_SHARED)
        elif written:
            writes.own.setdefault(name, TO_SAVED)
        return result

    return looked


def _with_memory(tensors: Any) -> Iterable[torch.Tensor]:
    return [x for x in tree_leaves(tensors) if isinstance(x, torch.Tensor) and _has_bytes(x)]


def _memory(x: torch.Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _has_bytes(x: torch.Tensor) -> bool:
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(x)
    return x.layout is torch.strided and x.device.type != "meta" and not wrapped


def bytes_of(x: torch.Tensor) -> bytes:
    """What a tensor holds."""
    return x.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if x.ndim else repr(x.item()).encode()
