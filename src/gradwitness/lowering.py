"""From a candidate to callables of leaves by path, native to a framework.

A graph is lowered: its source is executed over the framework's own ops. A user's own functions are
called with params and batch as they expect them.
"""

from __future__ import annotations

import functools
import linecache
import math
import operator
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, pairwise
from typing import Any

from gradwitness import tree
from gradwitness.complex_leaves import is_complex, split
from gradwitness.dtypes import DTYPES, Array
from gradwitness.errors import GradwitnessError, NotOneNumberError, UnsupportedError
from gradwitness.graph import Graph, Node, shapes_of
from gradwitness.ops import OPS
from gradwitness.problem import COTANGENT, Candidate, Derived, Problem

__all__ = [
    "Implementation",
    "LossOfLeaves",
    "expect_one_number",
    "expect_one_output",
    "expect_unmodified",
    "implement",
    "in_segments",
    "lower",
    "reduction_over_examples",
    "runnable",
]

Leaves = Mapping[str, Any]
LossOfLeaves = Callable[[Leaves], Any]
READ_ONLY = ("read-only", "WRITEABLE")  # NumPy's words
_serial = count()


@dataclass(frozen=True)
class Implementation:
    """A candidate as an adapter runs it; every callable takes the framework's arrays by path.

    loss: gives the framework's scalar. value_and_gradient, gradient: None unless written by hand; a
    gradient is a dict by path, None for a leaf that the user's function left out. inputs: the leaves
    that it reads beside the differentiated ones. reaching: the differentiated leaves that it reads.
    """

    loss: LossOfLeaves
    inputs: dict[str, Array]
    reaching: tuple[str, ...]
    value_and_gradient: Callable[[Leaves], tuple[Any, dict[str, Any]]] | None = None
    gradient: Callable[[Leaves], dict[str, Any]] | None = None


def implement(
    candidate: Candidate,
    problem: Problem,
    lower: Callable[[Graph], LossOfLeaves],
    *,
    ready: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda loss: loss,
    conjugates: bool = False,
) -> Implementation:
    """The candidate's functions, of leaves by path. Of what is Derived, those of its loss, with directions and
    the like among its inputs: it is the adapter that takes the derivative.

    lower: the backend's own. ready: what the backend makes of a loss before it runs it (compiling it, say).
    conjugates: whether its users' gradient by a complex a + ib is dL/da - i dL/db, and not dL/da + i dL/db.
    """
    if isinstance(candidate.loss, Derived):
        plain = implement(replace(candidate, loss=candidate.loss.loss), candidate.loss.problem, lower, ready=ready)
        others = {path: x for path, x in problem.leaves.items() if path not in problem.differentiated}
        return replace(plain, inputs=plain.inputs | others)
    graph = problem.graph if candidate.loss is None and problem.loss is not None else candidate.loss
    if isinstance(graph, Graph):
        loss, inputs = ready(lower(graph)), problem.inputs(graph)
        reaching = tuple(path for path in problem.differentiated if path in graph.leaves)
    else:
        loss, reaching = _contracted(_native(candidate, problem, ready), problem), problem.differentiated
        inputs = {path: leaf for path, leaf in problem.leaves.items() if path not in reaching}
    if not candidate.is_written_by_hand:
        return Implementation(loss, inputs, reaching)
    return Implementation(loss, inputs, reaching, *_by_hand(candidate, problem, loss, conjugates=conjugates))


def _contracted(loss: LossOfLeaves, problem: Problem) -> LossOfLeaves:
    """The loss as one number: the sum of its elements, each times that of the problem's cotangent, if it has one."""
    if problem.cotangent is None:
        return loss

    def contracted(leaves: Leaves) -> Any:
        outputs = tree.flatten({COTANGENT: loss(leaves)}, COTANGENT)
        for path in problem.weights:  # of fewer examples than the problem's, perhaps
            value, shape = outputs.pop(path, None), tuple(leaves[path].shape)
            if tuple(getattr(value, "shape", ())) != shape or value is None:
                raise GradwitnessError(
                    f"the {path} has shape {shape}, the loss returned {_described(value)}: every candidate must return "
                    "an array of that shape"
                )
            outputs[path] = (value * leaves[path]).sum()
        if others := [path for path in outputs if path not in problem.weights]:
            raise GradwitnessError(f"the loss returned {', '.join(others)} as well, for which there is no cotangent")
        return functools.reduce(operator.add, outputs.values())

    return contracted


