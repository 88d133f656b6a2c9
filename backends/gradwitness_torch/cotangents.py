"""Cotangents as they come: those of a user's own rules laid out in each of the ways in which torch may lay them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from gradwitness.errors import UnsupportedError
from gradwitness_torch.intercepting import name_of, replacing_backwards, replacing_saved

__all__ = ["strided_cotangents"]

Tensors = Sequence[Any]


@contextmanager
def strided_cotangents() -> Iterator[list[str]]:
    """Every backward of a user's autograd.Function that runs inside is called once for each part of its cotangents, and
    what it returns is added up: it is linear in them. Each part lies in memory in a way of its own (`_parts`). Gives
    the names of the rules that got them.

    A backward that reads its cotangent as if it were contiguous finds other numbers there.
    """
    seen: list[str] = []
    read: dict[int, list[_Read]] = {}
    relaying = partial(_relaying, seen=seen, read=read)
    with replacing_saved(partial(_remembering, read=read)), replacing_backwards(relaying):
        yield seen


class _Read:
    """What a node saved, unpacked once for all parts: a checkpoint refuses the second time."""

    def __init__(self, saved: Tensors) -> None:
        self.saved = saved
        self._versions = self._now

    @property
    def _now(self) -> list[int]:
        return [x._version for x in self.saved if x is not None]

    @property
    def is_spent(self) -> bool:
        """Whether it was written to."""
        return self._now != self._versions


def _remembering(plain: Callable[..., Any], read: dict[int, list[_Read]]) -> Callable[..., Any]:
    def remembered(self: Any) -> Any:
        if id(self) not in read:
            return plain(self)
        if not read[id(self)]:
            read[id(self)].append(_Read(plain(self)))
        return read[id(self)][0].saved

    return remembered


def _relaying(plain: Callable[..., Any], seen: list[str], read: dict[int, list[_Read]]) -> Callable[..., Any]:
    def relayed(self: Any, *cotangents: Any) -> Any:
        if (name := name_of(self._forward_cls)) is None:
            return plain(self, *cotangents)
        seen.append(name)
        state, total = dict(vars(self)), None
        read[id(self)] = []
        try:
            for part in zip(*map(_parts, cotangents), strict=True):
                if any(known.is_spent for known in read[id(self)]):
                    raise UnsupportedError(f"the backward of {name} writes to what it saved, so it can run only once")
                vars(self).clear()
                vars(self).update(state)  # with what it lets go of once it has used it
                total = _added(total, plain(self, *part))
        finally:
            del read[id(self)]
        return total

    return relayed


def _added(total: Any, found: Any) -> tuple[Any, ...]:
    given = found if isinstance(found, tuple) else (found,)
    if total is None:
        return given
    return tuple(b if a is None else a if b is None else a + b for a, b in zip(total, given, strict=True))


# How a cotangent may lie in memory


def _parts(g: Any) -> list[Any]:
    """Parts that add up to a cotangent: one number expanded along all axes, as from a sum; one row along the first, as
    from a sum over a batch; of the rest, each element in one of LAYOUTS, or in an array that is given twice, by halves.

    The first two hold the smallest numbers there are, so that nothing of the rest is lost to rounding.
    """
    if not isinstance(g, torch.Tensor) or not _can_be_laid_out(g):
        return [g, *[_nothing(g)] * (len(LAYOUTS) + 3)]
    number = _smallest(g.reshape(-1))[0]
    row = _smallest(g - number) if g.ndim > 1 else torch.zeros_like(number)
    rest = g - number - row
    dealt = torch.arange(g.numel(), device=g.device).reshape(g.shape) % (len(LAYOUTS) + 1)
    twice = torch.where(dealt == len(LAYOUTS), rest / 2, 0)
    laid_out = [layout(torch.where(dealt == i, rest, 0)) for i, layout in enumerate(LAYOUTS)]
    return [_expanded(number, g, g.ndim), _expanded(row, g, min(g.ndim, 1)), *laid_out, twice, twice]


def _can_be_laid_out(g: torch.Tensor) -> bool:
    is_plain = g.layout is torch.strided and not torch._C._functorch.is_functorch_wrapped_tensor(g)
    return is_plain and g.is_floating_point() and g.numel() > 0


def _nothing(g: Any) -> Any:
    return torch.zeros_like(g) if isinstance(g, torch.Tensor) else g


def _smallest(g: torch.Tensor) -> torch.Tensor:
    """By magnitude, along the first axis."""
    return g.gather(0, g.abs().argmin(dim=0, keepdim=True))


def _expanded(x: torch.Tensor, like: torch.Tensor, axes: int) -> torch.Tensor:
    """Along so many axes with a stride of 0, in memory that goes on with other numbers."""
    memory = torch.cat([x.reshape(-1), (like + 1).reshape(-1)])
    return memory.as_strided(like.shape, [0] * axes + list(torch.empty(like.shape[axes:]).stride()))


def _transposed(x: torch.Tensor) -> torch.Tensor:
    """With the last two axes swapped in memory."""
    return x.mT.contiguous().mT if x.ndim > 1 else x


def _narrowed(x: torch.Tensor) -> torch.Tensor:
    """Part of larger rows, and not from their first element on."""
    if not x.ndim:
        return torch.stack([x + 1, x])[1]
    return torch.cat([x[..., :1] + 1, x, x[..., -1:] + 1], dim=-1)[..., 1:-1]


def _apart(x: torch.Tensor) -> torch.Tensor:
    """With a gap after each element."""
    return torch.stack([x, x + 1], dim=-1)[..., 0]


LAYOUTS = (_transposed, _narrowed, _apart)
