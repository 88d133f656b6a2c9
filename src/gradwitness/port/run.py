"""A port of a torch model to jax: the mapping, then values, then gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gradwitness import registry, tree
from gradwitness.dtypes import Array, find_dtype
from gradwitness.errors import GradwitnessError
from gradwitness.evidence.neighbours import draw_neighbours
from gradwitness.port.causes import Explained, explain, hypotheses, misplaced
from gradwitness.port.matching import Match, match_parameters
from gradwitness.port.report import PortReport
from gradwitness.port.values import Compared, compared, first_difference, pair, rounding_of
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Deviation, Observed, Observing
from gradwitness.report import Report
from gradwitness.run.failing import first_lines
from gradwitness.settings import dtype_names
from gradwitness.verification import verify

__all__ = ["verify_port"]

KEPT = 32  # ways of running whose values are kept


def verify_port(
    torch: Any,
    jax: Callable[[Any, Any], Any],
    *,
    jax_params: Any,
    batch: Any,
    torch_loss: Callable[[Any, Any], Any] | None = None,
    torch_params: Any = None,
    mapping: Mapping[str, Any] | None = None,
    converted: bool = False,
    allow: str | Sequence[str] = (),
    dtypes: str | Sequence[str] = "float64",
    seed: int = 0,
    jit: bool = True,
    name: str = "port",
) -> PortReport:
    """Hold a model that was ported from torch to jax against the original: its parameters, values and gradients.

    torch: a torch.nn.Module, or a `loss(params, batch)`.
    torch_loss: for a module, `loss(module, batch)`. torch_params: for a loss, its params.
    jax: `loss(params, batch)` of jax_params.
    jax_params: any pytree of floating arrays, or of the results of `jax.eval_shape`. Names and shapes count, and
    torch's values are converted into these places.
    converted: whether jax_params hold values that you have converted; each is then held against torch's as well.
    batch: nested dicts, lists or tuples of arrays; both losses get the same.
    mapping: your knowledge of the parameters, by torch's name: {"0.weight": "dense.kernel"}, or with the layout as the
    report's table names it, {"0.weight": ("dense.kernel", "transposed")}, or with a function that turns torch's array
    into jax's. The rest is guessed by name and shape.
    allow: causes that you intend, by their first words, such as "batch_norm running variance".
    dtypes: names; values are compared in the widest, gradients in each.
    seed, name: as for `verify`. jit: whether to compile jax's loss.

    Either loss may return `(loss, {name: activation})`; a module shows the outputs of its layers by itself. Values of
    the same name are compared in torch's order, and for the first that differs gradwitness looks for the cause. If the
    losses agree, `gradwitness.verify` judges both gradients, by torch's names.

    Returns a PortReport, which is falsy if something differs.

    Raises GradwitnessError if parameters do not fit together, or fit in several ways, with the `mapping=` to write.
    """
    widest = _widest(dtypes)
    ours = _observing("torch").observe(torch, loss=torch_loss, params=torch_params, dtype=widest)
    theirs = _observing("jax").observe(jax, params=jax_params, dtype=widest, jit=jit)
    problem = Problem(name, None, dict(ours.params), batch)
    if problem.complex:
        raise GradwitnessError(
            f"{', '.join(sorted(problem.complex))}: complex numbers, of which no port is compared yet: give the real "
            "and the imaginary part as two arrays"
        )
    constants = {path: np.asarray(x) for path, x in ours.constants.items()}
    shapes = {path: x.shape for path, x in (problem.primals | constants).items()}
    targets = {path: tuple(x.shape) for path, x in theirs.params.items()}
    matches = match_parameters(shapes, targets, mapping, kinds=ours.kinds, required=problem.primals)
    arrays = problem.primals | constants
    elsewhere, values, found = _differing(ours, theirs, matches, problem, constants, widest, seed)
    explained = Explained((), None, {})
    if first_difference(found) is not None:
        known = hypotheses(matches, ours.deviations(values.batch))
        explained = explain(values.compare, matches, known)
    same = next(one for one in found if one.torch == "loss").agrees
    gradients = (
        _gradients(ours, theirs, matches, constants, problem, jit=jit, dtypes=dtypes, seed=seed) if same else None
    )
    with theirs.wide():
        wrong = tuple(misplaced(matches, arrays, theirs.params)) if converted else ()
    meant = (allow,) if isinstance(allow, str) else tuple(allow)
    return PortReport(matches, wrong, tuple(found), explained, values.pairs.lonely, gradients, meant, elsewhere)


def _differing(
    ours: Observed,
    theirs: Observed,
    matches: Sequence[Match],
    problem: Problem,
    constants: Mapping[str, Array],
    dtype: str,
    seed: int,
) -> tuple[bool, _Values, list[Compared]]:
    """Whether it is at a neighbour, and the values there or at the given point.

    The neighbour is asked where all agree at the given point: biases of 0 and scales of 1 hide faults.
    """
    mapping = {match.target: match for match in matches}

    def at(primals: Mapping[str, Array]) -> tuple[_Values, list[Compared]]:
        values = _Values(ours, theirs, matches, problem.at(primals), constants, dtype, seed)
        return values, values.compare((), mapping)

    def is_usable(primals: Mapping[str, Array]) -> bool:
        return bool(np.isfinite(ours.values(primals, here[0].batch)["loss"]))

    here = at(problem.primals)
    if first_difference(here[1]) is None:
        found = draw_neighbours(problem.primals, is_usable, dtype, seed=(seed, 8))
        there = at(found[0]) if found else here
        if first_difference(there[1]) is not None:
            return True, *there
    return False, *here


def _widest(dtypes: str | Sequence[str]) -> str:
    return min((find_dtype(name) for name in dtype_names(dtypes)), key=lambda dtype: dtype.unit_roundoff).name


def _observing(framework: str) -> Observing:
    backend = registry.installed(framework)
    if not isinstance(backend, Observing):
        raise GradwitnessError(
            f"backend {framework!r} cannot look into a model: it is no gradwitness.protocol.Observing"
        )
    return backend


class _Values:
    """The values of both sides, each way of running computed once, if it can be kept."""

    def __init__(
        self,
        ours: Observed,
        theirs: Observed,
        matches: Sequence[Match],
        problem: Problem,
        constants: Mapping[str, Array],
        dtype: str,
        seed: int,
    ) -> None:
        self.ours, self.theirs, self.problem = ours, theirs, problem
        self.arrays = problem.primals | dict(constants)
        self.batch = problem.arguments(problem.leaves)[1]
        self._known: dict[Any, dict[str, Array]] = {}
        mapping = {match.target: match for match in matches}
        self.pairs = pair(self._torch(()), self._first_of_jax(mapping, dtype), matches, ours.kinds, constants)
        again = ours.values(problem.primals, self.batch)
        if not all(np.array_equal(x, again[name], equal_nan=True) for name, x in self._torch(()).items()):
            raise GradwitnessError(
                "the torch loss gives two answers to equal calls, so there is no value to compare with: put dropout to "
                "rest by module.eval(), and seed all random numbers"
            )
        leaves = {path: problem.leaves[path] for path in tree.flatten(problem.batch, "batch")}
        self.floors = rounding_of(
            lambda params, moved: ours.values(params, tree.rebuild(problem.batch, moved, "batch")),
            problem.primals,
            leaves,
            dtype,
            seed,
        )

    def compare(self, deviations: Sequence[Deviation], matches: Mapping[str, Match]) -> list[Compared]:
        return compared(self.pairs, self._torch(deviations), self._jax(matches), self.floors)

    def _torch(self, deviations: Sequence[Deviation]) -> dict[str, Array]:
        key = tuple(deviation.text for deviation in deviations)
        return self._once(key, lambda: self.ours.values(self.problem.primals, self.batch, deviations))

    def _first_of_jax(self, matches: Mapping[str, Match], dtype: str) -> dict[str, Array]:
        try:
            return self._jax(matches)
        except Exception as error:
            made = "\n".join(f"  {m.piece.label} {m.piece.shape} -> {t} {m.shape}, {m.how}" for t, m in matches.items())
            raise GradwitnessError(
                f"the jax loss raises, in {dtype}, on torch's parameters: {first_lines(error)}. It got\n{made}\n"
                "If one of these is wrong, say so by mapping=. If a dtype is: let it follow the parameters' "
                '(param_dtype= of a flax cell), or give dtypes="float32"'
            ) from error

    def _jax(self, matches: Mapping[str, Match]) -> dict[str, Array]:
        def run() -> dict[str, Array]:
            with self.theirs.wide():
                params = {target: match.convert(self.arrays) for target, match in matches.items()}
            return self.theirs.values(params, self.batch)

        return self._once(tuple((m.piece.label, target, m.how) for target, m in matches.items()), run)

    def _once(self, key: Any, run: Callable[[], dict[str, Array]]) -> dict[str, Array]:
        """Each way of running once, as long as it is kept: all activations of a large model take room."""
        if key not in self._known:
            if len(self._known) >= KEPT:
                del self._known[next(iter(self._known))]
            self._known[key] = run()
        return self._known[key]


def _gradients(
    ours: Observed,
    theirs: Observed,
    matches: Sequence[Match],
    constants: Mapping[str, Array],
    problem: Problem,
    *,
    jit: bool,
    **how: Any,
) -> Report:
    """Both candidates by torch's names: jax's gets torch's parameters and converts them, and is differentiated through
    that."""

    def converted(params: Any, batch: Any) -> Any:
        dtype = next(iter(params.values())).dtype
        arrays = {**{path: x.astype(dtype) for path, x in constants.items()}, **params}
        return theirs.loss({match.target: match.convert(arrays) for match in matches}, batch)

    candidates = {"torch": Candidate("torch", ours.loss), "jax": Candidate("jax", converted, options={"jit": jit})}
    return verify(candidates, dict(ours.params), problem.batch, name=problem.name, **how)