def _described(value: Any) -> str:
    if value is None:
        return "nothing there"
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" if shape is None else f"an array of shape {tuple(shape)}"


def _native(candidate: Candidate, problem: Problem, ready: Callable[..., Callable[..., Any]]) -> LossOfLeaves:
    """The user's loss; the value of `value_and_gradient` where there is no other."""
    if callable(candidate.loss):
        native = ready(candidate.loss)
        return lambda leaves: native(*problem.arguments(leaves))
    both = candidate.value_and_gradient
    if both is None:
        raise GradwitnessError(
            f"a candidate on {candidate.backend} has no loss: give Candidate({candidate.backend!r}, loss"
            f"{', gradient=...' if candidate.is_written_by_hand else ''})"
        )
    return lambda leaves: _pair(both(*problem.pullback_arguments(leaves)))[0]


def _by_hand(
    candidate: Candidate, problem: Problem, loss: LossOfLeaves, *, conjugates: bool
) -> tuple[Callable[[Leaves], tuple[Any, dict[str, Any]]], Callable[[Leaves], dict[str, Any]]]:
    """(value_and_gradient, gradient), the one made from the other where only one was given."""
    alone, both = candidate.gradient, candidate.value_and_gradient
    by_path = functools.partial(_by_path, problem, conjugates=conjugates)

    def together(leaves: Leaves) -> tuple[Any, dict[str, Any]]:
        if both is None:
            value = loss(leaves)
            expect_one_number(tuple(getattr(value, "shape", ())))
            return value, gradient(leaves)
        value, found = _pair(both(*problem.pullback_arguments(leaves)))
        contracted = _contracted(lambda _: value, problem)(leaves)
        return contracted, by_path(found, leaves, "value_and_gradient")

    def gradient(leaves: Leaves) -> dict[str, Any]:
        if alone is None:
            return together(leaves)[1]
        return by_path(alone(*problem.pullback_arguments(leaves)), leaves, "gradient")

    return together, gradient


def _pair(result: Any) -> tuple[Any, Any]:
    if isinstance(result, tuple | list) and len(result) == 2:
        return result[0], result[1]
    raise GradwitnessError(
        f"value_and_gradient(params, batch) must return (value, gradient), got {type(result).__name__}"
    )


def _by_path(problem: Problem, gradient: Any, leaves: Leaves, name: str, *, conjugates: bool) -> dict[str, Any]:
    """The tree that a user's function returned, by path: what was asked for. Raises GradwitnessError for a path that
    is no leaf's, and for what is no array of real numbers as fine as its leaf's."""
    given = _of_parts({} if gradient is None else tree.flatten(gradient, "params"), problem, conjugates=conjugates)
    if not given or not set(given) <= set(problem.leaves):
        raise GradwitnessError(
            f"{name}(params, batch) must return a gradient for each of {', '.join(problem.differentiated)}, "
            f"in a dict shaped like params; it returned {_returned(gradient, given, problem)}"
        )
    found = {path: given.get(path) for path in problem.differentiated}
    for path, one in found.items():
        _expect_dtype(path, one, leaves[path])
    return found


def _of_parts(given: Mapping[str, Any], problem: Problem, *, conjugates: bool) -> dict[str, Any]:
    """Gradients by complex leaves as those by their parts."""
    found: dict[str, Any] = {}
    for path, one in given.items():
        if path not in problem.complex:
            found[path] = one
            continue
        if one is not None and not is_complex(one):
            raise GradwitnessError(
                f"the gradient of {path} has dtype {getattr(one, 'dtype', type(one).__name__)}, its parameter is "
                f"complex: give dL/da {'-' if conjugates else '+'} i dL/db, by the parts of a + ib"
            )
        found |= split(path, one, conjugate=conjugates)
    return found


