"""The backend "torch": eager ops, differentiated by autograd."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial, wraps
from typing import Any

from gradwitness import lowering
from gradwitness.arithmetic import Sums
from gradwitness.errors import UnsupportedError
from gradwitness.graph import Graph
from gradwitness.lowering import implement
from gradwitness.ops import BUILT_IN
from gradwitness.problem import Candidate, Derived, Problem
from gradwitness.protocol import Capabilities, Extensible, Observed, Prepared, Script, expect_options, expect_supported
from gradwitness.training import Watcher
from gradwitness_torch.quiet import quiet

__all__ = ["TorchBackend"]

Loss = Callable[[Mapping[str, Any]], Any]


def _quietly(loss: Loss) -> Loss:
    """Dynamo warns of complex leaves, as these are made of their parts, whenever it compiles anew."""

    @wraps(loss)
    def silent(leaves: Any) -> Any:
        with quiet():
            return loss(leaves)

    return silent


class TorchBackend(Extensible):
    """torch's native ops, run one by one."""

    name = "torch"
    capabilities = Capabilities(
        dtypes=("float64", "float32", "float16", "bfloat16"),
        ops=BUILT_IN,
        requires=("torch",),
        install='pip install "gradwitness[torch]"',
        native=True,
        options=("segments",),
        paths=(
            "eager",
            "backward",
            "torch.func.grad",
            "torch.compile",
            "torch.compile(grad)",
            "vmap",
            "checkpoint",
            "non-contiguous",
            "channels-last",
            "strided cotangents",
        ),
        compiled_paths=("torch.compile", "torch.compile(grad)"),
        ways={
            "jvp": ("torch.func.jvp",),
            "vjp": ("torch.func.vjp",),
            "hvp": ("twice", "through jvp", "by jvp"),
            "hessian": ("torch.func.hessian", "autograd.functional.hessian"),
            "per-example": ("vmap", "one by one"),
        },
        sums={
            ("conv2d", "float32"): Sums(1 / 3),  # oneDNN's gradients of weight and bias
            ("conv2d", "float64"): Sums(1 / 3),
            ("matmul", "float32"): Sums(0.5, free=24),  # term by term where the result is narrow
            ("matmul", "float64"): Sums(0.5, free=24),
        },
        composed=frozenset({"one_hot", "dropout"}),  # F.one_hot refuses labels out of range, F.dropout draws its mask
    )

    def watches(self, target: Any) -> bool:
        """Whether it is a module; if torch is not imported, nothing is."""
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(target, torch.nn.Module)

    def watcher(self, target: Any, every: int) -> Watcher:
        from gradwitness_torch.watching import TorchWatcher

        return TorchWatcher(target, every)

    def devices(self) -> list[str]:
        """ "cpu", and "cuda" where a GPU can be used."""
        with quiet():
            import torch

            return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

    def settings(self, precision: str) -> dict[str, str]:
        """torch's precision settings as they stand inside `precision(precision)`."""
        with self.precision(precision):
            from gradwitness_torch.precision import settings

            return settings()

    def precision(self, precision: str) -> AbstractContextManager[None]:
        """Holds "highest": no TF32, no reduced-precision sums. "default" leaves the caller's settings alone."""
        if precision not in ("default", "highest"):
            raise UnsupportedError(f'precision must be "default" or "highest", got {precision!r}')
        if precision == "default":
            return nullcontext()
        with quiet():
            from gradwitness_torch.precision import highest
        return highest()

    def lower(self, graph: Graph, dtype: str = "float64") -> Loss:
        """`loss(leaves) -> scalar tensor`. dtype is that of the floats which the graph makes from labels and masks."""
        with quiet():
            from gradwitness_torch.functions import functions
        return lowering.lower(graph, {**functions(dtype), **self.own_ops})

    def _checkpointed(self, graph: Graph, dtype: str, segments: int) -> Loss:
        with quiet():
            from torch.utils.checkpoint import checkpoint

            from gradwitness_torch.functions import functions
        wrap = partial(partial, partial(checkpoint, use_reentrant=False))
        return lowering.in_segments(graph, {**functions(dtype), **self.own_ops}, segments, wrap)

    def prepare(self, candidate: Candidate, problem: Problem, *, dtype: str, device: str) -> Prepared:
        """The candidate's own loss, or its graph or the problem's in native ops, along the candidate's path.

        Raises UnsupportedError for a dtype or device, or where the path does not apply; UnknownName for an option.
        """
        expect_supported(self, dtype, device)
        expect_options(self, candidate)
        with quiet():
            from gradwitness_torch.paths import PATHS, along
            from gradwitness_torch.prepared import TorchPrepared

            started = time.perf_counter()
            path = PATHS[candidate.path] if candidate.path else None
            ready = path.ready if path else partial(self._ready, options=candidate.options)
            lower = partial(self.lower, dtype=dtype)
            if segments := candidate.options.get("segments"):
                lower = partial(self._checkpointed, dtype=dtype, segments=segments)
            implementation = implement(candidate, problem, lower, ready=ready)
            if problem.complex:
                implementation = replace(implementation, loss=_quietly(implementation.loss))
            if isinstance(candidate.loss, Derived):
                from gradwitness_torch.derivatives import derived

                implementation = derived(implementation, candidate.loss, problem.differentiated)
            if path:
                implementation = along(path, implementation, candidate, problem, dtype=dtype, device=device)
            compiled = self.capabilities.compiles_along(candidate.path)
            prepared = TorchPrepared(
                implementation,
                problem.differentiated,
                dtype=dtype,
                device=device,
                way=candidate.path,
                compiled=compiled,
                accumulates=path is not None and path.accumulates,
            )
            if compiled:
                prepared.value_and_gradient(problem.primals)
            prepared.setup_seconds = time.perf_counter() - started
            if callable(candidate.loss) or (candidate.loss is None and problem.loss is None):
                prepared.plain = implement(candidate, problem, self.lower).loss
            prepared.is_derived = isinstance(candidate.loss, Derived)
            prepared.written = candidate.loss if callable(candidate.loss) else None
        return prepared

    def observe(
        self, model: Any, *, loss: Any = None, params: Any = None, dtype: str = "float64", jit: bool = True
    ) -> Observed:
        """A module and its loss, or a loss and its params, that show their activations. jit means nothing here."""
        with quiet():
            from gradwitness_torch.observing import observed
        return observed(model, loss, params, dtype)

    def script(self, dtype: str) -> Script:
        """What a script without gradwitness runs."""
        with quiet():
            from gradwitness_torch import standalone
            from gradwitness_torch.functions import functions
        ops = {**functions(dtype), **self.own_ops}
        return Script(standalone.value, self._gradient_of(standalone), standalone.by_hand, ops)

    def _gradient_of(self, standalone: Any) -> Callable[..., Any]:
        """How a loss is differentiated there."""
        found: Callable[..., Any] = standalone.gradient
        return found

    def _ready(self, loss: Callable[..., Any], *, options: Mapping[str, Any]) -> Callable[..., Any]:
        """What is run for a loss: here, itself."""
        return loss
