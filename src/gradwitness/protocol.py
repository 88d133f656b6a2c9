"""The protocol of an adapter: a `Backend` that prepares candidates, and `Prepared` ones that run.

Preparing pays every one-off cost (lowering, compiling, transfer) and records its seconds. Running is separate
everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from gradwitness.arithmetic import Arithmetic, RoundingErrors, Sums
from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError, UnknownName, UnsupportedError
from gradwitness.graph import Graph
from gradwitness.problem import Candidate, Problem

__all__ = [
    "MOST_CALLS",
    "WRITER",
    "Array",
    "Backend",
    "Capabilities",
    "Capturing",
    "CustomRule",
    "Deviation",
    "Explaining",
    "ExtendedInterpreter",
    "Extensible",
    "Finer",
    "Forgetful",
    "ForwardMode",
    "Interpreter",
    "NotAlone",
    "Observed",
    "Observing",
    "Perturbing",
    "Prepared",
    "Primals",
    "RuleCall",
    "RuleCalling",
    "RuleTelling",
    "Script",
    "Scripted",
    "expect_options",
    "expect_runnable",
    "expect_supported",
]

Primals = Mapping[str, Array]  # the differentiated leaves by path: float64, exact in the candidate's dtype
LoweredLoss = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Capabilities:
    """The abilities of a backend, as data that the run reads.

    dtypes: names of the dtypes in which it runs.
    ops: names of the ops that it has.
    requires: the modules that it imports when it prepares; install: the command that installs them.
    compiles: preparing takes seconds per graph, so many small problems are bundled into one.
    interpreter: it also implements `Interpreter`.
    composed: ops that the framework has no function for; they run as the composition that its users write.
    sums: how sums of many terms round, by op ("sum" for plain ones) and dtype, if they round more than each product and
    the result once. flushes: dtypes in which subnormal numbers become zero. The conformance suite measures both.
    native: it runs losses in the framework's own arrays, and gradients written by hand.
    options: the names that `Candidate.options` may hold.
    paths: the names that `Candidate.path` may have, such as "eager" or "vmap", the plainest first; compiled_paths:
    those for which preparing compiles.
    shares: another backend, whose functions for users' own ops it runs if it has none of its own.
    ways: how it takes further derivatives (`Derived.way`), by their names, as "hvp".
    """

    dtypes: tuple[str, ...]
    ops: frozenset[str]
    requires: tuple[str, ...] = ()
    install: str = ""
    compiles: bool = False
    interpreter: bool = False
    composed: frozenset[str] = frozenset()
    sums: Mapping[tuple[str, str], Sums] = field(default_factory=dict)
    flushes: tuple[str, ...] = ()
    native: bool = False
    options: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    compiled_paths: tuple[str, ...] = ()
    shares: str = ""
    ways: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def compiles_along(self, path: str | None) -> bool:
        """Whether preparing compiles on this path; None stands for the plain one."""
        return self.compiles if path is None else path in self.compiled_paths

    def arithmetic(self, dtype: str) -> Arithmetic:
        """How the backend rounds in one dtype."""
        return Arithmetic(frozenset((op, s) for (op, d), s in self.sums.items() if d == dtype), dtype in self.flushes)


class Prepared(Protocol):
    """A candidate ready to run, with all its arrays on the device.

    setup_seconds: what preparing took, in seconds.

    `params` are the differentiated leaves by path: float64 arrays whose values the candidate's dtype can hold. A call
    may give other leaves beside them. It then uses these instead of the problem's own, and gives no gradient for them.

    `value` and `value_and_gradient` take and give host arrays. A gradient has the shape of its leaf and is float64 for
    float64, else float32. It is None if the framework says that no path leads from the leaf to the loss.

    The other methods keep everything on the device, for timing: `forward` makes a tape, `backward` consumes it, `wait`
    returns when the device has finished, and `fetch` brings gradients to the host.
    """

    setup_seconds: float

    def value(self, params: Primals) -> float: ...
    def value_and_gradient(self, params: Primals) -> tuple[float, dict[str, Array | None]]: ...
    def place(self, params: Primals) -> Any: ...
    def forward(self, placed: Any) -> Any: ...
    def backward(self, tape: Any) -> Any: ...
    def forward_backward(self, placed: Any) -> Any: ...
    def wait(self, x: Any) -> None: ...
    def fetch(self, gradient: Any) -> dict[str, Array | None]: ...


@runtime_checkable
class Perturbing(Protocol):
    """A Prepared, in float64, that can run with the result of every operation perturbed: forward and backward, through
    the framework's own functions and the user's alike, fused ones taken apart.

    Gives so many runs, each (loss, gradients by path), the gradients None where there is none, and empty if they are
    not asked for. Raises UnsupportedError, naming it, for what cannot be looked into (an opaque
    kernel, a result in less than float64).
    """

    def perturbed(
        self, params: Primals, errors: RoundingErrors, *, runs: int, seed: Sequence[int], gradients: bool = True
    ) -> Iterator[tuple[float, dict[str, Array | None]]]: ...


@runtime_checkable
class NotAlone(Protocol):
    """A Prepared that may be unable to run its backward without a forward.

    not_alone: why it cannot, in a few words; empty if it can.
    """

    @property
    def not_alone(self) -> str: ...


@runtime_checkable
class ForwardMode(Protocol):
    """A Prepared that can do without a tape: its loss alone, and forward mode. All stays on the device.

    infer: the loss of what `place` gave, of which nothing is kept for a backward. tangent: the derivative of the loss
    along a direction, which `place` gave as well, in one forward pass.
    """

    def infer(self, placed: Any) -> Any: ...
    def tangent(self, placed: Any, direction: Any) -> Any: ...


@runtime_checkable
class Capturing(Protocol):
    """A Prepared whose loss, in its framework's own arrays, may be read into a graph at a point."""

    def captured(self, params: Primals, *, stops: bool = False) -> Graph:
        """The loss as a graph, read at this point.

        stops: whether no derivative goes through a value that the loss detaches. By default detaching is an identity,
        as the derivative is that of the values.

        Raises CaptureError, with the op and the user's line, for an op without a rule, and any exception of the loss.
        """
        ...


