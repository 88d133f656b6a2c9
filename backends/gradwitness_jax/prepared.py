"""A loss with its arrays on a jax device, differentiated by jax and compiled, or by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradwitness.arithmetic import RoundingErrors
from gradwitness.dtypes import Array
from gradwitness.errors import CaptureError, GradwitnessError
from gradwitness.graph import Graph
from gradwitness.lowering import Implementation, expect_unmodified
from gradwitness.protocol import CustomRule, Primals, RuleCall
from gradwitness_jax.capture import capture
from gradwitness_jax.custom import custom_rules
from gradwitness_jax.memory import is_forgetful
from gradwitness_jax.paths import Both, one_number
from gradwitness_jax.quiet import quiet
from gradwitness_jax.rounding import Perturbed
from gradwitness_jax.rule_calls import calls_of_rules
from gradwitness_jax.tape import passes

__all__ = ["JaxPrepared"]

Arrays = dict[str, jax.Array]
WITHOUT_JIT = 'for Python control flow give Candidate("jax", loss, options={"jit": False}), else return a jax.Array'
KEEP_TO_JAX = "keep to jax.numpy, as no gradient passes through float() or NumPy"
FEW = 20  # values for which the loss alone is not worth a compilation of its own, unless a rule has two forwards
Tape = Any  # what one forward pass leaves for its backward


class JaxPrepared:
    """A candidate's functions at work.

    Every call enters x64 anew: a function compiled under it and called outside retraces to float32.
    A gradient written by hand runs as it is: whoever wants it compiled gives it compiled. both: a way to loss and
    gradient other than the plain one, as it is made by `paths`; jit: whether the rest is compiled.

    `value`, `forward` and `backward` are programs of their own beside that of `value_and_gradient` (`tape`), except
    where there is a `both`: there a tape holds the leaves, and the backward computes everything. Each program is
    compiled once for its shapes, and goes with this object.
    """

    setup_seconds = 0.0
    of_vocabulary = False  # whether nothing of a user's own runs, so that nothing needs to be traced to tell what does

    def __init__(
        self,
        implementation: Implementation,
        primals: Primals,
        *,
        dtype: str,
        device: str,
        jit: bool = True,
        both: Both | None = None,
    ) -> None:
        self._by_hand, self._gradient = map(_reading, (implementation.value_and_gradient, implementation.gradient))
        self._dtype, self._wide = jnp.dtype(dtype), dtype == "float64"
        self._host = np.float64 if self._wide else np.float32
        self._device = jax.devices("gpu" if device == "cuda" else device)[0]
        self._paths, self._reaching = tuple(primals), frozenset(implementation.reaching)
        with self._x64():
            self._inputs = self._placed(implementation.inputs)
            self._one = self._put(np.ones(()))
        self._given = implementation.inputs
        self._compile(implementation, jax.jit if jit else lambda function: function, both)
        if self._by_hand is None:  # what compiles; a gradient by hand would see the point before its neighbours
            self.value_and_gradient(primals)
        self._warm, self._values = False, 0
        self._rules: list[tuple[CustomRule, ...] | None] = []  # what `custom_rules` said, once it was asked
        self._perturbed: Perturbed | None = None

    def _compile(self, implementation: Implementation, compiled: Any, both: Both | None) -> None:
        def value(placed: Arrays, inputs: Arrays) -> jax.Array:
            with _advising(jit=compiled is jax.jit), expect_unmodified():
                return one_number(implementation.loss({**inputs, **placed}))

        self._plain, self._value = value, compiled(value)
        self._value_and_grad, self._has_tape = both or compiled(jax.value_and_grad(value)), both is None
        self._tangent = compiled(
            lambda placed, direction, inputs: jax.jvp(lambda p: value(p, inputs), (placed,), (direction,))[1]
        )
        self._forward, self._pull = passes(value, dtype=self._dtype, jit=compiled is jax.jit)

    @property
    def not_alone(self) -> str:
        """Why its backward cannot run without a forward of its own; empty if it can."""
        if self._gradient is not None:
            return "its gradient is a function of its own, which runs its own forward"
        return "" if self._by_hand is None and self._has_tape else "loss and gradient are one function"

    def value(self, params: Primals) -> float:
        self._values += 1
        with self._x64():
            if self._by_hand is None and self._values <= FEW and not self.custom_rules(params):
                return float(self._value_and_grad(*self._split(params))[0])
            return float(self._value(*self._split(params)))

    def value_and_gradient(self, params: Primals) -> tuple[float, dict[str, Array | None]]:
        with self._x64():
            value, gradient = self._both(*self._split(params))
            return float(value), self.fetch(gradient)

    def perturbed(
        self, params: Primals, errors: RoundingErrors, *, runs: int, seed: Sequence[int], gradients: bool = True
    ) -> Iterator[tuple[float, dict[str, Array | None]]]:
        """As `Perturbing` says. The gradients are computed in any case: the loss alone would be compiled anew."""
        rng = np.random.Generator(np.random.SFC64([*seed]))
        for _ in range(runs):
            with quiet(), self._x64():
                arguments = self._split(params)
                if self._perturbed is None:
                    self._perturbed = Perturbed(self._both, *arguments)
                noise = self._put(rng.standard_normal(self._perturbed.count))
                value, gradient = self._perturbed(errors, noise, *arguments)
                result = float(value), self.fetch(gradient) if gradients else {}
            yield result  # outside of x64, which is the caller's again

    def captured(self, params: Primals, *, stops: bool = False) -> Graph:
        if self.of_vocabulary:
            raise CaptureError("it has no loss of its own")
        with quiet(), self._x64():
            placed, inputs = self._split(params)
            return capture(self._plain, placed, inputs, {**self._given, **params}, stops=stops)

    def custom_rules(self, params: Primals) -> tuple[CustomRule, ...] | None:
        """Each custom_vjp and custom_jvp that the loss calls, and whether its derivative is made of it: the same on
        every path, as all transform the same loss. None for a gradient by hand, and a loss that cannot be traced."""
        if self._by_hand is not None:
            return None
        if self.of_vocabulary:
            return ()
        if not self._rules:  # traced once: the values that ask are many
            self._rules.append(self._traced_rules(params))
        return self._rules[0]

    def _traced_rules(self, params: Primals) -> tuple[CustomRule, ...] | None:
        with quiet(), self._x64():
            try:
                found = custom_rules(self._plain, *self._split(params))
            except Exception:  # noqa: BLE001  # a user's function may raise anything on tracers
                return None
        return tuple(CustomRule(name, ran) for name, ran in found.items())

    def rule_calls(self, params: Primals) -> Sequence[RuleCall]:
        """The same on every path, as each transforms the same loss. None of a gradient by hand."""
        if self._by_hand is not None or self.of_vocabulary:
            return ()
        with quiet(), self._x64():
            return calls_of_rules(self._plain, *self._split(params))

    def is_forgetful(self, params: Primals) -> bool | None:
        """Whether loss and gradient are one compiled program that calls nothing outside, and is traced alike twice."""
        if self._by_hand is not None or not self._has_tape or not hasattr(self._value_and_grad, "trace"):
            return None
        if self.of_vocabulary:
            return True
        with quiet(), self._x64():
            arguments = self._split(params)
            traced = (program.trace(*arguments).jaxpr for program in (self._value_and_grad, self._traced_anew()))
            return is_forgetful(*traced)

    def _traced_anew(self) -> Any:
        return jax.jit(jax.value_and_grad(lambda placed, inputs: self._plain(placed, inputs)))

    def _both(self, placed: Arrays, inputs: Arrays) -> tuple[jax.Array, Any]:
        if self._by_hand is None:
            both: tuple[jax.Array, Any] = self._value_and_grad(placed, inputs)
            return both
        value, gradient = self._by_hand({**inputs, **placed})
        return one_number(value), gradient

    def place(self, params: Primals) -> Arrays:
        """The leaves on the device. The first call compiles what is timed, and adds its seconds to the setup."""
        with self._x64():
            placed = self._split(params)[0]
        if not self._warm:
            started = time.perf_counter()
            with quiet():
                self.wait(self.backward(self.forward(placed)))
            self.setup_seconds += time.perf_counter() - started
            self._warm = True
        return placed

    def forward(self, placed: Arrays) -> Tape:
        with self._x64():
            if self._gradient is not None:
                return {**self._inputs, **placed}, self._value(placed, self._inputs)
            if not self._has_tape:
                return placed, self._value(placed, self._inputs)
            return self._forward(placed, self._inputs)

    def backward(self, tape: Tape) -> Any:
        with self._x64():
            if not self._has_tape:
                return self._value_and_grad(tape[0], self._inputs)[1]
            return self._pull(tape, self._one) if self._gradient is None else self._gradient(tape[0])

    def infer(self, placed: Arrays) -> jax.Array:
        with self._x64():
            found: jax.Array = self._value(placed, self._inputs)
            return found

    def tangent(self, placed: Arrays, direction: Arrays) -> jax.Array:
        """By jax.jvp."""
        with self._x64():
            found: jax.Array = self._tangent(placed, direction, self._inputs)
            return found

    def forward_backward(self, placed: Arrays) -> Any:
        with self._x64():
            if self._by_hand is not None:
                return self._by_hand({**self._inputs, **placed})[1]
            return self._value_and_grad(placed, self._inputs)[1]

    def wait(self, x: Any) -> None:
        jax.block_until_ready(x)

    def fetch(self, gradient: Any) -> dict[str, Array | None]:
        found = {path: np.array(g, dtype=self._host) for path, g in gradient.items() if g is not None}
        return {path: found.get(path) for path in self._paths}

    def _x64(self) -> AbstractContextManager[Any]:
        if jax.config.jax_enable_x64 == self._wide:  # type: ignore[attr-defined]  # added at run time
            return nullcontext()  # it is entered at every call, and timed
        context: AbstractContextManager[Any] = jax.enable_x64(self._wide)
        return context

    def _split(self, params: Primals) -> tuple[Arrays, Arrays]:
        """(the leaves to differentiate by, the others), on the device; a leaf that is given goes before one's own."""
        placed = {path: self._put(params[path]) for path in self._paths if path in self._reaching}
        others = {path: a for path, a in params.items() if path not in self._paths}
        return placed, {**self._inputs, **self._placed(others)}

    def _placed(self, leaves: Primals) -> Arrays:
        return {path: self._put(a) for path, a in leaves.items()}

    def _put(self, array: Array) -> jax.Array:
        """A copy on the device (jax may share a host array's memory): floats in the candidate's dtype."""
        dtype = self._dtype if array.dtype.kind == "f" else array.dtype
        placed: jax.Array = jax.device_put(np.array(array, dtype=dtype), self._device)
        return placed


def _reading(function: Callable[[Arrays], Any] | None) -> Any:
    """The same, that says what it means where a function writes to what it was given; None for None."""
    if function is None:
        return None

    def reading(leaves: Arrays) -> Any:
        with expect_unmodified():
            return function(leaves)

    return reading


@contextmanager
def _advising(*, jit: bool) -> Iterator[None]:
    """Say what to do where a loss asks for the value of what jax only traces."""
    try:
        yield
    except (jax.errors.ConcretizationTypeError, jax.errors.NonConcreteBooleanIndexError) as error:
        advice = WITHOUT_JIT if jit else KEEP_TO_JAX
        raise GradwitnessError(f"jax traces, so there is no value yet ({type(error).__name__}): {advice}") from error
    except jax.errors.TracerArrayConversionError as error:
        raise GradwitnessError(f"the loss hands an array over to NumPy while jax traces: {KEEP_TO_JAX}") from error
