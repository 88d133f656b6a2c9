"""Which derivative rules of a user's own a gradient is made of: autograd.Functions and ops of torch.library."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from gradwitness.protocol import CustomRule
from gradwitness_torch.intercepting import name_of, replacing_apply, replacing_backwards
from gradwitness_torch.quiet import quiet
from gradwitness_torch.recomputing import recomputing
from gradwitness_torch.writing import Leaves, Writes, watching_writes

__all__ = ["Call", "Seen", "made_for", "not_repeating", "nothing_compiled", "ops_called", "rules_of", "watching"]

OWN = frozenset(  # torch's own namespaces of ops
    {"_c10d_functional", "_quantized", "aten", "c10d", "debugprims", "fsdp", "higher_order", "inductor", "mkl"}
    | {"inductor_prims", "mkldnn", "onednn", "prepacked", "prim", "prims", "profiler", "quantized", "rngprims"}
    | {"sparse", "symm_mem"}
)
LACKING = "There was no fake impl registered"  # which compiling needs, and nothing else does

DIFFERS = "its second forward differs from its first"
ADVICE = "keep no state in it, and let it preserve_rng_state"

Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


@dataclass
class Seen:
    """applied, ran: rules that went forward, and those whose backward ran, by name, in order. ops: the first call of
    each op of torch.library, by name. writes: to what is not a rule's own. recomputed: how what a checkpoint computes
    again differs from what it computed first, by the line."""

    applied: dict[str, None] = field(default_factory=dict)
    ran: dict[str, None] = field(default_factory=dict)
    ops: dict[str, Call] = field(default_factory=dict)
    writes: Writes = field(default_factory=Writes)
    recomputed: dict[str, str] = field(default_factory=dict)


@contextmanager
def watching(leaves: Leaves, *, closely: bool = False) -> Iterator[Seen]:
    """What runs inside, nothing of it compiled. closely: watch the leaves at each backward for writes."""
    seen, applied, backwards = Seen(), dict[str, None](), dict[str, None]()
    with (
        replacing_apply(partial(_noting_calls, names=applied)),
        recomputing(seen.recomputed),
        watching_writes(seen.writes, leaves, closely=closely),
        replacing_backwards(partial(_noting, names=backwards)),
        nothing_compiled(),
        ops_called(seen.ops),
    ):
        yield seen
    known = made_for(seen.ops)
    seen.ran.update(dict.fromkeys(known.get(name, name) for name in backwards))
    seen.applied.update(dict.fromkeys([*(name for name in applied if name not in known), *filter(_has_rule, seen.ops)]))


def _noting_calls(plain: Callable[..., Any], names: dict[str, None]) -> Callable[..., Any]:
    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if name := name_of(cls):
            names[name] = None
        return plain(cls, *args, **kwargs)

    return apply


def _noting(plain: Callable[..., Any], names: dict[str, None]) -> Callable[..., Any]:
    def noted(self: Any, *cotangents: Any) -> Any:
        if name := name_of(self._forward_cls):
            names[name] = None
        return plain(self, *cotangents)

    return noted


def made_for(ops: Mapping[str, Call]) -> dict[str, str]:
    """Ops by the names of the Functions that torch.library makes of what `register_autograd` was given."""
    return {
        f"GeneratedBackwardFor_{name.replace('::', '_')}_{op._overloadname}": name for name, (op, *_) in ops.items()
    }


def _has_rule(op: str) -> bool:
    """Whether an op of `torch.library.custom_op` was given a backward; of others that is not known."""
    return op in OPDEFS and OPDEFS[op]._backward_fn is not None


def nothing_compiled() -> AbstractContextManager[Any]:
    """A compiled function that is once called where it cannot be compiled would never be compiled again."""
    if "torch._dynamo" not in sys.modules:  # then nothing can have been compiled
        return nullcontext()
    found: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return found


def ops_called(ops: dict[str, Call]) -> AbstractContextManager[Any]:
    """Keeps the first call of each op that is not torch's own, by name."""
    return _Ops(ops)


class _Ops(TorchDispatchMode):
    """Keeps the arguments of the first call of each op that is not torch's own."""

    def __init__(self, ops: dict[str, Call]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ops = ops

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # see `rounding`

    supports_higher_order_operators = True  # torch.cond and the like, which are torch's own

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, torch._ops.OpOverload) and func.namespace not in OWN:
            name = f"{func.namespace}::{func._opname}"
            if name not in self._ops:
                self._ops[name] = (func, tree_map(_copy, args), tree_map(_copy, kwargs))
        return func(*args, **kwargs)


def _copy(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, torch.Tensor) else x


def rules_of(seen: Seen, *, opcheck: bool) -> list[CustomRule]:
    """The rules that were applied, and the ops of which opcheck finds something; it is asked where that is wanted."""
    checked = {op: _faults_of(op, seen) if opcheck else ({}, {}) for op in seen.ops}
    names = dict.fromkeys([*seen.ran, *seen.applied, *(op for op, found in checked.items() if any(found))])
    return [_rule(name, seen, *checked.get(name, ({}, {}))) for name in names]


def _rule(name: str, seen: Seen, faults: dict[str, str], lacking: dict[str, str]) -> CustomRule:
    others, own = seen.writes.others.get(name), seen.writes.own.get(name)
    return CustomRule(
        name,
        name in seen.ran,
        faults | ({"to leave its arguments alone": others} if others else {}),
        lacking | ({"a second backward": own} if own else {}),
    )


def not_repeating(seen: Seen) -> list[CustomRule]:
    """Checkpoints whose second forward differs from the first."""
    return [
        CustomRule(f"checkpoint at {line}", None, {"to repeat itself": f"{DIFFERS}, {how}: {ADVICE}"})
        for line, how in seen.recomputed.items()
    ]


def _faults_of(name: str, seen: Seen) -> tuple[dict[str, str], dict[str, str]]:
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
