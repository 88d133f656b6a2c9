"""Checkpoints whose second forward differs from the first. torch compares shapes and dtypes alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import checkpoint as torchs

from gradwitness_torch.capture import OURS
from gradwitness_torch.intercepting import ONE_THREAD, replacing_apply

__all__ = ["recomputing"]

ROUNDINGS = 256  # by which sums in no fixed order may differ, of the largest element
EXTRACTORS: dict[str, Any] = getattr(torchs, "_allowed_determinism_checks_to_fns", {})  # of what is compared


@contextmanager
def recomputing(found: dict[str, str]) -> Iterator[None]:
    """Fills `found` with how what a checkpoint computes again differs, by the line at which it does: what it saves, of
    checkpoints that save; the results of reentrant ones."""
    with ONE_THREAD, replacing_apply(partial(_twice, found=found)):
        before = dict(EXTRACTORS)
        try:
            EXTRACTORS.update({name: partial(_Saved, plain, found) for name, plain in before.items()})
            yield
        finally:
            EXTRACTORS.update(before)


class _Saved:
    """What torch compares of a tensor that is saved, going forward and again, with the tensor's values beside it.

    A tensor that is saved both times is no result: the statistics that batch norm keeps change from run to run, and
    nothing is computed from them.
    """

    def __init__(self, plain: Callable[[torch.Tensor], Any], found: dict[str, str], x: torch.Tensor) -> None:
        self.known, self._found, self._x, self._line = plain(x), found, x.detach().clone(), _line()
        self._memory = StorageWeakRef(x.untyped_storage())

    def __eq__(self, again: object) -> bool:
        assert isinstance(again, _Saved)
        is_result = self._memory != again._memory
        if is_result and self.known == again.known and (how := _apart(self._x, again._x)):
            self._found.setdefault(self._line, how)
        return bool(self.known == again.known)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.known)


def _twice(plain: Callable[..., Any], found: dict[str, str]) -> Callable[..., Any]:
    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if cls is torchs.CheckpointFunction:
            args = (_Again(args[0], found, _line()), *args[1:])
        return plain(cls, *args, **kwargs)

    return apply


class _Again:
    """What a reentrant checkpoint runs: the results of its first run are held against those of its second."""

    def __init__(self, function: Callable[..., Any], found: dict[str, str], line: str) -> None:
        self._function, self._found, self._line = function, found, line
        self._first: list[torch.Tensor] | None = None

    def __call__(self, *args: Any) -> Any:
        result = self._function(*args)
        given = [x for x in (result if isinstance(result, tuple) else (result,)) if isinstance(x, torch.Tensor)]
        if self._first is None:
            self._first = [x.detach().clone() for x in given]
        elif how := next(filter(None, map(_apart, self._first, given)), ""):
            self._found.setdefault(self._line, how)
        return result


def _apart(first: torch.Tensor, second: torch.Tensor) -> str:
    """How two tensors differ, in words; empty where they do not, but for rounding."""
    if first.shape != second.shape or not first.numel():
        return ""
    if not first.is_floating_point():
        part = float((first != second).float().mean())
        return f"{part:.2g} of its elements are others" if part else ""
    a, b = first.double(), second.detach().double()
    largest = a.abs().max()
    if not (a - b).abs().max() > ROUNDINGS * torch.finfo(first.dtype).eps / 2 * largest:
        return ""
    return f"by {float((a - b).norm() / max(a.norm(), b.norm())):.2g} of its norm"


def _line() -> str:
    """The line of the user's that is running."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
