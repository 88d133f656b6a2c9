"""Which derivative rules of a user's own a gradient is made of: autograd.Functions and ops of torch.library."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from gradwitness_torch.quiet import quiet

__all__ = ["Seen", "faults_of", "name_of", "replacing_backwards", "watching"]

OWN = frozenset(  # torch's own namespaces of ops
    {"_c10d_functional", "_quantized", "aten", "c10d", "debugprims", "fsdp", "higher_order", "inductor", "mkl"}
    | {"inductor_prims", "mkldnn", "onednn", "prepacked", "prim", "prims", "profiler", "quantized", "rngprims"}
    | {"sparse", "symm_mem"}
)
CALLED = ("apply", "apply_boxed")  # by which the engine calls a Function's backward, of boxed cotangents or not
LACKING = "There was no fake impl registered"  # which compiling needs, and nothing else does

Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


@dataclass
class Seen:
    """ran: rules whose backward ran, by name, in order. ops: the first call of each op of torch.library, by name.
    changed: what a rule's backward wrote to that is not its own, by the rule."""

    ran: dict[str, None] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)
    ops: dict[str, Call] = field(default_factory=dict)


@contextmanager
def replacing_backwards(replaced: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Inside, the engine calls `replaced` of what it would call for the backward of an autograd.Function. It finds that
    by an attribute of the Function's class: a hook for each node would see no path of torch.func."""
    called = {name: getattr(BackwardCFunction, name) for name in CALLED if hasattr(BackwardCFunction, name)}
    try:
        for name, plain in called.items():
            setattr(BackwardCFunction, name, replaced(plain))
        yield
    finally:
        for name, plain in called.items():
            setattr(BackwardCFunction, name, plain)


@contextmanager
def watching() -> Iterator[Seen]:
    """What runs inside, nothing of it compiled."""
    seen, backwards = Seen(), dict[str, None]()
    noting = partial(_noting, backwards=backwards, changed=seen.changed)
    with replacing_backwards(noting), _nothing_compiled(), _Ops(seen.ops):
        yield seen
    made_for = {_backward_of(name, op): name for name, (op, *_) in seen.ops.items()}
    seen.ran.update(dict.fromkeys(made_for.get(name, name) for name in backwards))


def _nothing_compiled() -> AbstractContextManager[Any]:
    """A compiled function that is once called where it cannot be compiled would never be compiled again."""
    if "torch._dynamo" not in sys.modules:  # then nothing can have been compiled
        return nullcontext()
    found: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return found


def _backward_of(name: str, op: Any) -> str:
    """The name of the Function that torch.library makes of what `register_autograd` was given."""
    return f"GeneratedBackwardFor_{name.replace('::', '_')}_{op._overloadname}"


def _noting(plain: Callable[..., Any], backwards: dict[str, None], changed: dict[str, str]) -> Callable[..., Any]:
    def noted(self: Any, *cotangents: Any) -> Any:
        if (name := name_of(self._forward_cls)) is None:
            return plain(self, *cotangents)
        backwards[name] = None
        plainly = [g for g in cotangents if isinstance(g, torch.Tensor) and _has_bytes(g)]
        before = [_bytes(g) for g in plainly]
        result = plain(self, *cotangents)
        if any(bytes_ != _bytes(g) for bytes_, g in zip(before, plainly, strict=True)):
            changed.setdefault(name, "its backward writes to grad_output, which others may hold too")
        return result

    return noted


def _has_bytes(x: torch.Tensor) -> bool:
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(x)
    return x.layout is torch.strided and x.device.type != "meta" and not wrapped


def _bytes(x: torch.Tensor) -> bytes:
    return x.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if x.ndim else repr(x.item()).encode()


def name_of(function: type) -> str | None:
    """The user's name of a Function; None for torch's own. torch.func and torch.library make Functions of their own
    around a user's."""
    name, place = function.__name__, function.__module__
    if place.startswith("torch._functorch"):
        return name.removeprefix("Vmapped").removesuffix("Generated").removeprefix("Vmapped")
    return None if place.startswith("torch.") and not name.startswith("GeneratedBackwardFor_") else name


class _Ops(TorchDispatchMode):
    """Keeps the arguments of the first call of each op that is not torch's own."""

    def __init__(self, ops: dict[str, Call]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ops = ops

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # see `rounding`

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = f"{func.namespace}::{func._opname}"
        if func.namespace not in OWN and name not in self._ops:
            self._ops[name] = (func, tree_map(_copy, args), tree_map(_copy, kwargs))
        return func(*args, **kwargs)


def _copy(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, torch.Tensor) else x


def faults_of(name: str, seen: Seen) -> tuple[dict[str, str], dict[str, str]]:
    """What `torch.library.opcheck` says against an op on the arguments of its first call: (faults, what it lacks for
    compiling), by the names of the tests; of several tests that say the same, the first."""
    op, args, kwargs = seen.ops[name]
    with quiet(), torch.enable_grad():
        try:
            found = torch.library.opcheck(
                op, tree_map(_differentiable, args), tree_map(_differentiable, kwargs), raise_exception=False
            )
        except Exception as error:  # noqa: BLE001  # what it cannot try on these arguments
            return {}, {"torch.library.opcheck": f"it cannot run ({_first_line(error)})"}
    said = {
        _first_line(result): f"torch.library.opcheck's {test}"
        for test, result in reversed(found.items())
        if result != "SUCCESS"
    }
    by_test = {test: why for why, test in reversed(said.items())}
    return _chosen(by_test, lacking=False), _chosen(by_test, lacking=True)


def _chosen(by_test: Mapping[str, str], *, lacking: bool) -> dict[str, str]:
    return {test: why for test, why in by_test.items() if (LACKING in why) is lacking}


def _differentiable(x: Any) -> Any:
    return x.requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x


def _first_line(error: Any) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