@runtime_checkable
class Finer(Protocol):
    """A Prepared in float64 whose loss and gradient the same functions may give in more digits."""

    def in_more_digits(self, params: Primals, given: Mapping[str, Array | None]) -> Mapping[str, Array | None] | None:
        """The gradient, computed in more digits than float64 has; None where it cannot be, or where the same call in
        float64 gives another gradient than `given`."""
        ...

    def rounded_off(self, params: Primals) -> float | None:
        """How far the loss is from that in more digits; None where it cannot be computed in more."""
        ...


@dataclass(frozen=True)
class CustomRule:
    """A derivative rule of a user's own that a loss refers to.

    ran: whether it had a part in the gradient; None of what is no rule, and was found at fault on the way. faults: what
    is said against it, by the checks that say so. lacking: the same, where it lacks what only some paths need.
    """

    name: str
    ran: bool | None
    faults: Mapping[str, str] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class RuleTelling(Protocol):
    """A Prepared that tells which rules of users' own its gradient at a point is made of, in one more evaluation.

    None where that cannot be told, as of code that was compiled.
    """

    def custom_rules(self, params: Primals) -> tuple[CustomRule, ...] | None: ...


@dataclass(frozen=True)
class RuleCall:
    """One call of a rule of a user's own on the way to a gradient, to be looked at by itself.

    loss: what the rule computes, as a loss of these params and this batch in the arrays of a backend, in a dtype;
    cotangent: what arrived at its results; gradient: what its backward made of that, by path of params.
    elsewhere: the call is one of the plain path, as this one shows none. place: of its backward, as "file:line"; empty
    where that is not known.
    """

    name: str
    backend: str
    loss: Callable[[Any, Any], Any] = field(repr=False)
    params: Mapping[str, Array]
    batch: Mapping[str, Array]
    cotangent: Any
    gradient: Mapping[str, Array | None]
    dtype: str
    elsewhere: bool = False
    place: str = ""


MOST_CALLS = 4  # of one rule that are looked at: each is judged by a reference of its own


@runtime_checkable
class RuleCalling(Protocol):
    """A Prepared that can tell with what its users' own rules were called, the first MOST_CALLS of each by name."""

    def rule_calls(self, params: Primals) -> Sequence[RuleCall]: ...


@runtime_checkable
class Forgetful(Protocol):
    """A Prepared that may know that its answers depend on its arguments alone, as of a compiled program: then no other
    order of calls need be tried. False for a program that may keep something, None where nothing is compiled."""

    def is_forgetful(self, params: Primals) -> bool | None: ...


@runtime_checkable
class Explaining(Protocol):
    """A Prepared that may know why a gradient that it gave as None is missing; empty where it does not."""

    def why_missing(self) -> str: ...


