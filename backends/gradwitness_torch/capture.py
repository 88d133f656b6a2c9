"""A loss in torch, as its user wrote it, as a graph over the vocabulary.

The loss runs on real numbers, and every aten op that it calls is seen below autograd: what an autograd.Function
does going forward, and nothing of its backward. An op none of whose operands depends on a floating leaf is left alone,
and its result is a constant. Any other has a rule (`aten.RULES`), or torch takes it apart until each part
has one. Views and writes in place are resolved by the storage that tensors share.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._decomp import decomposition_table
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import gradwitness_torch
from gradwitness import ops
from gradwitness.compositions import labels, moved
from gradwitness.dtypes import Array
from gradwitness.errors import CaptureError, GradwitnessError
from gradwitness.graph import Graph, Place
from gradwitness.ops.value import FLOAT, Value
from gradwitness.recording import AT_THE_POINT, IS_DETACHED, Recorder, folders_of
from gradwitness_torch.aten import (
    APART,
    DETACHED,
    FROM_RESULTS,
    IDENTITIES,
    MOVES,
    PARTLY_DETACHED,
    RULES,
    SHAPE_ALONE,
    by_labels,
)
from gradwitness_torch.host import host_array
from gradwitness_torch.intercepting import name_of

__all__ = ["capture"]

OURS = folders_of(torch, gradwitness_torch)
WHICH = "which elements are meant"
UNDER_NO_GRAD = "computed under no_grad: no gradient passes"
PICKED = frozenset(("topk", "sort", "kthvalue", "median", "mode", "nanmedian", "cummax", "cummin"))  # with indices
PICKED_OF_BLOCKS = {  # with indices into each block of so many axes
    "adaptive_max_pool2d": 2,
    "adaptive_max_pool3d": 3,
    "fractional_max_pool2d": 2,
    "fractional_max_pool3d": 3,
}
BY_POSITION = MOVES | {"index_put", "_unsafe_index_put", "scatter_add", "index_add", "embedding", "nll_loss_forward"}
DECIDED = frozenset(  # flat wherever they have a slope
    ("bernoulli", "floor", "ceil", "round", "trunc", "sgn", "heaviside")
)
COPY = frozenset(("copy",))  # onto what is there
WHOLE = RULES, FROM_RESULTS, IDENTITIES, MOVES, PICKED, PICKED_OF_BLOCKS, DECIDED, COPY  # not to be taken apart
RULE = os.path.join("torch", "autograd", "function.py")
Tensors = dict[str, torch.Tensor]


def capture(
    loss: Callable[[Tensors], torch.Tensor],
    leaves: Tensors,
    known: Mapping[str, Array],
    wrt: Sequence[str],
    *,
    stops: bool = False,
) -> Graph:
    """The graph of `loss(leaves)`.

    leaves: on the device, by path; known: the same on the host, in float64; wrt: those that it is differentiated by.
    stops: whether no derivative goes through what is detached. Raises CaptureError, with the op and the line, for what
    has no rule.
    """
    mode = _Capture(Recorder(known, wrt), leaves, known, wrt, stops)
    with mode, torch.compiler.set_stance("force_eager"):
        found = loss(leaves)
        try:
            return mode.graph(found)
        except CaptureError:
            raise
        except GradwitnessError as error:
            raise CaptureError(str(error)) from None


@dataclass(slots=True)
class _Storage:
    """The memory that some tensors share. flat: all of it, once it was written to; version: how often it was."""

    keep: torch.Tensor
    value: Any
    flat: Any = None
    version: int = 0


@dataclass(slots=True)
class _Known:
    """What a tensor held when its storage was at this version."""

    keep: torch.Tensor
    value: Any
    version: int


class _Capture(TorchDispatchMode):
    supports_higher_order_operators = True  # such as torch.cond: they arrive here, and are refused

    def __init__(
        self, recorder: Recorder, leaves: Tensors, known: Mapping[str, Array], wrt: Sequence[str], stops: bool
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder, self.stops = recorder, stops
        self.in_rule = False  # whether a user's autograd.Function runs, whose derivative is its own affair
        self.in_torchs = False  # or one of torch's, as of a checkpoint, which runs a user's code under no_grad
        self.decided: dict[int, tuple[torch.Tensor, Place | None]] = {}  # and where: to be remarked on if used
        self.apart: list[Any] = []  # the ops that are being taken apart
        self.modules: dict[int, str] = {}  # qualified names
        self.detached: dict[int, tuple[torch.Tensor, Place | None]] = {}  # the same
        self.digits = min((torch.finfo(leaves[path].dtype).eps for path in wrt), default=0.0)
        self.storages: dict[int, _Storage] = {}
        self.known: dict[int, _Known] = {}
        self.constants: dict[tuple[int, int], tuple[torch.Tensor, Array]] = {}
        for path, tensor in leaves.items():
            if tensor.dtype.is_floating_point:
                self._learn(tensor, recorder.leaf_at(path))
            else:
                self.constants[id(tensor), tensor._version] = tensor, known[path]

    def graph(self, loss: Any) -> Graph:
        if not isinstance(loss, torch.Tensor) or not self._is_tracked(loss):
            raise CaptureError("the loss does not depend on what it is differentiated by")
        return self.recorder.recorded(self._read(loss))

    # Every call

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(map(self._is_tracked, _tensors((args, kwargs)))):
            return self._untracked(func, args, kwargs)
        if not isinstance(func, torch._ops.OpOverload):
            raise CaptureError(
                f"torch's operator {func} calls functions, and there is no rule for it\n  at {self._place()}"
            )
        name = str(func._schema.name).partition("::")[2]
        if name in SHAPE_ALONE:
            return func(*args, **kwargs)
        place = self._place()
        self.recorder.at(place, None)
        try:
            if name == "_local_scalar_dense":
                return self._read_out(func(*args, **kwargs))
            return self._seen(func, name, args, kwargs)
        except CaptureError:
            raise
        except GradwitnessError as error:
            raise CaptureError(f"{func}: {error}\n  at {place}") from None

    def _untracked(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A call that depends on no float; what it makes of decisions are decisions."""
        result = func(*args, **kwargs)
        decided = [self.decided[id(x)][1] for x in _tensors((args, kwargs)) if id(x) in self.decided]
        for y in _tensors(result) if decided else ():
            self.decided[id(y)] = y, decided[0]
        return result

    def _read_out(self, number: Any) -> Any:
        self.recorder.remark("number", f"the number {number:.6g} is read out of a tensor, and stays as it is")
        return number

    def _seen(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """The call itself, with what it returns, or writes to, learnt."""
        target = _written(func, args, kwargs)
        base = name.removesuffix("_") if target is not None else name
        if target is None or name in RULES:  # which has no part in what else it writes to, running means
            target = None
        if (apart := self._taken_apart(func, base, args, kwargs)) is not None:
            return apart[0]
        before = None if target is None else self._memory(target)
        by_position = name.removesuffix("_") in BY_POSITION and not _is_masked_write(name, args)
        given, options = tree_map(self._position if by_position else self._operand, (args, kwargs))
        result = func(*args, **kwargs)
        self.recorder.narrow = self._narrow(result)
        if any(isinstance(x, Value) for x in tree_leaves((given, options))):
            values = self._values(func, base, given, {k: v for k, v in options.items() if k != "out"}, result)
            values = self._cut(name, args, kwargs, result, values)
        elif target is None:
            return result
        else:
            values = None
        if target is None:
            self._learn_all(result, values)
        else:
            self._write(target, host_array(target) if values is None else values, before)
        return result

    def _values(self, func: Any, name: str, given: Any, options: Any, result: Any) -> Any:
        """What a call returns, as values: by the op's own rule, or by where its elements come from."""
        if name in IDENTITIES:
            return given[0]
        if name in COPY:
            return _like(given[0], _rounded(given[1], self.recorder.narrow))
        if name in RULES and not self._is_whole(result):
            return RULES[name](*given, **options)
        if name in FROM_RESULTS:
            return FROM_RESULTS[name](*given, results=result)
        if name in MOVES:
            function = getattr(getattr(torch.ops.aten, name), func._overloadname, None)
            return by_labels(function or func, given, options)
        if name in PICKED_OF_BLOCKS:
            self.recorder.decide(f"which elements {name} picks", tree_leaves(given))
            return _picked_of_blocks(given[0], result[1], PICKED_OF_BLOCKS[name]), None
        if name in PICKED:
            self.recorder.decide(f"which elements {name} picks", tree_leaves(given))
            return _picked(given[0], _argument(func, "dim", given, options), result[1]), None
        if not any(x.dtype.is_floating_point for x in _tensors(result)) or name in DECIDED:
            self.recorder.decide(name, tree_leaves(given))
            return tree_map(lambda _: None, result)
        raise CaptureError(f"{func}: there is no rule for this op\n  at {self.recorder.line}")

    def _cut(self, name: str, args: Any, kwargs: Any, result: Any, values: Any) -> Any:
        """The values, with no derivative through what is detached, if that is asked for. It is remarked on once it is
        used, as autograd detaches what it saves for itself."""
        for x in _tensors((args, kwargs)):
            if id(x) in self.decided:
                self.recorder.remark("decision", f"{WHICH} {AT_THE_POINT}", self.decided[id(x)][1])
            if id(x) in self.detached:
                self.recorder.remark("detached", IS_DETACHED, self.detached[id(x)][1])
        if self.in_rule:
            return values
        if name in DETACHED:
            self.detached[id(result)] = result, self.recorder.line
        elif not (torch.is_grad_enabled() or self.in_torchs):
            self.recorder.remark("detached", UNDER_NO_GRAD)
        elif name in PARTLY_DETACHED:
            return self._partly_cut(*PARTLY_DETACHED[name], args, kwargs, values)
        else:
            return values
        return tree_map(lambda y: _stopped(y) if self.stops else y, values)

    def _partly_cut(self, detached: Callable[..., Array], text: str, args: Any, kwargs: Any, value: Any) -> Any:
        """The same where an op's own rule sends no gradient on from some elements of its result."""
        where = detached(*args, **kwargs)
        if not np.any(where):
            return value
        self.recorder.remark("detached", text)
        return ops.where(where, _stopped(value), value) if self.stops else value

    def _is_whole(self, result: Any) -> bool:
        """Whether these are whole numbers alone, which are decided and not computed."""
        return not any(x.dtype.is_floating_point or x.dtype is torch.bool for x in _tensors(result))

    def _taken_apart(self, func: Any, name: str, args: Any, kwargs: Any) -> tuple[Any] | None:
        """What an op returns that has no rule, and that torch or its author takes apart: called part by part."""
        if any(name in known for known in WHOLE):
            return None
        ours = (_not_in_place(func), APART.get(name), _written_in_python(func, args))
        ways = (*ours, func.decompose, decomposition_table.get(func))
        if func in self.apart:  # which takes itself apart into itself
            return None
        self.apart.append(func)
        try:
            with self:
                for way in ways:
                    if way is not None and (found := way(*args, **kwargs)) is not NotImplemented:
                        return (found,)
        finally:
            self.apart.pop()
        return None

    def _narrow(self, result: Any) -> str | None:
        """The dtype of what is computed with fewer digits than the leaves have."""
        for x in _tensors(result):
            if x.dtype.is_complex:
                raise CaptureError(f"complex numbers\n  at {self.recorder.line}")
            if x.dtype.is_floating_point and torch.finfo(x.dtype).eps > self.digits:
                return str(x.dtype).removeprefix("torch.")
        return None

    def _place(self) -> Place | None:
        """The line of the user's that is running, and the module that it is in."""
        frame: FrameType | None = sys._getframe(2)
        found, inner, outer = None, None, None
        self.in_rule = self.in_torchs = False
        while frame is not None and frame.f_code is not capture.__code__:
            file = frame.f_code.co_filename
            if found is None and not file.startswith(OURS):
                found = file, frame.f_lineno
            if frame.f_code.co_name == "apply" and file.endswith(RULE):
                function = frame.f_locals.get("cls")
                is_users = function is None or name_of(function) is not None
                self.in_rule, self.in_torchs = self.in_rule or is_users, self.in_torchs or not is_users
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and type(owner).__module__.partition(".")[0] != gradwitness_torch.__name__:
                inner, outer = inner or owner, owner
            frame = frame.f_back
        if found is None:
            return None
        if outer is not None and id(outer) not in self.modules:
            self.modules |= {id(part): name for name, part in outer.named_modules()} | {id(outer): ""}
        return Place(*found, self.modules.get(id(inner), ""))

    # What tensors hold

    def _is_tracked(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self.known or (_key(tensor) in self.storages)

    def _operand(self, x: Any) -> Any:
        """What a rule takes for an argument of an op."""
        if not isinstance(x, torch.Tensor):
            return x
        return self._read(x) if self._is_tracked(x) else self._array(x)

    def _position(self, x: Any) -> Any:
        """The same of an op that takes positions: those that depend on floats are decided at the point."""
        if not isinstance(x, torch.Tensor) or x.dtype.is_floating_point or not self._is_tracked(x):
            return self._operand(x)
        self.recorder.decide(WHICH, [self._read(x)])
        return self._array(x)

    def _array(self, tensor: torch.Tensor) -> Array:
        """A constant; the same array for the same tensor, unless it was written to."""
        key = id(tensor), tensor._version
        if key not in self.constants:
            self.constants[key] = tensor, host_array(tensor)
        return self.constants[key][1]

    def _read(self, tensor: torch.Tensor) -> Any:
        """What a tensor holds now: another may have written to the memory that they share."""
        storage, known = self.storages[_key(tensor)], self.known.get(id(tensor))
        if known is None or known.version != storage.version:
            value = moved(1 + _addresses(tensor), self._flat(storage))
            known = self.known[id(tensor)] = _Known(tensor, value, storage.version)
        return known.value

    def _learn_all(self, result: Any, values: Any) -> None:
        several = isinstance(result, tuple | list)
        pairs = zip(result, values, strict=False) if several else [(result, values)]
        for tensor, value in pairs:
            if isinstance(tensor, torch.Tensor) and isinstance(value, Value):
                self._learn(tensor, value)
            elif value is None and isinstance(tensor, torch.Tensor) and not tensor.dtype.is_floating_point:
                self.decided[id(tensor)] = tensor, self.recorder.line

    def _learn(self, tensor: torch.Tensor, value: Value) -> None:
        if tuple(tensor.shape) != value.shape:
            raise CaptureError(f"the rule gives {value.spec} for {list(tensor.shape)}\n  at {self.recorder.line}")
        storage = self.storages.setdefault(_key(tensor), _Storage(tensor, value))
        self.known[id(tensor)] = _Known(tensor, value, storage.version)

    def _memory(self, target: torch.Tensor) -> Any:
        """All of the memory that a tensor is a part of, flat, before it is written to."""
        if _key(target) in self.storages:
            return self._flat(self.storages[_key(target)])
        return host_array(target.as_strided((_extent(target),), (1,), 0))

    def _flat(self, storage: _Storage) -> Any:
        if storage.flat is None:
            where = np.zeros(_extent(storage.keep), np.int64)
            where[_addresses(storage.keep)] = 1 + np.arange(storage.keep.numel()).reshape(storage.keep.shape)
            storage.flat = moved(where, storage.value)
        return storage.flat

    def _write(self, target: torch.Tensor, value: Any, before: Any) -> None:
        mine, theirs = labels((_extent(target),), tuple(target.shape))
        mine[_addresses(target)] = theirs
        storage = self.storages.setdefault(_key(target), _Storage(target, value))
        storage.flat, storage.version = moved(mine, before, _like(target, value)), storage.version + 1
        if isinstance(value, Value) and value.shape == tuple(target.shape):
            self.known[id(target)] = _Known(target, value, storage.version)


def _stopped(value: Any) -> Any:
    return ops.stop_gradient(value) if isinstance(value, Value) and value.dtype == FLOAT else value


def _is_masked_write(name: str, args: Any) -> bool:
    """Whether one number is written wherever a mask holds, as by x[x > 0] = 1."""
    if not name.startswith("index_put") or len(args) < 3 or len(args[1]) != 1:
        return False
    (mask,) = args[1]
    return (
        isinstance(mask, torch.Tensor) and mask.dtype is torch.bool and mask.shape == args[0].shape and not args[2].ndim
    )


def _tensors(nested: Any) -> list[torch.Tensor]:
    return [x for x in tree_leaves(nested) if isinstance(x, torch.Tensor)]


def _key(tensor: torch.Tensor) -> int:
    """What tensors that share memory have in common; 0 for one that has no plain memory."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else 0


def _extent(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().nbytes() // tensor.element_size()


def _addresses(tensor: torch.Tensor) -> Array:
    """Where each element lies in the memory, counted in elements."""
    where = np.full((), tensor.storage_offset())
    for extent, stride in zip(tensor.shape, tensor.stride(), strict=True):
        where = np.add.outer(where, stride * np.arange(extent))
    return where


def _written(func: Any, args: Any, kwargs: Any) -> torch.Tensor | None:
    """The tensor that a call writes to, if any."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            if isinstance(given, torch.Tensor):
                return given
    return None


def _not_in_place(func: Any) -> Callable[..., Any] | None:
    """What an op that writes to its first operand does, by that which returns a tensor of its own."""
    name = func._schema.name.partition("::")[2]
    plain = getattr(torch.ops.aten, name.removesuffix("_"), None)
    if not name.endswith("_") or func._overloadname not in getattr(plain, "overloads", list)():
        return None
    return lambda x, *args, **kwargs: x.copy_(getattr(plain, func._overloadname)(x, *args, **kwargs))


def _written_in_python(func: Any, args: Any) -> Callable[..., Any] | None:
    """The function that an op of `torch.library.custom_op` runs."""
    definition = OPDEFS.get(func._qualified_op_name if hasattr(func, "_qualified_op_name") else func._schema.name)
    if definition is None:
        return None
    device = next((x.device.type for x in _tensors(args)), "cpu")
    found: Callable[..., Any] = definition._backend_fns.get(device, definition._init_fn)
    return found


def _argument(func: Any, name: str, given: Any, options: Any) -> Any:
    """What an argument of a call is, by its name."""
    place, declared = next((i, a) for i, a in enumerate(func._schema.arguments) if a.name == name)
    return given[place] if place < len(given) else options.get(name, declared.default_value)


def _picked(x: Value, axis: int, indices: torch.Tensor) -> Any:
    """The elements at these indices along an axis, which may be gone from the indices' shape."""
    (marks,) = labels(x.shape)
    where = indices.cpu().numpy()
    if where.ndim == marks.ndim:
        return moved(np.take_along_axis(marks, where, axis), x) if marks.ndim else x
    return moved(np.take_along_axis(marks, np.expand_dims(where, axis), axis).squeeze(axis), x)


def _picked_of_blocks(x: Value, indices: torch.Tensor, axes: int) -> Any:
    """The elements at these indices into the blocks of the last axes."""
    (marks,) = labels(x.shape)
    where = indices.cpu().numpy()
    blocks = marks.reshape(*marks.shape[:-axes], -1)
    return moved(np.take_along_axis(blocks, where.reshape(*where.shape[:-axes], -1), -1).reshape(where.shape), x)


def _like(target: Any, value: Any) -> Any:
    """The value in the shape of the target."""
    shape = tuple(target.shape)
    if np.shape(value) == shape:
        return value
    return ops.broadcast_to(value, shape=shape) if isinstance(value, Value) else np.broadcast_to(value, shape)


def _rounded(x: Any, narrow: str | None) -> Any:
    """A copy into fewer digits rounds."""
    return x * 1.0 if narrow and isinstance(x, Value) and x.dtype == FLOAT else x
