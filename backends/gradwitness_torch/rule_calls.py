"""The calls of users' own autograd.Functions on the way to a gradient: what went in, what arrived, what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.autograd import Function

from gradwitness.dtypes import Array
from gradwitness.protocol import RuleCall
from gradwitness_torch.custom import name_of, replacing_backwards

__all__ = ["calls_of_rules"]

Call = tuple[type, tuple[Any, ...]]  # a Function and its arguments


@contextmanager
def calls_of_rules() -> Iterator[list[RuleCall]]:
    """Gives the first call of each Function, by name, whose forward and backward run inside, eagerly."""
    plain_apply = Function.__dict__["apply"]
    calls: dict[int, tuple[Any, Call]] = {}  # by the node of the result; the node too, as another may get its id
    found: dict[str, RuleCall] = {}

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        kept = tuple(map(_kept, args)) if name_of(cls) else ()  # before, as it may write to them
        result = plain_apply.__func__(cls, *args, **kwargs)
        first = result[0] if isinstance(result, tuple) else result
        if name_of(cls) and not kwargs and getattr(first, "grad_fn", None) is not None:
            calls[id(first.grad_fn)] = first.grad_fn, (cls, kept)
        return result

    try:
        Function.apply = classmethod(apply)  # type: ignore[method-assign, assignment]
        results: list[RuleCall] = []
        with replacing_backwards(partial(_noting, calls=calls, found=found)):
            yield results
        results.extend(found.values())
    finally:
        Function.apply = plain_apply  # type: ignore[method-assign]


def _noting(
    plain: Callable[..., Any], calls: dict[int, tuple[Any, Call]], found: dict[str, RuleCall]
) -> Callable[..., Any]:
    def noted(self: Any, *cotangents: Any) -> Any:
        name = name_of(self._forward_cls)
        known = calls.get(id(self))
        if name is None or known is None or name in found or any(g is None for g in cotangents):
            return plain(self, *cotangents)
        arrived = list(map(_kept, cotangents))
        result = plain(self, *cotangents)
        given = result if isinstance(result, tuple) else (result,)
        found[name] = _call(name, *known[1], arrived, given)
        return result

    return noted


def _call(
    name: str, function: Any, args: Sequence[Any], cotangents: Sequence[Any], gradients: Sequence[Any]
) -> RuleCall:
    arrays = {f"input {i}": x for i, x in enumerate(args) if isinstance(x, torch.Tensor)}
    differentiated = {path for path, x in arrays.items() if x.requires_grad and x.is_floating_point()}
    by_path = {f"input {i}": g for i, g in enumerate(gradients)}

    def loss(params: Any, batch: Any) -> Any:
        given = {**params, **batch}
        result = function.apply(*(given.get(f"input {i}", x) for i, x in enumerate(args)))
        return list(result) if isinstance(result, tuple) else result

    weights = [_host(g) for g in cotangents]
    return RuleCall(
        name,
        loss,
        {path: _host(x) for path, x in arrays.items() if path in differentiated},
        {path: _host(x) for path, x in arrays.items() if path not in differentiated},
        weights if len(weights) > 1 else weights[0],
        {path: None if by_path.get(path) is None else _host(by_path[path]) for path in differentiated},
    )


def _kept(x: Any) -> Any:
    """A copy that still says whether it requires a gradient."""
    return x.detach().clone().requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) else x


def _host(x: torch.Tensor) -> Array:
    host = x.detach().cpu()
    return np.array((host.double() if host.is_floating_point() else host).numpy())
