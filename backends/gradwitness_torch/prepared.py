"""A loss with its arrays on a torch device, differentiated by autograd or by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gradwitness.arithmetic import RoundingErrors
from gradwitness.dtypes import Array
from gradwitness.errors import CaptureError, GradwitnessError, UnsupportedError
from gradwitness.graph import Graph
from gradwitness.lowering import Implementation
from gradwitness.protocol import CustomRule, Primals, RuleCall
from gradwitness_torch.accumulating import accumulated, differentiated, frozen_checkpoints, is_refused
from gradwitness_torch.capture import capture
from gradwitness_torch.closed_over import named, others_in, warn_of_closed_over
from gradwitness_torch.custom import Seen, not_repeating, rules_of, watching
from gradwitness_torch.paths import one_number
from gradwitness_torch.quiet import quiet
from gradwitness_torch.rounding import Rounding
from gradwitness_torch.rule_calls import calls_of_rules
from gradwitness_torch.writing import Writes, bytes_of

__all__ = ["Tape", "TorchPrepared"]

Tensors = dict[str, torch.Tensor]
Gradients = dict[str, torch.Tensor | None]
Found = Gradients | tuple[torch.Tensor | None, ...]  # by path, or as autograd gives them: in the order of the leaves
INSIDE_FROZEN = (
    "the loss has a reentrant checkpoint whose inputs require no gradient, so the parameters inside it get none; "
    "give it use_reentrant=False, or an input that requires a gradient"
)
FUNCTION = "the function"
MODIFIES = "{who} modifies {what}, which belongs to the caller; let it work on a copy"
SECOND_TIME = "Trying to backward through the graph a second time"  # torch's words
OF_MODULE = " (of a module: loss, params = gradwitness_torch.from_module(module, loss))"
USED_UP = (
    "the graph of the loss is used up before its gradient is taken: leave backward() out of the loss, "
    "or give the function as value_and_gradient=, with the gradients that it finds"
)


@dataclass(frozen=True, slots=True)
class Tape:
    """One forward pass: its loss, which holds the residuals, the leaves that it was taken at, and those of them that it
    is differentiated by, in order."""

    loss: torch.Tensor
    leaves: Tensors
    by: list[torch.Tensor]


class TorchPrepared:
    """A candidate's functions, eager or compiled. `wrt` are the paths of the leaves that it is differentiated by; `way`
    is the execution path that these functions take, if not the backend's plain one.

    written: the loss as its user wrote it; the first gradient from then on shows what it closes over.
    """

    setup_seconds = 0.0
    written: Any = None
    plain: Callable[[Tensors], torch.Tensor] | None = (
        None  # a user's own loss of leaves, along no path and not compiled
    )
    is_derived = False  # whether it is a further derivative: torch has no modes inside of forward mode
    _fills = True  # whether `.grad` of a leaf may be filled by something else than `loss.backward()` here
    _is_looked_at = False  # whether the bytes of the leaves were, after a user's own functions
    _forwards = False  # whether it ran forward mode before
    _frozen = False  # whether it has a reentrant checkpoint of what requires no gradient
    _closed_over = ""  # the names of what it reads beside its leaves and that requires a gradient

    def __init__(
        self,
        implementation: Implementation,
        wrt: Sequence[str],
        *,
        dtype: str,
        device: str,
        way: str | None = None,
        compiled: bool = False,
        accumulates: bool = False,
    ) -> None:
        self._loss, self._by_hand = implementation.loss, implementation.value_and_gradient
        self._gradient = implementation.gradient
        self._dtype, self._device = getattr(torch, dtype), torch.device(device)
        self._on_gpu = self._device.type == "cuda"
        self._host = np.float64 if dtype == "float64" else np.float32
        self._paths = wrt
        self._is_plain = way in (None, "eager") and not compiled
        self._compiled = compiled
        self._accumulates = accumulates  # the gradients in .grad, by loss.backward()
        self._taped = frozenset() if self._by_hand else frozenset(implementation.reaching)
        self._by = tuple(path for path in wrt if path in self._taped)
        self._given = implementation.inputs
        self._unused = frozenset(wrt) - frozenset(implementation.reaching)
        with _recording():
            self._inputs = {path: self._tensor(a) for path, a in implementation.inputs.items()}

    @property
    def not_alone(self) -> str:
        """Why its backward cannot run without a forward of its own; empty if it can."""
        if self._gradient is not None:
            return "its gradient is a function of its own, which runs its own forward"
        return "" if self._by_hand is None else "loss and gradient are one function"

    def value(self, params: Primals) -> float:
        with self._expect_unmodified(placed := self.place(params)):
            return self.forward(placed).loss.item()

    def value_and_gradient(self, params: Primals) -> tuple[float, dict[str, Array | None]]:
        value, gradient = self._evaluated(placed := self.place(params))
        if self.plain is not None and not self._is_looked_at:
            self._is_looked_at = True
            self._expect_same_bytes(placed, params)
        return value, self.fetch(gradient)

    def perturbed(
        self, params: Primals, errors: RoundingErrors, *, runs: int, seed: Sequence[int], gradients: bool = True
    ) -> Iterator[tuple[float, dict[str, Array | None]]]:
        """Each run op by op, also of what is compiled otherwise, after one without errors, whose decisions they take. A
        run that raises, as it may where errors take it out of the loss's domain, raises UnsupportedError."""
        rounding = Rounding(errors, seed)

        def run(how: AbstractContextManager[None]) -> tuple[float, Gradients]:
            placed = self.place(params)
            try:
                with how:
                    return self._evaluated(placed) if gradients else (self.forward(placed).loss.item(), {})
            except UnsupportedError:
                raise
            except Exception as error:
                raise UnsupportedError(f"with rounding errors put on its results the loss raises {error!r}") from error

        for how in (quiet(), rounding.recording())[self.written is None :]:  # the first takes a forward pass more
            with torch.random.fork_rng([self._device] if self._on_gpu else []):
                run(how)
        for _ in range(runs):
            yield self._fetched(run(rounding.everywhere()))

    def custom_rules(self, params: Primals) -> tuple[CustomRule, ...] | None:
        """Each autograd.Function, and each op of torch.library, that was applied, and whether its backward ran; what
        `torch.library.opcheck` says of the ops, once for all paths; and checkpoints that do not repeat themselves. None
        for compiled code, which runs none of them as Python, and for further derivatives."""
        if self._compiled or self.is_derived:
            return None
        seen = self._watched(params)
        return (*rules_of(seen, opcheck=self._is_plain), *not_repeating(seen))

    def _watched(self, params: Primals) -> Seen:
        """What one evaluation does; where it leaves others numbers in a leaf, once more, to see whose backward does."""
        placed = self.place(params)
        leaves = {**self._inputs, **placed}
        before = {path: bytes_of(x) for path, x in leaves.items()}
        with watching(leaves) as seen:
            self._unexpecting(placed)
        if any(before[path] != bytes_of(x) for path, x in leaves.items()) and not seen.writes.leaves:
            seen.writes = self._writes(params)
        return seen

    def _writes(self, params: Primals) -> Writes:
        placed = self.place(params)
        with watching({**self._inputs, **placed}, closely=True) as seen:
            self._unexpecting(placed)
        return seen.writes

    def captured(self, params: Primals, *, stops: bool = False) -> Graph:
        if self.plain is None:
            raise CaptureError("it has no loss of its own")
        placed = self.place(params)
        with _recording(), quiet():
            known = {**self._given, **params}
            return capture(self.plain, {**self._inputs, **placed}, known, tuple(placed), stops=stops)

    def rule_calls(self, params: Primals) -> Sequence[RuleCall]:
        """Of this gradient; where it shows none, as if it is compiled, those of the same loss run eagerly."""
        if self.is_derived:
            return ()
        with calls_of_rules() as found:
            if not self._compiled:
                self.value_and_gradient(params)
        if found or self._is_plain or self.plain is None:
            return found
        placed = self.place(params)
        with calls_of_rules() as found, _recording():
            by = {path: x.requires_grad_() for path, x in placed.items()}
            accumulated(one_number(self.plain({**self._inputs, **by})), by)
        return [replace(call, elsewhere=True) for call in found]

    def why_missing(self) -> str:
        if self._frozen:
            return INSIDE_FROZEN
        return f"the loss reads {self._closed_over}, which is not in params{OF_MODULE}" if self._closed_over else ""

    def _evaluated(self, placed: Tensors) -> tuple[float, Gradients]:
        """The loss, and the gradients on the device."""
        with self._expect_unmodified(placed):
            return self._unexpecting(placed)

    def _unexpecting(self, placed: Tensors) -> tuple[float, Gradients]:
        """The same, whatever becomes of the leaves."""
        if self._by_hand is None:
            tape = self.forward(placed) if self.written is None else self._first(placed)
            return tape.loss.item(), self._carefully(tape)
        with _recording():
            loss, gradient = self._by_hand({**self._inputs, **placed})
        return one_number(loss).item(), gradient

    def _first(self, placed: Tensors) -> Tape:
        """The forward pass that shows what the loss depends on beside its leaves: what it closes over, which is there
        in another forward pass too, and what it makes, behind which a rule may fill `.grad` and autograd look no
        further."""
        with frozen_checkpoints() as frozen:
            tape = self.forward(placed)
        self._frozen = bool(frozen)
        if others := others_in(tape.loss, tape.leaves.values()):
            again = {id(x) for x in others_in(self.forward(placed).loss, tape.leaves.values())}
            closed_over = [x for x in others if id(x) in again]
            if closed_over:
                self._closed_over = named(closed_over, self.written)
                warn_of_closed_over(self._closed_over)
            self._accumulates |= len(closed_over) < len(others)
        self.written = None
        return tape

    @contextmanager
    def _expect_unmodified(self, placed: Tensors) -> Iterator[None]:
        """Raise GradwitnessError if a leaf is written to: torch counts the writes."""
        leaves = {**self._inputs, **placed}
        before = {path: x._version for path, x in leaves.items()}
        yield
        if written := [path for path, x in leaves.items() if x._version != before[path]]:
            raise GradwitnessError(MODIFIES.format(who=self._who_writes(placed), what=", ".join(written)))

    def _expect_same_bytes(self, placed: Tensors, params: Primals) -> None:
        """Raise GradwitnessError if a leaf holds other numbers than it was given: torch does not count what `.data`,
        NumPy or a kernel writes. What the backward of a rule wrote is told with the rules."""
        inputs = {path: self._tensor(a) for path, a in self._given.items()}
        before, after = {**inputs, **self.place(params)}, {**self._inputs, **placed}
        written = [path for path, x in after.items() if bytes_of(x) != bytes_of(before[path])]
        self._inputs = inputs if written else self._inputs
        if written and (who := self._who_writes(placed)) == FUNCTION:
            raise GradwitnessError(MODIFIES.format(who=who, what=", ".join(written)))

    def _who_writes(self, placed: Tensors) -> str:
        """The rules whose backward writes to a leaf, or else the function as a whole."""
        if self._compiled:
            return FUNCTION
        primals = {path: x.detach().double().cpu().numpy() for path, x in placed.items()}
        try:
            names = list(self._writes(primals).leaves)
        except Exception:  # noqa: BLE001  # what it may raise at numbers that it wrote itself
            names = []
        return f"the backward of {', '.join(names)}" if names else FUNCTION

    def place(self, params: Primals) -> Tensors:
        with _recording():
            placed = {path: self._tensor(a) for path, a in params.items() if path not in self._unused}
            for path in self._taped:
                placed[path].requires_grad_()
            return placed

    def forward(self, placed: Tensors) -> Tape:
        with _recording(), _expect_leaves_unmodified():
            leaves = {**self._inputs, **placed}
            return Tape(one_number(self._loss(leaves)), leaves, [leaves[path] for path in self._by])

    def backward(self, tape: Tape) -> Found:
        """What is timed: nothing but autograd's call, if an evaluation before left nothing in `.grad`."""
        if self._fills:
            return self._carefully(tape)
        try:
            return torch.autograd.grad(tape.loss, tape.by, allow_unused=True)
        except RuntimeError:
            return self._carefully(tape)  # which says why

    def _carefully(self, tape: Tape) -> Gradients:
        """The same, with what rules leave in `.grad`, and None for each leaf that the loss does not reach."""
        if self._gradient is not None:
            with _recording():
                return self._gradient(tape.leaves)
        gradients: Gradients = {}
        if tape.loss.requires_grad:
            gradients = self._differentiated(tape, {path: tape.leaves[path] for path in self._by})
        return gradients if len(gradients) == len(self._paths) else dict.fromkeys(self._paths) | gradients

    def _differentiated(self, tape: Tape, by: Tensors) -> Gradients:
        """What autograd gives, which a reentrant checkpoint refuses but to `loss.backward()`."""
        if not self._accumulates:
            try:
                found, self._fills = differentiated(tape.loss, by)
                return found
            except RuntimeError as error:
                if self.is_derived:
                    raise UnsupportedError(f"torch cannot differentiate it in this way: {error}") from error
                if SECOND_TIME in str(error):
                    raise GradwitnessError(USED_UP) from error
                if not is_refused(error):
                    raise
            self._accumulates = True
            tape = self.forward(tape.leaves)  # the first is used up
        return accumulated(tape.loss, by)

    def infer(self, placed: Tensors) -> torch.Tensor:
        with torch.no_grad():
            return one_number(self._loss({**self._inputs, **placed}))

    def tangent(self, placed: Tensors, direction: Tensors) -> torch.Tensor:
        """By torch.func.jvp, which warns when it is first called."""
        point, along = ({path: x.detach() for path, x in leaves.items()} for leaves in (placed, direction))
        how, self._forwards = nullcontext() if self._forwards else quiet(), True
        with how:
            found: torch.Tensor = torch.func.jvp(
                lambda leaves: one_number(self._loss({**self._inputs, **leaves})), (point,), (along,)
            )[1]
        return found

    def forward_backward(self, placed: Tensors) -> Found:
        if self._by_hand is not None:
            with _recording():
                return self._by_hand({**self._inputs, **placed})[1]
        return self.backward(self.forward(placed))

    def wait(self, x: Any) -> None:
        if self._on_gpu:
            torch.cuda.synchronize(self._device)

    def fetch(self, gradient: Found) -> dict[str, Array | None]:
        found = dict(zip(self._by, gradient, strict=True)) if isinstance(gradient, tuple) else gradient
        return {path: self._array(g) for path, g in found.items()}

    def _fetched(self, answer: tuple[float, Gradients]) -> tuple[float, dict[str, Array | None]]:
        """On the host; no name keeps the gradients on the device while the next run begins."""
        return answer[0], self.fetch(answer[1])

    def _tensor(self, array: Array) -> torch.Tensor:
        """A copy on the device: floats in the candidate's dtype, integers and booleans as they are."""
        is_float = array.dtype.kind == "f"
        once = np.float32 if is_float and self._dtype is torch.float32 else None  # any narrower one would round twice
        tensor = torch.from_numpy(np.array(array, once, order="C"))
        return tensor.to(self._device, self._dtype if is_float else tensor.dtype)

    def _array(self, gradient: Any) -> Array | None:
        """A copy on the host: two leaves may share one gradient tensor."""
        if gradient is None:
            return None
        found = torch.as_tensor(gradient).detach()
        dense = found if found.layout is torch.strided else found.to_dense()  # an embedding's may be sparse
        wide = dense.to(_WIDER[self._host])
        return np.array(wide.numpy(force=True))  # a part of a conjugate, perhaps, or a zero that holds no numbers


@contextmanager
def _recording() -> Iterator[None]:
    """Autograd at work, whatever the caller's grad mode."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def _expect_leaves_unmodified() -> Iterator[None]:
    """torch itself refuses writes to a leaf that is differentiated: say what that means here."""
    try:
        yield
    except RuntimeError as error:
        if "leaf Variable that requires grad" not in str(error):
            raise
        raise GradwitnessError(
            "the function modifies one of its params, which belong to the caller; let it work on a copy"
        ) from error


_WIDER = {np.float64: torch.float64, np.float32: torch.float32}
