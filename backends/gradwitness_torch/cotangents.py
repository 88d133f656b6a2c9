"""Cotangents as they come: those of a user's own rules laid out as torch may lay them out, and not contiguous."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from gradwitness_torch.custom import name_of, replacing_backwards

__all__ = ["strided_cotangents"]


@contextmanager
def strided_cotangents() -> Iterator[list[str]]:
    """Every backward of a user's autograd.Function that runs inside gets cotangents with gaps between their elements,
    of which the last two axes are swapped in memory; all from one element, with strides of 0, where all are equal, as
    from a sum. Gives the names of the rules that got them.

    A backward that reads its cotangent as if it were contiguous finds other numbers there.
    """
    seen: list[str] = []
    with replacing_backwards(partial(_relaying, seen=seen)):
        yield seen


def _relaying(plain: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    def relayed(self: Any, *cotangents: Any) -> Any:
        if (name := name_of(self._forward_cls)) is None:
            return plain(self, *cotangents)
        seen.append(name)
        return plain(self, *map(_laid_out, cotangents))

    return relayed


def _laid_out(g: Any) -> Any:
    if not isinstance(g, torch.Tensor) or g.layout is not torch.strided or g.ndim == 0 or g.numel() < 2:
        return g
    if torch.equal(g, g.reshape(-1)[0].expand(g.shape)):
        return g.reshape(-1)[0].clone().expand(g.shape)
    turned = g.mT if g.ndim > 1 else g
    apart = torch.stack([turned, turned + 1], dim=-1)[..., 0]
    return apart.mT if g.ndim > 1 else apart