def _returned(gradient: Any, given: Mapping[str, Any], problem: Problem) -> str:
    """What was returned instead of a gradient for each leaf."""
    if not isinstance(gradient, Mapping | list | tuple):
        return type(gradient).__name__
    for path in problem.leaves:
        if path not in given and any(name.startswith(f"{path}.") for name in given):
            return f"a list, tuple or dict for {path}: give an array, of the framework or of NumPy"
    return ", ".join(given) or "nothing"


def _expect_dtype(path: str, gradient: Any, leaf: Any) -> None:
    """Raise GradwitnessError for integers, complex numbers, and fewer digits than the leaf's; more do no harm."""
    if not hasattr(gradient, "dtype") or not hasattr(leaf, "dtype"):
        return
    got, expected = (str(x.dtype).removeprefix("torch.") for x in (gradient, leaf))
    if got == expected or (got in DTYPES and DTYPES[got].unit_roundoff <= DTYPES[expected].unit_roundoff):
        return
    raise GradwitnessError(f"the gradient of {path} has dtype {got}, its parameter {expected}: give it in that dtype")


def expect_one_output(value: Any) -> None:
    """Raise NotOneNumberError for a tuple, a list or a dict of arrays."""
    if isinstance(value, Mapping | list | tuple):
        raise NotOneNumberError(shapes_of(value))


def expect_one_number(shape: tuple[int, ...]) -> None:
    """Raise NotOneNumberError unless a loss of this shape is one number."""
    if math.prod(shape) != 1:
        raise NotOneNumberError(tuple(shape))


@contextmanager
def expect_unmodified() -> Iterator[None]:
    """Raise GradwitnessError where NumPy refuses a write to what a function was given to read."""
    try:
        yield
    except ValueError as error:
        if not any(words in str(error) for words in READ_ONLY):
            raise
        raise GradwitnessError(
            f"{error}: the function modifies its params or batch, which belong to the caller; let it work on a copy"
        ) from error


def reduction_over_examples(problem: Problem, value: Callable[[Mapping[str, Array]], float], unit: float) -> str:
    """ "sum" or "mean": what the loss is of the losses of single examples, by its values.

    value: the loss at leaves by path, at the unit roundoff `unit`. Raises UnsupportedError where it is neither.
    """
    paths, count = problem.by_example, problem.examples
    if not paths:
        raise UnsupportedError("the batch has no array of examples")
    whole = value(problem.leaves)
    try:
        singles = [
            value({**problem.leaves, **{path: problem.leaves[path][i : i + 1] for path in paths}}) for i in range(count)
        ]
    except Exception as error:
        raise UnsupportedError(f"the loss takes no single example ({type(error).__name__})") from error
    total, reach = math.fsum(singles), math.sqrt(unit) * math.fsum(map(abs, singles))  # far above rounding
    for name, number in (("sum", total), ("mean", total / count)):
        if abs(whole - number) <= (reach if name == "sum" else reach / count):
            return name
    raise UnsupportedError(
        f"the loss is neither the sum nor the mean of the losses of its {count} examples: it is {whole:.6g}, "
        f"and they add up to {total:.6g}"
    )


def runnable(graph: Graph, known: Collection[str]) -> Graph:
    """The graph in ops that are `known`: a user's own op that is not, and has a definition, is put in its place.

    Raises UnsupportedError naming the ops that are lacking.
    """
    while lacking := [name for name in graph.op_names if name not in known]:
        defined = [name for name in lacking if name in OPS and OPS[name].origin and OPS[name].definition]
        if not defined:
            raise UnsupportedError(f"ops that this backend lacks: {', '.join(lacking)}")
        graph = graph.expanded(defined)
    return graph


