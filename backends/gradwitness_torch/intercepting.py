"""What autograd.Functions do, seen from outside: their call, the backward that the engine runs, what they saved.

torch finds these by attributes of two classes, which are replaced here. Every thread sees a class: one thread at a time
replaces them, and others wait. Functions that another thread runs meanwhile are seen too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch
from torch.autograd.function import BackwardCFunction, _SingleLevelFunction

__all__ = ["name_of", "node_of", "replacing_apply", "replacing_backwards", "replacing_saved"]

ONE_THREAD = RLock()

Replaced = Callable[[Callable[..., Any]], Callable[..., Any]]  # what is called instead of a function


@contextmanager
def replacing_backwards(replaced: Replaced) -> Iterator[None]:
    """Inside, the engine calls `replaced` of what it would call for the backward of an autograd.Function: of a node and
    its cotangents. It finds that by an attribute of the Function's class: a hook for each node would see no path of
    torch.func."""
    with ONE_THREAD, _having(BackwardCFunction, _calls_of(replaced)):
        yield


def _calls_of(replaced: Replaced) -> dict[str, Any]:
    calls = {"apply": replaced(BackwardCFunction.apply)}
    if boxed := getattr(BackwardCFunction, "apply_boxed", None):  # of a list, which the backward may empty
        unboxed = replaced(lambda self, *cotangents: boxed(self, list(cotangents)))
        calls["apply_boxed"] = lambda self, cotangents: unboxed(self, *cotangents)
    return calls


@contextmanager
def replacing_apply(replaced: Replaced) -> Iterator[None]:
    """Inside, `replaced` of what `Function.apply` comes to is called in its place, with the Function's class first: so
    it is for who holds `MyFunction.apply` from before, too."""
    with ONE_THREAD, _having(_SingleLevelFunction, {"apply": classmethod(replaced(_applying()))}):
        yield


def _applying() -> Callable[..., Any]:
    """What `Function.apply` comes to now."""
    plain = vars(_SingleLevelFunction).get("apply", vars(torch._C._FunctionBase)["apply"])
    return lambda function, *args, **kwargs: plain.__get__(None, function)(*args, **kwargs)


@contextmanager
def replacing_saved(replaced: Replaced) -> Iterator[None]:
    """Inside, `ctx.saved_tensors` is what `replaced` of it gives for a node."""
    with ONE_THREAD, _having(BackwardCFunction, {"saved_tensors": property(replaced(_saved().__get__))}):
        yield


def _saved() -> Any:
    return BackwardCFunction.saved_tensors


@contextmanager
def _having(owner: type, attributes: dict[str, Any]) -> Iterator[None]:
    before = {name: vars(owner)[name] for name in attributes if name in vars(owner)}
    try:
        for name, attribute in attributes.items():
            setattr(owner, name, attribute)
        yield
    finally:
        for name in attributes:
            delattr(owner, name) if name not in before else setattr(owner, name, before[name])


def name_of(function: type) -> str | None:
    """The user's name of a Function; None for torch's own. torch.func and torch.library make Functions of their own
    around a user's."""
    name, place = function.__name__, function.__module__
    if place.startswith("torch._functorch"):
        return name.removeprefix("Vmapped").removesuffix("Generated").removeprefix("Vmapped")
    return None if place.startswith("torch.") and not name.startswith("GeneratedBackwardFor_") else name


def node_of(result: Any) -> Any:
    """The node of the graph that `apply` made, by what it returned; None where it made none."""
    for y in result if isinstance(result, tuple) else (result,):
        if isinstance(node := getattr(y, "grad_fn", None), BackwardCFunction):
            return node
    return None
