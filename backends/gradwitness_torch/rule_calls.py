"""The calls of users' own rules on the way to a gradient: what went in, what arrived, what came of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch._library.custom_ops import OPDEFS

from gradwitness.protocol import MOST_CALLS, RuleCall
from gradwitness_torch.custom import Call, made_for, nothing_compiled, ops_called
from gradwitness_torch.host import host_array
from gradwitness_torch.intercepting import name_of, node_of, replacing_apply, replacing_backwards

__all__ = ["calls_of_rules"]


@dataclass(frozen=True)
class _Applied:
    """A call of `apply`. node: of its result; kept, as another may get its id."""

    node: Any
    function: Any
    args: tuple[Any, ...]


@contextmanager
def calls_of_rules() -> Iterator[list[RuleCall]]:
    """Gives the first calls of each autograd.Function, and of each op of torch.library with a backward, whose forward
    and backward run inside, nothing of it compiled."""
    calls: dict[int, _Applied] = {}  # by the id of the node
    ops: dict[str, Call] = {}
    found: dict[str, list[RuleCall]] = {}
    results: list[RuleCall] = []
    noting = partial(_noting, calls=calls, ops=ops, found=found)
    with (
        replacing_apply(partial(_keeping, calls=calls)),
        replacing_backwards(noting),
        nothing_compiled(),
        ops_called(ops),
    ):
        yield results
    results.extend(call for each in found.values() for call in each)


def _keeping(plain: Callable[..., Any], calls: dict[int, _Applied]) -> Callable[..., Any]:
    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if not name_of(cls) or kwargs or cls.__module__.startswith("torch._functorch"):  # which cannot be run alone
            return plain(cls, *args, **kwargs)
        kept = tuple(map(_kept, args))  # before, as it may write to them
        result = plain(cls, *args, **kwargs)
        if (node := node_of(result)) is not None:
            calls[id(node)] = _Applied(node, cls, kept)
        return result

    return apply


def _noting(
    plain: Callable[..., Any],
    calls: Mapping[int, _Applied],
    ops: Mapping[str, Call],
    found: dict[str, list[RuleCall]],
) -> Callable[..., Any]:
    def noted(self: Any, *cotangents: Any) -> Any:
        name, applied = name_of(self._forward_cls), calls.get(id(self))
        if name is None or applied is None or any(g is None for g in cotangents):
            return plain(self, *cotangents)
        name = made_for(ops).get(name, name)
        if len(found.setdefault(name, [])) == MOST_CALLS:
            return plain(self, *cotangents)
        arrived = list(map(_kept, cotangents))
        result = plain(self, *cotangents)
        forward, args = _forward(applied, ops.get(name))
        given = result if isinstance(result, tuple) else (result,)
        backward = applied.function.backward if name not in OPDEFS else OPDEFS[name]._backward_fn
        found[name].append(replace(_call(name, forward, args, arrived, given), place=_place(backward)))
        return result

    return noted


def _forward(applied: _Applied, op: Call | None) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """What runs the rule, and its arguments. torch.library's own Function of an op takes its keywords too."""
    if op is None:
        return applied.function.apply, applied.args
    *args, own = applied.args
    return partial(op[0], **own.keyword_only_args), tuple(args)


def _call(
    name: str,
    forward: Callable[..., Any],
    args: Sequence[Any],
    cotangents: Sequence[Any],
    gradients: Sequence[Any],
) -> RuleCall:
    arrays = {f"input {i}": x for i, x in enumerate(args) if isinstance(x, torch.Tensor)}
    differentiated = {path: x for path, x in arrays.items() if x.requires_grad and x.is_floating_point()}
    by_path = {f"input {i}": g for i, g in enumerate(gradients)}

    def loss(params: Any, batch: Any) -> Any:
        given = {**params, **batch}
        result = forward(*(given.get(f"input {i}", x) for i, x in enumerate(args)))
        return list(result) if isinstance(result, tuple) else result

    weights = [host_array(g) for g in cotangents]
    return RuleCall(
        name,
        "torch",
        loss,
        {path: host_array(x) for path, x in differentiated.items()},
        {path: host_array(x) for path, x in arrays.items() if path not in differentiated},
        weights if len(weights) > 1 else weights[0],
        {path: None if by_path.get(path) is None else host_array(by_path[path]) for path in differentiated},
        _narrowest(differentiated.values()),
    )


def _place(backward: Any) -> str:
    """Where a rule's backward begins, as "file:line"; empty where that is no function of Python."""
    code = getattr(inspect.unwrap(backward), "__code__", None) if callable(backward) else None
    return "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def _narrowest(tensors: Any) -> str:
    dtypes = sorted((x.dtype for x in tensors), key=lambda dtype: torch.finfo(dtype).eps)
    return str(dtypes[-1]).removeprefix("torch.") if dtypes else "float64"


def _kept(x: Any) -> Any:
    """A copy that still says whether it requires a gradient."""
    return x.detach().clone().requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) else x
