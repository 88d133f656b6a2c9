"""Gradients that a backward leaves in `.grad`: all of `loss.backward()`, and those of a rule that calls it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from gradwitness_torch.closed_over import others_in

__all__ = ["accumulated", "differentiated", "frozen_checkpoints", "is_refused"]

Leaves = Mapping[str, torch.Tensor]
Gradients = dict[str, torch.Tensor | None]
REFUSED = "torch.utils.checkpoint is incompatible with .grad()"  # by a reentrant checkpoint
FROZEN = "None of the inputs have requires_grad=True"  # what torch warns of such a checkpoint


def accumulated(loss: torch.Tensor, leaves: Leaves) -> Gradients:
    """What `loss.backward()` leaves in `.grad` of these leaves, whose own is None before and after. Other tensors that
    autograd knows the loss to depend on keep theirs."""
    others = others_in(loss, leaves.values())
    before = [x.grad for x in others]
    _clear(*others)  # a sum would be taken in place
    try:
        loss.backward()
        return {path: x.grad for path, x in leaves.items()}
    finally:
        _clear(*leaves.values())
        for x, grad in zip(others, before, strict=True):
            x.grad = grad


def differentiated(loss: torch.Tensor, leaves: Leaves) -> tuple[Gradients, bool]:
    """The same by `torch.autograd.grad`, which touches no other tensor: what it returns, and what rules that call
    `.backward()` themselves leave in `.grad` meanwhile; whether they left anything. Raises RuntimeError where
    `is_refused`."""
    _clear(*leaves.values())
    try:
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        left = {path: x.grad for path, x in leaves.items()}
        gradients = {path: _sum(g, left[path]) for path, g in zip(leaves, found, strict=True)}
        return gradients, any(x is not None for x in left.values())
    finally:
        _clear(*leaves.values())


def is_refused(error: Exception) -> bool:
    """Whether this is said by a reentrant checkpoint, which takes `loss.backward()` and nothing else."""
    return REFUSED in str(error)


@contextmanager
def frozen_checkpoints() -> Iterator[list[str]]:
    """Takes down torch's warning of such a checkpoint, and lets others pass: what it says, once the block has ended."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    for warning in caught:
        if FROZEN in str(warning.message):
            found.append(FROZEN)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _clear(*tensors: torch.Tensor) -> None:
    for x in tensors:
        x.grad = None


def _sum(returned: torch.Tensor | None, left: torch.Tensor | None) -> torch.Tensor | None:
    if returned is None or left is None:
        return left if returned is None else returned
    return returned + left