def in_segments(
    graph: Graph,
    functions: Mapping[str, Callable[..., Any]],
    count: int,
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> Callable[[Mapping[str, Any]], Any]:
    """`loss(leaves) -> scalar` as `lower` gives it, but run in so many segments of about as many ops each.

    wrap: what is made of each segment, a function of arrays that gives a tuple of them: a checkpoint, say, which keeps
    nothing of what is inside (Chen, Xu, Zhang and Guestrin, arXiv:1604.06174).
    """
    graph = runnable(graph, functions)
    steps = [node for node in graph.nodes if node.op not in ("leaf", "literal")]
    bounds = [round(number * len(steps) / count) for number in range(count + 1)]
    segments = [_Segment.of(graph, steps, start, stop) for start, stop in pairwise(bounds) if start < stop]
    runs = [wrap(segment.run(functions)) for segment in segments]

    def loss(leaves: Mapping[str, Any]) -> Any:
        values = {node.id: leaves[path] for path, node in graph.leaves.items()}
        for segment, run in zip(segments, runs, strict=True):
            values |= zip(segment.gives, run(*(values[number] for number in segment.takes)), strict=True)
        return values[graph.output.id]

    return loss


@dataclass(frozen=True)
class _Segment:
    """Steps of a graph, by the ids of what they take from before and give to those behind."""

    steps: Sequence[Node]
    takes: tuple[int, ...]
    gives: tuple[int, ...]

    @classmethod
    def of(cls, graph: Graph, steps: Sequence[Node], start: int, stop: int) -> _Segment:
        inside = {node.id for node in steps[start:stop]}
        read = {i.id for node in steps[start:stop] for i in node.inputs if i is not None and i.op != "literal"}
        later = {i.id for node in steps[stop:] for i in node.inputs if i is not None} | {graph.output.id}
        return cls(steps[start:stop], tuple(sorted(read - inside)), tuple(sorted(inside & later)))

    def run(self, functions: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
        def run(*taken: Any) -> tuple[Any, ...]:
            values = dict(zip(self.takes, taken, strict=True))
            for node in self.steps:
                values[node.id] = _executed(node, values, functions)
            return tuple(values[number] for number in self.gives)

        return run


def _executed(node: Node, values: Mapping[int, Any], functions: Mapping[str, Callable[..., Any]]) -> Any:
    operands: list[Any] = [
        None if i is None else i.attributes["value"] if i.op == "literal" else values[i.id] for i in node.inputs
    ]
    if node.op == "output":
        return operands[0][node.attributes["position"]]
    arguments = [operands] if OPS[node.op].variadic else operands
    return functions[node.op](*arguments, **node.attributes)


def lower(graph: Graph, functions: Mapping[str, Callable[..., Any]]) -> Callable[[Mapping[str, Any]], Any]:
    """`loss(leaves) -> scalar`, in which op `name` is `functions[name]`.

    `leaves` maps each path of `graph.leaves` to the framework's own array. Straight-line code, so
    that a framework's compiler sees what a user would have written. Raises UnsupportedError naming
    the ops that `functions` lacks.
    """
    leaves, graph = graph.leaves, runnable(graph, functions)
    if made := [path for path in graph.leaves if path not in leaves]:
        raise UnsupportedError(f"a definition makes arrays ({', '.join(made)}): give this backend an implementation")
    source = graph.source(free=True)
    filename = f"<gradwitness graph {next(_serial)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)  # for tracebacks
    namespace: dict[str, Any] = {name: functions[name] for name in graph.op_names}
    namespace |= {"inf": math.inf, "nan": math.nan}
    exec(compile(source, filename, "exec"), namespace)  # noqa: S102  # our own source: Graph.source() wrote it
    loss: Callable[[Mapping[str, Any]], Any] = namespace.pop("loss")  # no circle, so that it goes with its last user
    weakref.finalize(loss, linecache.cache.pop, filename, None)
    return loss
