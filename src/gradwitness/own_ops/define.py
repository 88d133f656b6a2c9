"""Defining an op, taking it back, and holding its backends against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from gradwitness import registry
from gradwitness.errors import GradwitnessError, UnknownName
from gradwitness.ops import OPS, Op, find_op
from gradwitness.ops.samples import Sample
from gradwitness.ops.vocabulary import Kink, Regions, Rounding, recorder, regions_of
from gradwitness.own_ops.expectations import (
    expect_backends,
    expect_definition,
    expect_kink,
    expect_referee,
    expect_rule,
    expect_samples,
    expect_signature,
    origin_of,
    rounding_of,
)
from gradwitness.problem import Candidate, Problem
from gradwitness.report import Report
from gradwitness.settings import Settings, dtype_names, names
from gradwitness.verification import verify_problems

__all__ = ["define_op", "forget_op", "verify_op"]

OPTIONS = ("samples", "rounding", "definition", "kink", "regions", "broadcasts", "name")


def define_op(
    shape: Callable[..., Any],
    *,
    samples: Sequence[Sample],
    rounding: str | Rounding | None = None,
    definition: Callable[..., Any] | None = None,
    kink: Kink | None = None,
    regions: Regions | None = None,
    broadcasts: bool = False,
    name: str | None = None,
    **implementations: Any,
) -> Callable[..., Any]:
    """Add an op to the vocabulary of this process, and return the function that records it in a traced loss.

    shape: the op's signature and shape rule. Positional parameters are arrays, keyword-only ones attributes. It gets a
    Spec for each array, and returns the Spec of the result, or a tuple of them. Its name is the op's, unless `name` is
    given.
    samples: calls to verify the op with, such as `sample(real(2, 3), beta=1.5)`.
    rounding: what floating point does to an elementary op, one of `ROUNDINGS`.
    definition: for a fused op, instead of rounding: the same in existing ops, a function of traced values and all
    attributes.
    kink: `bends(...)`, for an op that has two slopes somewhere.
    regions: where the op is another function.
    broadcasts: whether its arrays broadcast.
    implementations: by the backend's name. numpy: (forward, vjp), in ufuncs and matmul. `forward(*arrays,
    **attributes)` returns the result y. `vjp(g, y, *arrays, **attributes)` returns a cotangent for each array, of that
    array's shape (None for integers). For other backends: the framework's function of its arrays. torch.compile runs
    torch's. Without an implementation the definition runs, also in NumPy. An op without either is unsupported there.

    If you define the same function from the same place again (a cell of a notebook), the new op replaces the old.

    Raises GradwitnessError if something does not fit together, and then changes nothing. Each sample runs forward and
    backward, also in 256 bits.
    """
    chosen = name or str(getattr(shape, "__name__", ""))
    origin = origin_of(chosen, shape)
    given = {backend: function for backend, function in implementations.items() if function is not None}
    expect_backends(given, OPTIONS)
    op = Op(
        chosen,
        shape,
        rounding_of(chosen, rounding, definition),
        tuple(samples),
        broadcasts=broadcasts,
        definition=definition,
        kink=kink,
        regions=regions_of(kink, regions),
        origin=origin,
    )
    expect_signature(op)
    expect_samples(op)
    expect_referee(op, given)
    with _defined(op, given):
        expect_kink(op)
        expect_definition(op)
        for problem in _problems(op):
            expect_rule(op, problem)
    return recorder(op)


def forget_op(name: str) -> None:
    """Take a user's own op out of the vocabulary.

    name: the op's.

    Raises UnknownName for an op that does not exist, or is not a user's own.
    """
    own = [op.name for op in OPS.values() if op.origin]
    if name not in own:
        raise UnknownName("op of one's own", name, own or ["none"])
    del OPS[name]
    registry.extend(name, None)


def verify_op(
    op: str | Callable[..., Any],
    *,
    backends: str | Sequence[str] | None = None,
    dtypes: str | Sequence[str] = Settings.dtypes,
    seed: int = Settings.seed,
) -> Report:
    """Verify an op on its samples, with random cotangents: a problem `swish.x` for each floating array.

    op: its name, or the function that `define_op` returned. backends: all by default. dtypes, seed: as for `verify`.
    For a fused op, the candidate `definition` runs its definition, which NumPy's rule must equal.

    Raises UnknownName for an op that does not exist, GradwitnessError for one without a gradient.
    """
    from gradwitness.networks.single_ops import bundle

    found = find_op(op if isinstance(op, str) else getattr(op, "__name__", type(op).__name__))
    named = registry.backend_names() if backends is None else names(backends)
    all_at_once = [b for b in named if registry.backend(b).capabilities.compiles]  # a compilation takes seconds
    direct = {b: Candidate(b) for b in named if b not in all_at_once}
    problems = _problems(found)
    cases = [(p, direct | _by_definition(found, p)) for p in problems]
    together = [(bundle(found.name, problems), {b: Candidate(b) for b in all_at_once})] if all_at_once else []
    return verify_problems([*cases, *together], Settings(dtypes=dtype_names(dtypes), seed=seed))


def _by_definition(op: Op, problem: Problem) -> dict[str, Candidate]:
    """The op's definition as a candidate, where the interpreter has a rule beside it."""
    interpreter = registry.interpreter_name()
    if op.definition is None or op.name not in registry.backend(interpreter).capabilities.ops:
        return {}
    return {"definition": Candidate(interpreter, problem.graph.expanded((op.name,)))}


def _problems(op: Op) -> list[Problem]:
    from gradwitness.networks.single_ops import problems_of  # here, so that importing gradwitness is quick

    problems = problems_of(op)
    if not problems:
        raise GradwitnessError(f"{op.name} has no gradient: none of its samples has a floating array and result")
    return problems


@contextmanager
def _defined(op: Op, implementations: Mapping[str, Any]) -> Iterator[None]:
    """The op in the vocabulary and in the backends; as before if what follows raises."""
    earlier, before = OPS.get(op.name), registry.extend(op.name, implementations)
    OPS[op.name] = op
    try:
        yield
    except BaseException:
        if earlier is None:
            del OPS[op.name]
        else:
            OPS[op.name] = earlier
        registry.extend(op.name, before)
        raise
