"""The backend "jax": one jitted value_and_grad per candidate."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from gradwitness import lowering
from gradwitness.arithmetic import Sums
from gradwitness.errors import UnsupportedError
from gradwitness.graph import Graph
from gradwitness.lowering import implement
from gradwitness.ops import BUILT_IN, OPS
from gradwitness.problem import Candidate, Derived, Problem
from gradwitness.protocol import Capabilities, Extensible, Observed, Prepared, Script, expect_options, expect_supported
from gradwitness.training import Watcher
from gradwitness_jax.quiet import quiet

__all__ = ["JaxBackend"]

Loss = Callable[[Mapping[str, Any]], Any]

# jax.nn and jax.numpy have no function for these in the requested dtype: what flax and optax users run.
COMPOSED = (
    "hardtanh",
    "linear",
    "avg_pool2d",
    "layer_norm",
    "rms_norm",
    "batch_norm",
    "lstm_cell",
    "gru_cell",
    "scaled_dot_product_attention",
    "dropout",
    "mse",
    "huber",
    "cross_entropy",
    "binary_cross_entropy_with_logits",
)


class JaxBackend(Extensible):
    """jax.nn and jax.lax, or the jnp compositions of flax and optax, under jit."""

    name = "jax"
    capabilities = Capabilities(
        dtypes=("float64", "float32", "float16", "bfloat16"),
        ops=BUILT_IN,
        requires=("jax", "jaxlib"),
        install='pip install "gradwitness[jax]"',
        composed=frozenset(COMPOSED),
        options=("jit", "segments"),
        paths=("eager", "jax.jit(grad)", "jax.grad(jit)", "vmap", "checkpoint"),
        native=True,
        sums={
            ("sum", "bfloat16"): Sums(0.5),  # XLA on the CPU adds cotangents one by one, in 16 bits
            ("sum", "float16"): Sums(0.5),
            ("conv2d", "bfloat16"): Sums(0.5),
            ("conv2d", "float16"): Sums(0.5),
            ("conv2d", "float32"): Sums(1 / 3),
            ("conv2d", "float64"): Sums(1 / 3),
            ("matmul", "float32"): Sums(0.5, free=24),  # in blocks, but not with a vector
            ("matmul", "float64"): Sums(0.5, free=24),
        },
        ways={
            "jvp": ("jax.jvp", "jax.linearize"),
            "vjp": ("jax.vjp",),
            "hvp": ("twice", "through jvp", "by jvp"),
            "hessian": ("jax.hessian",),
            "per-example": ("vmap", "one by one"),
        },
        flushes=("float64", "float32", "bfloat16"),  # XLA on the CPU
    )

    def watches(self, target: Any) -> bool:
        """Whether it is a function, plain or compiled; if jax is not imported, nothing is."""
        is_compiled = callable(target) and hasattr(target, "lower")
        return "jax" in sys.modules and (inspect.isroutine(target) or isinstance(target, partial) or is_compiled)

    def watcher(self, target: Any, every: int) -> Watcher:
        from gradwitness_jax.watching import JaxWatcher

        return JaxWatcher(target, every)

    def devices(self) -> list[str]:
        """ "cpu", and "cuda" where a GPU can be used."""
        with quiet():
            import jax

            try:
                return ["cpu", "cuda"] if jax.devices("gpu") else ["cpu"]
            except RuntimeError:  # "Unknown backend: 'gpu' requested"
                return ["cpu"]

    def settings(self, precision: str) -> dict[str, str]:
        """jax's precision settings as they stand inside `precision(precision)`."""
        with self.precision(precision):
            import jax

            held = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]  # added at run time
            return {"jax_default_matmul_precision": str(held)}

    def precision(self, precision: str) -> AbstractContextManager[None]:
        """Holds the default matmul precision at "highest". "default" leaves the caller's setting alone."""
        if precision not in ("default", "highest"):
            raise UnsupportedError(f'precision must be "default" or "highest", got {precision!r}')
        if precision == "default":
            return nullcontext()
        with quiet():
            import jax

        held: AbstractContextManager[None] = jax.default_matmul_precision("highest")
        return held

    def lower(self, graph: Graph, dtype: str = "float64") -> Loss:
        """`loss(leaves) -> scalar array`. dtype is that of the floats which the graph makes from labels and masks."""
        with quiet():
            from gradwitness_jax.functions import functions
        return lowering.lower(graph, {**functions(dtype), **self.own_ops})

    def _checkpointed(self, graph: Graph, dtype: str, segments: int) -> Loss:
        with quiet():
            import jax

            from gradwitness_jax.functions import functions
        return lowering.in_segments(graph, {**functions(dtype), **self.own_ops}, segments, jax.checkpoint)

    def script(self, dtype: str) -> Script:
        """What a script without gradwitness runs."""
        with quiet():
            from gradwitness_jax import standalone
            from gradwitness_jax.functions import functions
        ops = {**functions(dtype), **self.own_ops}
        return Script(standalone.value, standalone.gradient, standalone.by_hand, ops)

    def prepare(self, candidate: Candidate, problem: Problem, *, dtype: str, device: str) -> Prepared:
        """The candidate's own loss, or its graph or the problem's, along the candidate's path. Without one it
        is compiled, unless its options say {"jit": False}.

        Raises UnsupportedError for a dtype or device, or where the path does not apply; UnknownName for an option.
        """
        expect_supported(self, dtype, device)
        expect_options(self, candidate)
        with quiet():
            from gradwitness_jax.paths import PATHS, Case
            from gradwitness_jax.prepared import JaxPrepared

            started = time.perf_counter()
            lower = partial(self.lower, dtype=dtype)
            if segments := candidate.options.get("segments"):
                lower = partial(self._checkpointed, dtype=dtype, segments=segments)
            implementation = implement(candidate, problem, lower, conjugates=True)
            if isinstance(candidate.loss, Derived):
                from gradwitness_jax.derivatives import derived

                implementation = derived(implementation, candidate.loss, problem.differentiated)
            jit, both = bool(candidate.options.get("jit", True)), None
            if candidate.path:
                path = PATHS[candidate.path]
                jit, both = path.jit, path.both and path.both(Case(implementation.loss, problem, dtype))
            prepared = JaxPrepared(implementation, problem.primals, dtype=dtype, device=device, jit=jit, both=both)
            prepared.setup_seconds = time.perf_counter() - started
            prepared.of_vocabulary = _is_of_vocabulary(candidate, problem)
        return prepared

    def observe(
        self, model: Any, *, loss: Any = None, params: Any = None, dtype: str = "float64", jit: bool = True
    ) -> Observed:
        """A loss and its params, any pytree. loss= is for modules, which jax does not have. jit: compile it."""
        if loss is not None:
            raise UnsupportedError("a jax model is its loss(params, batch) with its params; it takes no other loss")
        with quiet():
            from gradwitness_jax.observing import ObservedLoss
        return ObservedLoss(model, params, dtype=dtype, jit=jit)


def _is_of_vocabulary(candidate: Candidate, problem: Problem) -> bool:
    """Whether nothing of a user's own runs: a graph of ops that all come with gradwitness."""
    if candidate.is_written_by_hand or not (candidate.loss is None or isinstance(candidate.loss, Graph)):
        return False
    graph = problem.graph if candidate.loss is None else candidate.loss
    return not any(OPS[name].origin for name in graph.op_names)
