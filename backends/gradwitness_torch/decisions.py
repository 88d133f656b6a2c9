"""What ops decide: a comparison, a largest element, a whole number. Perturbed runs take over what the loss decides
without errors, where an error that was put on an operand would overturn it and rounding would not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch._ops import OpOverload

__all__ = ["decided_as", "decides", "decides_in", "decision"]

Kept = tuple[Any, torch.Tensor | None]  # an outcome, and where it stands: None for everywhere
EQUALITIES = frozenset(  # which hold of results that are computed alike, and of few others
    {"all", "any", "count_nonzero", "eq", "equal", "isnan", "logical_and", "logical_not", "logical_or", "logical_xor"}
    | {"ne", "nonzero"}
)
ORDERS = frozenset({"ge", "gt", "le", "lt"})
CASTS = frozenset({"_to_copy", "copy"})
STEPS = frozenset({"ceil", "floor", "round", "sgn", "sign", "trunc"})  # in floats
EXTREMES: dict[str, Callable[..., torch.Tensor]] = {
    "argmax": torch.amax,
    "argmin": torch.amin,
    "max.dim": torch.amax,
    "min.dim": torch.amin,
}
ALONG = frozenset(  # a dimension: they give values and their places
    {"cummax", "cummin", "kthvalue", "max.dim", "median.dim", "min.dim", "mode", "nanmedian.dim", "sort", "topk"}
)
POOLS = {  # the same, by their number of dimensions
    "adaptive_max_pool2d": 2,
    "adaptive_max_pool3d": 3,
    "max_pool2d_with_indices": 2,
    "max_pool3d_with_indices": 3,
}


def decides_in(op: OpOverload) -> type | None:
    """In which of its results such an op may decide: floats, or places beside values; None for others."""
    if _name(op) in STEPS:
        return float
    return tuple if not op._schema.is_mutable and (_in(op, ALONG) or _name(op) in POOLS) else None


def decides(among: type | None, args: Any, kwargs: Any, result: Any) -> bool:
    """Whether this call makes of float64 what rounding errors do not move but overturn. among: of its op's results, as
    `decides_in` says."""
    if isinstance(result, torch.Tensor):
        if result.is_floating_point():
            return among is float
    elif isinstance(result, tuple):
        return among is tuple
    elif not isinstance(result, bool):
        return False
    return any(isinstance(x, torch.Tensor) and x.dtype is torch.float64 for x in (*args, *kwargs.values()))


def decision(op: OpOverload, args: Any, kwargs: Any, result: Any, *, everything: bool) -> Kept | None:
    """What to keep of a call without rounding errors. everything: all that it decided; else what is decided by
    equality, such as an order where both are equal. None: nothing."""
    outcome = result[1] if isinstance(result, tuple) else result
    if isinstance(outcome, torch.Tensor):
        outcome = outcome.clone()
    where = everything or _undecided(op, args, kwargs, result)
    if isinstance(where, torch.Tensor):
        return (outcome, where) if where.any() else None
    return (outcome, None) if where else None


def decided_as(kept: Kept, op: OpOverload, args: Any, kwargs: Any, result: Any) -> Any:
    """The result of a call with the outcome that was kept of another."""
    outcome, where = kept
    if not isinstance(outcome, torch.Tensor):
        return outcome
    if isinstance(result, tuple):
        places = outcome.clone() if where is None else torch.where(where, outcome, result[1])
        return _values_at(op, args, kwargs, places), places
    if where is not None:
        outcome = torch.where(where, outcome, result)
    return result.copy_(outcome) if op._schema.is_mutable else outcome.clone()


def _undecided(op: OpOverload, args: Any, kwargs: Any, result: Any) -> torch.Tensor | bool:
    """Where equality decides: a tensor like the outcome, or all of it or nothing."""
    name = _name(op)
    if name in EQUALITIES:
        return True
    if name in ORDERS:
        return torch.as_tensor(args[0] == args[1])
    if name in CASTS:
        x = args[0] if name == "_to_copy" else args[1]
        return True if result.dtype is torch.bool else torch.as_tensor(x == x.round()).expand(result.shape)
    if name in STEPS:
        return args[0] * 2 == (args[0] * 2).round() if not op._schema.is_mutable else False
    if _in(op, EXTREMES):
        return _tied(op, args, kwargs, result)
    return _tied_in_windows(op, args, kwargs, result) if _name(op) in POOLS else False


def _tied(op: OpOverload, args: Any, kwargs: Any, result: Any) -> torch.Tensor:
    x, dim = args[0], _argument(op, "dim", args, kwargs)
    if dim is None:
        x, dim = x.reshape(-1), 0
    largest: torch.Tensor = (EXTREMES.get(_name(op)) or EXTREMES[_full_name(op)])(x, dim, keepdim=True)
    tied: torch.Tensor = (x == largest).sum(dim) > 1
    return tied.reshape((result[1] if isinstance(result, tuple) else result).shape)


def _tied_in_windows(op: OpOverload, args: Any, kwargs: Any, result: Any) -> torch.Tensor:
    """Where what is largest but for the places chosen is as large."""
    values, places = result
    x, inner = args[0], POOLS[_name(op)]
    others = x.flatten(-inner).scatter(-1, places.flatten(-inner), -torch.inf).reshape(x.shape)
    tied: torch.Tensor = op(others, *args[1:], **kwargs)[0] == values
    return tied


def _values_at(op: OpOverload, args: Any, kwargs: Any, places: torch.Tensor) -> torch.Tensor:
    x: torch.Tensor = args[0]
    if inner := POOLS.get(_name(op)):
        return x.flatten(-inner).gather(-1, places.flatten(-inner)).reshape(places.shape)
    dim = _argument(op, "dim", args, kwargs)
    if x.ndim == 0:
        return x.clone()
    if places.ndim < x.ndim:
        return x.gather(dim, places.unsqueeze(dim)).squeeze(dim)
    return x.gather(dim, places)


def _argument(op: OpOverload, name: str, args: Any, kwargs: Any) -> Any:
    place, argument = next((i, a) for i, a in enumerate(op._schema.arguments) if a.name == name)
    return args[place] if place < len(args) else kwargs.get(name, argument.default_value)


def _in(op: OpOverload, names: Any) -> bool:
    return _name(op) in names or _full_name(op) in names


@cache
def _name(op: OpOverload) -> str:
    return op._opname.removesuffix("_") if op._schema.is_mutable else op._opname


@cache
def _full_name(op: OpOverload) -> str:
    return f"{_name(op)}.{op._overloadname}"