@runtime_checkable
class Backend(Protocol):
    """One framework, in one way of running it.

    name: as in the entry point. capabilities: what it can do, as data.
    """

    name: str
    capabilities: Capabilities

    def devices(self) -> Sequence[str]:
        """The devices present now, "cpu" first. May import the framework."""
        ...

    def settings(self, precision: str) -> dict[str, str]:
        """The precision settings in force during a run, for the record."""
        ...

    def precision(self, precision: str) -> AbstractContextManager[None]:
        """A context that holds matmul precision at "highest", or leaves it alone at "default", and restores it."""
        ...

    def lower(self, graph: Graph) -> LoweredLoss:
        """The graph as a function `loss(leaves) -> scalar` of the framework's own arrays, by path.

        Raises UnsupportedError for an op that the backend lacks.
        """
        ...

    def prepare(self, candidate: Candidate, problem: Problem, *, dtype: str, device: str) -> Prepared:
        """The candidate, compiled and placed, at a point that `dtype` can hold.

        Raises UnsupportedError for a dtype, device, op or path that the backend lacks, UnknownName for an option.
        """
        ...


@dataclass(frozen=True)
class Deviation:
    """A convention in which one framework's function differs from its namesake, to be tried instead of it.

    text: the convention here and the other one ("layer_norm eps: 1e-05 in torch, 1e-06 in jax"). remedy: how to mend a
    port that has the other. change: the adapter's own. everywhere: at all calls that it concerns, or at one of several.
    """

    text: str
    remedy: str
    change: Any = field(compare=False)
    everywhere: bool = True


class Observed(Protocol):
    """A model that shows what it computes on its way to the loss.

    loss: `loss(params, batch)`, of `params`, host arrays by name, which are differentiated; constants: other floating
    state, such as buffers; kinds: classes of its layers, by name.
    """

    loss: Callable[[Any, Any], Any]
    params: Mapping[str, Any]
    constants: Mapping[str, Any]
    kinds: Mapping[str, str]

    def values(self, params: Mapping[str, Any], batch: Any, deviations: Sequence[Deviation] = ()) -> dict[str, Array]:
        """Everything shown by one call, in the dtype asked for, by name in the order in which it came, "loss" last."""
        ...

    def deviations(self, batch: Any) -> list[Deviation]:
        """What of its calls may be done otherwise elsewhere."""
        ...

    def wide(self) -> AbstractContextManager[Any]:
        """In which functions of its framework keep all digits of host arrays."""
        ...


@runtime_checkable
class Observing(Protocol):
    """A backend that can look into models of its framework.

    model: a module, with `loss(module, batch)`; or `loss(params, batch)` itself, with its params. A loss may return
    `(loss, {name: array})`, and shows these arrays. Raises GradwitnessError for what it cannot take.
    """

    def observe(
        self, model: Any, *, loss: Any = None, params: Any = None, dtype: str = "float64", jit: bool = True
    ) -> Observed: ...


class Extensible:
    """Base class of a backend that takes users' own ops (`gradwitness.define_op`).

    own_ops: the functions to run, by op, beside the backend's own table: `function(*arrays, **attributes)`, as in
    `lowering.lower(graph, FUNCTIONS | self.own_ops)`.
    """

    capabilities: Capabilities
    own_ops: Mapping[str, Any] = MappingProxyType({})

    def extend(self, implementations: Mapping[str, Any]) -> None:
        """Take these ops, by name, instead of those of an earlier call. Imports no framework.

        Raises GradwitnessError for an implementation that is no function.
        """
        for name, given in implementations.items():
            if not callable(given):
                raise GradwitnessError(f"{name}: expected a function of arrays, got {type(given).__name__}")
        self._have(implementations)

    def _have(self, implementations: Mapping[str, Any]) -> None:
        others = frozenset(name for name in self.capabilities.ops if name not in self.own_ops)
        self.capabilities = replace(self.capabilities, ops=others.union(implementations))
        self.own_ops = dict(implementations)


@dataclass(frozen=True)
class Script:
    """How a backend's candidates run in a script without gradwitness: functions whose source is written into it.

    `arguments` are what a loss takes, nested host arrays in float64, int64 or bool; `leaf(*arguments)` is the leaf to
    differentiate by. value: `value(loss, arguments, dtype, device)`, a float. gradient: `gradient(loss, leaf,
    arguments, dtype, device, **options)`, the framework's gradient as a host array, or None if it has none. by_hand:
    `by_hand(function, leaf, arguments, dtype, device)`, the leaf of what a user's own gradient returns. ops: the
    functions of the vocabulary's ops, and of users' own, in one dtype.
    """

    value: Callable[..., float]
    gradient: Callable[..., Any]
    by_hand: Callable[..., Any]
    ops: Mapping[str, Any]


WRITER = "__gradwitness_writer__"
"""The attribute of a function that an adapter made and can write as text: that function itself, as wrappers copy
attributes, and `writer(sources, hint)`, which gives the name under which the script has it from then on
(`gradwitness.repro.source.Sources`)."""


@runtime_checkable
class Scripted(Protocol):
    """A backend whose candidates can run in a script without gradwitness."""

    def script(self, dtype: str) -> Script: ...


def expect_runnable(backend: Backend, candidate: Candidate) -> None:
    """Raise UnsupportedError for a candidate that the backend cannot run."""
    if not backend.capabilities.native and (candidate.is_written_by_hand or callable(candidate.loss)):
        raise UnsupportedError(
            f"{backend.name} runs losses over gradwitness.ops, and none in its own arrays or with a gradient by hand"
        )


def expect_options(backend: Backend, candidate: Candidate) -> None:
    """Raise UnknownName for an option or a path that the backend lacks, UnsupportedError for a path of a gradient by
    hand."""
    for name in candidate.options:
        if name not in backend.capabilities.options:
            raise UnknownName(f"option of {backend.name}", name, backend.capabilities.options or ["none"])
    if candidate.path is None:
        return
    if candidate.path not in backend.capabilities.paths:
        raise UnknownName(f"path of {backend.name}", candidate.path, backend.capabilities.paths or ["none"])
    if candidate.is_written_by_hand:
        raise UnsupportedError(f"a gradient written by hand is not differentiated: no path {candidate.path!r}")


def expect_supported(backend: Backend, dtype: str, device: str) -> None:
    """Raise UnsupportedError, naming what there is, unless the backend runs in this dtype and on this device."""
    dtypes, devices = backend.capabilities.dtypes, backend.devices()
    if dtype not in dtypes:
        raise UnsupportedError(f"{backend.name} does not run in {dtype} (it has {', '.join(dtypes)})")
    if device not in devices:
        raise UnsupportedError(f"{backend.name} does not run on {device} here (it has {', '.join(devices)})")


@runtime_checkable
class Interpreter(Protocol):
    """Runs a graph node by node, with hooks: what noise floor and differences are written on.

    `on_value(node, step) -> value` sees each op's step (operands, attributes, output) and may replace its
    result before it is used; `on_cotangent(node, step, cotangent, sent) -> sent` what the op sends to its
    operands: arrays, None, or slabs, which are zero but for `values` at `key`; `on_sum(node, sum, parts) -> sum` the
    sum of what several consumers of a value have sent to it, and these parts, as they were sent.
    `step.with_operands(operands)` runs the op again on others, `step.pull(cotangent)` its vjp.
    """

    capabilities: Capabilities

    def forward(
        self,
        graph: Graph,
        leaves: Mapping[str, Array],
        *,
        on_value: Callable[..., Any] | None = None,
        reuse: Any = None,
        changed: Sequence[str] = (),
    ) -> Any: ...
    def loss(self, tape: Any) -> float: ...
    def backward(
        self,
        tape: Any,
        wrt: Sequence[str],
        *,
        cotangent: float = 1.0,
        on_cotangent: Callable[..., Any] | None = None,
        on_sum: Callable[..., Any] | None = None,
    ) -> dict[str, Array]: ...
    def extended(self, bits: int) -> AbstractContextManager[ExtendedInterpreter]:
        """The same rules on numbers of so many bits, for the time of the context."""
        ...


class ExtendedInterpreter(Protocol):
    """An interpreter whose numbers are balls (python-flint's arb): each carries a bound on its own error.

    Leaves may be float64 arrays, which are exact, or what `numbers` makes of them. Raises ArithmeticError where
    a branch depends on digits that are not there.
    """

    def numbers(self, x: Array) -> Any: ...
    def forward(
        self, graph: Graph, leaves: Mapping[str, Any], *, reuse: Any = None, changed: Sequence[str] = ()
    ) -> Any: ...
    def loss(self, tape: Any) -> Any: ...
    def backward(self, tape: Any, wrt: Sequence[str]) -> dict[str, Any]: ...
