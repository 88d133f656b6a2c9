"""A loss as a graph: `trace` runs `loss(params, batch)` once on shapes and records its ops."""

from __future__ import annotations

import functools
import linecache
import operator
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from types import FrameType
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np

from gradwitness import tree
from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError, NotOneNumberError, ShapeError, TraceError
from gradwitness.ops.value import BOOL, FLOAT, INT, Spec, Value
from gradwitness.ops.vocabulary import OPS, Op, find_op

__all__ = [
    "COTANGENT",
    "DIRECTION",
    "LITERAL",
    "Graph",
    "Node",
    "Place",
    "Remark",
    "Tracer",
    "direction",
    "shapes_of",
    "spec_of",
    "step",
    "trace",
]

LEAF, LITERAL, OUTPUT = "leaf", "literal", "output"  # nodes that are no ops
COTANGENT = "cotangent"  # the path of the weights of an array-valued loss
STOP = "stop_gradient"  # the one op through which no derivative goes
DIRECTION, STEP = "direction.", "along."  # what the paths of directions, and of steps along them, begin with
P = ParamSpec("P")
T = TypeVar("T")


def direction(path: str) -> str:
    """The path of the leaf that holds the direction along which a leaf is differentiated."""
    return DIRECTION + path


def step(path: str) -> str:
    """The path of the leaf that says how far a leaf goes along its directions."""
    return STEP + path


class Place(NamedTuple):
    """Where an op was called. module: the qualified name of the module that called it, if any."""

    file: str
    number: int
    module: str = ""

    @property
    def brief(self) -> str:
        """Without folders and code: "layers.0.mlp (model.py:12)", or "model.py:12"."""
        line = f"{os.path.basename(self.file)}:{self.number}"
        return f"{self.module} ({line})" if self.module else line

    def __str__(self) -> str:
        place = f"{self.file}:{self.number}: {linecache.getline(self.file, self.number).strip()}"
        return f"{self.module}, {place}" if self.module else place


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One step of a graph.

    `op` names an op of the vocabulary, or is "leaf" (attribute `path`), "literal" (attribute
    `value`, a Python scalar) or "output" (attribute `position`: one result of an op with several). narrow: the dtype in
    which a captured loss computes it, if that has fewer digits than its leaves.
    """

    id: int
    op: str
    inputs: tuple[Node | None, ...]
    attributes: Mapping[str, Any]
    spec: Any  # Spec, or a tuple of Spec for an op with several results
    line: Place | None = None
    narrow: str | None = None

    @property
    def is_op(self) -> bool:
        return self.op not in (LEAF, LITERAL, OUTPUT)

    def __repr__(self) -> str:
        inputs = ", ".join("None" if n is None else f"v{n.id}" for n in self.inputs)
        return f"v{self.id} = {self.op}({inputs}) -> {self.spec}"


def _once(method: Callable[Concatenate[Graph, P], T]) -> Callable[Concatenate[Graph, P], T]:
    """A method of names whose result is kept: a graph never changes, and differences ask for the same thousands of
    times."""

    def found(graph: Graph, /, *args: P.args, **kwargs: P.kwargs) -> T:
        names: Any = (*args, *kwargs.values())
        key = (method.__name__, *map(tuple, names))
        if key not in graph._found:
            graph._found[key] = method(graph, *args, **kwargs)
        known: T = graph._found[key]
        return known

    functools.update_wrapper(found, method)
    return found


@dataclass(frozen=True)
class Remark:
    """What a capture took for granted at one line of the loss. kind: "decision", "detached" or "number"."""

    kind: str
    text: str
    line: Place | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """A loss as nodes in topological order; the last node is the scalar loss.

    nodes: every one of them reaches the loss.
    constants: arrays that the loss closed over, by leaf path.
    remarks: what a capture assumed, each with its line; empty for a traced loss.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()

    def __reduce__(self) -> Any:
        """Flat, as nodes that hold their inputs nest as deep as the graph is long."""
        flat = [
            (n.id, n.op, [i and i.id for i in n.inputs], {**n.attributes}, n.spec, n.line, n.narrow) for n in self.nodes
        ]
        return _from_flat, (flat, {**self.constants}, self.remarks)

    def is_same_as(self, other: Graph) -> bool:
        """Whether both do the same, with the same constants."""
        steps = ([(repr(node), dict(node.attributes)) for node in graph.nodes] for graph in (self, other))
        if next(steps) != next(steps) or self.constants.keys() != other.constants.keys():
            return False
        return all(np.array_equal(x, other.constants[path]) for path, x in self.constants.items())

    @property
    def output(self) -> Node:
        """The node of the loss."""
        return self.nodes[-1]

    @cached_property
    def leaves(self) -> dict[str, Node]:
        """The leaves that reach the loss, by path."""
        return {n.attributes["path"]: n for n in self.nodes if n.op == LEAF}

    @cached_property
    def op_names(self) -> tuple[str, ...]:
        """The ops used, sorted."""
        return tuple(sorted({n.op for n in self.nodes if n.is_op}))

    @cached_property
    def _found(self) -> dict[tuple[Any, ...], Any]:
        return {}

    @_once
    def descendants(self, paths: Collection[str]) -> frozenset[int]:
        """Ids of the nodes that move with these leaves, including the leaves.

        A value behind a stop_gradient does not move, as for a derivative.
        """
        reached: set[int] = set()
        for node in self.nodes:
            if node.op == LEAF:
                if node.attributes["path"] in paths:
                    reached.add(node.id)
            elif node.op != STOP and any(i is not None and i.id in reached for i in node.inputs):
                reached.add(node.id)
        return frozenset(reached)

    @_once
    def active(self, wrt: Collection[str]) -> frozenset[int]:
        """Ids of the nodes through which a cotangent flows to one of the leaves `wrt`."""
        reached: set[int] = set()
        for node in self.nodes:
            if node.op == LEAF:
                if node.attributes["path"] in wrt:
                    reached.add(node.id)
            elif node.op != STOP and _is_float(node) and any(i is not None and i.id in reached for i in node.inputs):
                reached.add(node.id)
        return frozenset(reached)

    @_once
    def decomposed(self, keep: Collection[str] = ()) -> Graph:
        """The same loss in elementary ops: fused ops expanded, except `keep`, and broadcasting made explicit."""
        fused = [op.name for op in OPS.values() if op.definition is not None and op.name not in keep]
        return self._replayed(Tracer(expand=fused, spread=True, taken=self.leaves))

    def with_literals(self, changed: Mapping[float, float]) -> Graph:
        """The same loss with other numbers in the place of some."""
        rebuild, (flat, constants, remarks) = self.__reduce__()

        def attributes_of(op: str, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
            value = attributes.get("value")
            return {"value": changed.get(value, value)} if op == LITERAL and isinstance(value, float) else attributes

        found: Graph = rebuild(
            [(number, op, inputs, attributes_of(op, a), *rest) for number, op, inputs, a, *rest in flat],
            constants,
            remarks,
        )
        return found

    @_once
    def expanded(self, names: Collection[str]) -> Graph:
        """The same loss with these fused ops replaced by their definitions."""
        return self._replayed(Tracer(expand=names, taken=self.leaves))

    @cached_property
    def unstopped(self) -> Graph:
        """The same loss, of which nothing stands still for a derivative."""
        return self._replayed(Tracer(expand=(), taken=self.leaves), stops=False)

    def _replayed(self, builder: Tracer, *, stops: bool = True) -> Graph:
        output = self.replay(builder, stops=stops)
        return replace(builder.graph(output, {**self.constants}), remarks=self.remarks)

    def replay(
        self,
        builder: Tracer,
        *,
        stops: bool = True,
        leaf: Callable[[Node], Value] | None = None,
        each: Callable[[Node, Value], Value] = lambda node, value: value,
    ) -> Value:
        """Record the same ops once more; the loss as a value of `builder`.

        stops: whether nothing goes back through a stop_gradient. leaf: what stands in the place of a leaf, each: in
        that of an op's value; by default the same.
        """
        read = leaf or (lambda node: builder.leaf(node.attributes["path"], node.spec))
        values: dict[int, Any] = {}
        for node in self.nodes:
            if node.op == LEAF:
                values[node.id] = read(node)
            elif node.op == LITERAL:
                values[node.id] = node.attributes["value"]
            elif node.op == OUTPUT:
                values[node.id] = each(node, values[_only(node).id][node.attributes["position"]])
            elif node.op == STOP and not stops:
                values[node.id] = values[_only(node).id]
            else:
                operands = [None if i is None else values[i.id] for i in node.inputs]
                builder.line, builder.narrow = node.line, node.narrow
                found = builder.apply(node.op, operands, node.attributes)
                values[node.id] = each(node, found) if isinstance(found, Value) else found
        output: Value = values[self.output.id]
        return output

    @cached_property
    def _last_uses(self) -> dict[int, list[int]]:
        """The values that are used for the last time by a node, by its id."""
        users = {i.id: node.id for node in self.nodes for i in node.inputs if i is not None and i.op != LITERAL}
        found: dict[int, list[int]] = {}
        for value, user in users.items():
            found.setdefault(user, []).append(value)
        return found

    def source(
        self,
        head: str = "loss(leaves)",
        *,
        leaves: Mapping[str, str] | None = None,
        ops: Mapping[str, str] | None = None,
        places: bool = False,
        free: bool = False,
    ) -> str:
        """The graph as a straight-line Python function of its leaves, which backends execute.

        leaves: the text to write for a leaf, by path; by default `leaves['path']`.
        ops: the text to write for an op, by name; by default its name.
        places: whether comments say which module calls an op, and where.
        free: whether each value is let go after its last use, as it would be in a loss of functions and loops.
        """
        lines, last = [f"def {head}:"], self._last_uses if free else {}
        for node in self.nodes:
            if node.op == LITERAL:
                continue
            place = f"  # {node.line.brief}" if places and node.line is not None and node.line.module else ""
            lines.append(f"    v{node.id} = {_expression(node, leaves or {}, ops or {})}{place}")
            if node.id in last:
                lines.append(f"    del {', '.join(f'v{number}' for number in last[node.id])}")
        lines.append(f"    return v{self.output.id}")
        return "\n".join(lines) + "\n"


def shapes_of(output: Any) -> Any:
    """Nested as the output."""
    if isinstance(output, Mapping):
        return {key: shapes_of(part) for key, part in output.items()}
    if isinstance(output, list | tuple):
        return [shapes_of(part) for part in output]
    return tuple(getattr(output, "shape", ()))


def _from_flat(flat: Sequence[tuple[Any, ...]], constants: Mapping[str, Array], remarks: tuple[Remark, ...]) -> Graph:
    known: dict[int | None, Node | None] = {None: None}
    nodes = []
    for number, op, inputs, attributes, spec, line, narrow in flat:
        known[number] = node = Node(number, op, tuple(known[i] for i in inputs), attributes, spec, line, narrow)
        nodes.append(node)
    return Graph(tuple(nodes), constants, remarks)


def trace(loss: Callable[[Any, Any], Any], params: Any, batch: Any, *, cotangent: Any = None) -> Graph:
    """Record `loss(params, batch)`, written over `gradwitness.ops`, as a Graph.

    params, batch: nested dicts, lists or tuples of arrays; only their shapes and dtypes count.
    cotangent: for a loss that returns an array, weights of its shape. The sum of elements times weights is then the
    loss, and the weights are a leaf "cotangent". Otherwise the loss must return a scalar (one element counts).

    Raises TraceError, which names the op, the line of the loss, and the shapes; NotOneNumberError for an array without
    a cotangent.
    """
    tracer = Tracer()
    arguments = []
    for root, structure in (("params", params), ("batch", batch)):
        leaves = {path: tracer.leaf(path, spec_of(leaf)) for path, leaf in tree.flatten(structure, root).items()}
        arguments.append(tree.rebuild(structure, leaves, root))
    try:
        output = loss(*arguments)
    except GradwitnessError:
        raise
    except Exception as error:
        there = f"\n  {tree.listed(params, batch)}" if isinstance(error, KeyError) else ""
        raise TraceError(f"{_explain_failure(error)}{there}") from error
    if cotangent is not None:
        output = _weighted(tracer, output, cotangent)
    return tracer.graph(output, {})


def _weighted(tracer: Tracer, output: Any, cotangent: Any) -> Any:
    outputs = tree.flatten({COTANGENT: output}, COTANGENT)
    parts = []
    for path, weights in tree.flatten({COTANGENT: cotangent}, COTANGENT).items():
        value = outputs.get(path)
        if not isinstance(value, Value) or value.spec.shape != weights.shape:
            got = value.spec if isinstance(value, Value) else type(value).__name__
            raise TraceError(f"the {path} has shape {weights.shape}, the loss returned {got}")
        parts.append((value * tracer.leaf(path, spec_of(weights))).sum())
    return functools.reduce(operator.add, parts)


def spec_of(array: Any) -> Spec:
    """Shape and kind of an array or scalar. Raises TraceError for anything that is not numeric."""
    array = array if hasattr(array, "dtype") and hasattr(array, "shape") else np.asarray(array)
    kind = getattr(array.dtype, "kind", "f")
    kinds = {"f": FLOAT, "V": FLOAT, "i": INT, "u": INT, "b": BOOL}
    if kind not in kinds:
        raise TraceError(
            f"cannot use an array of dtype {array.dtype}: gradwitness takes floats, integers and booleans. "
            "A list in params or batch is a list of leaves: wrap numbers in np.array(...), or join leaves by ops.stack."
        )
    return Spec(tuple(array.shape), kinds[kind])


class Tracer:
    """Records nodes. The fused ops to `expand` are replaced by their definitions as they come; `spread`: broadcasting
    becomes an op.

    `taken` are leaf paths that no constant may use. `line`, `narrow`: of the op being replayed, or captured.
    """

    def __init__(
        self, *, expand: Collection[str] | None = None, spread: bool = False, taken: Iterable[str] = ()
    ) -> None:
        self.replays, self.expand, self.spread = expand is not None, frozenset(expand or ()), spread
        self.line: Place | None = None
        self.narrow: str | None = None
        self.taken = set(taken)
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}

    def leaf(self, path: str, spec: Spec) -> Value:
        self.taken.add(path)
        return Value(self, self._add(LEAF, (), {"path": path}, spec), spec)

    def graph(self, output: Any, constants: Mapping[str, Array]) -> Graph:
        """The recorded nodes that reach `output`, which must be a scalar of this tracer's."""
        if isinstance(output, Mapping | list | tuple):
            raise NotOneNumberError(shapes_of(output), "end it in .mean() or .sum() of them all")
        if not isinstance(output, Value):
            raise TraceError(
                f"the loss must return a traced value computed by gradwitness.ops, got {type(output).__name__}. "
                "Compute the loss from params and batch with ops and Python operators, and return it."
            )
        if output.dtype != FLOAT:
            raise TraceError(f"the loss must return one floating number, got {output.spec}")
        if output.size != 1:
            raise NotOneNumberError(output.spec.shape, "end it in .mean() or .sum()")
        needed = {output.node.id}
        for node in reversed(self.nodes):
            if node.id in needed:
                needed.update(i.id for i in node.inputs if i is not None)
        nodes = tuple(n for n in self.nodes if n.id in needed)
        used = {n.attributes["path"] for n in nodes if n.op == LEAF}
        return Graph(nodes, {p: a for p, a in {**constants, **self.constants}.items() if p in used})

    def apply(self, op: str, operands: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
        declared = find_op(op)
        try:
            return self._apply(declared, self._values(declared, operands), attributes)
        except (ShapeError, TraceError) as error:
            if isinstance(error, TraceError) and error.args[0].startswith(op + ":"):
                raise
            line = self.line if self.replays else _user_line()
            raise TraceError(_explain(declared, operands, attributes, str(error), line)) from None

    def _apply(self, op: Op, operands: list[Value | None], attributes: Mapping[str, Any]) -> Any:
        specs = [None if v is None else v.spec for v in operands]
        filled = op.attributes(specs, attributes)
        result = op.rule(*specs, **filled)
        if op.definition is not None and op.name in self.expand:
            return op.definition(*operands, **filled)
        if self.spread and op.broadcasts:
            operands = [self._spread(v, result) for v in operands]
        node = self._add(op.name, tuple(None if v is None else v.node for v in operands), filled, result)
        if isinstance(result, Spec):
            return Value(self, node, result)
        return tuple(
            Value(self, self._add(OUTPUT, (node,), {"position": i}, spec), spec) for i, spec in enumerate(result)
        )

    def _spread(self, value: Value | None, result: Any) -> Value | None:
        if value is None or value.node.op == LITERAL or value.shape == result.shape:
            return value
        spread: Value = self.apply("broadcast_to", [value], {"shape": result.shape})
        return spread

    def _values(self, op: Op, operands: Sequence[Any]) -> list[Value | None]:
        kinds = {o.dtype for o in operands if isinstance(o, Value)}
        return [o if o is None else self._value(o, op, kinds) for o in operands]

    def _value(self, operand: Any, op: Op, kinds: set[str]) -> Value:
        if isinstance(operand, Value):
            if operand.builder is not self:
                raise TraceError("a value of another trace was used; a loss may use only its own params and batch")
            return operand
        array = np.asarray(operand)
        spec = spec_of(array)
        if array.ndim == 0 and op.broadcasts:
            scalar: Any = array.item()
            if spec.dtype == INT and kinds != {INT}:  # 2 * x means 2.0 * x unless x is an integer
                scalar, spec = float(scalar), Spec((), FLOAT)
            if spec.dtype == FLOAT and FLOAT not in kinds:  # no array says how wide it is, so it becomes one
                return self._constant(np.asarray(scalar), spec)
            return Value(self, self._add(LITERAL, (), {"value": scalar}, spec), spec)
        return self._constant(array, spec)

    def _constant(self, array: Array, spec: Spec) -> Value:
        """An array that the loss closed over, as a leaf of its own."""
        path = next(p for i in count() if (p := f"constant.{i}") not in self.taken)
        self.constants[path] = array.astype({FLOAT: np.float64, INT: np.int64, BOOL: np.bool_}[spec.dtype])
        return self.leaf(path, spec)

    def _add(self, op: str, inputs: tuple[Node | None, ...], attributes: Mapping[str, Any], spec: Any) -> Node:
        line = self.line if self.replays else _user_line()
        node = Node(len(self.nodes), op, inputs, attributes, spec, line, self.narrow)
        self.nodes.append(node)
        return node


_INTERNAL = (os.path.dirname(__file__) + os.sep + "ops" + os.sep, __file__)


def _user_line() -> Place | None:
    """File and line of the innermost frame outside the tracer and the ops."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_INTERNAL):
        frame = frame.f_back
    return None if frame is None else Place(frame.f_code.co_filename, frame.f_lineno)


def _explain(op: Op, operands: Sequence[Any], attributes: Mapping[str, Any], reason: str, line: Place | None) -> str:
    lines = [f"{op.name}: {reason}"]
    if line is not None:
        lines.append(f"  at {line}")
    for position, operand in enumerate(operands):
        if operand is not None:
            lines.append(f"  {op.name_of_operand(position)}: {_describe(operand)}")
    if attributes:
        lines.append("  " + ", ".join(f"{k}={v!r}" for k, v in attributes.items()))
    return "\n".join(lines)


def _explain_failure(error: Exception) -> str:
    """What the user's own code raised while it was traced, and at which of its lines."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_INTERNAL)]
    place = f"\n  at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""
    text = str(error)
    numpy = "__array_ufunc__" in text or "unexpected keyword argument 'out'" in text
    hint = ""
    if numpy:
        hint = (
            "\n  NumPy's functions cannot be traced: use those of gradwitness.ops; or give the loss with its gradient, "
            'gw.Candidate("numpy", loss, gradient=gradient).'
        )
    if Value.__name__ in text and not numpy:  # another framework's function, which says what it got
        hint = (
            "\n  A loss in a framework's own arrays is given by its backend: "
            f'gw.verify({{"{_framework(error)}": loss}}, ...).'
        )
    return f"the loss raised {type(error).__name__}: {text}{place}{hint}"


def _framework(error: Exception) -> str:
    """Whose function raised it, by what it says; torch's are the ones that say nothing of themselves."""
    return "jax" if "jax" in f"{type(error).__module__} {error}".lower() else "torch"


def _describe(operand: Any) -> str:
    if isinstance(operand, Value):
        return str(operand.spec)
    try:
        array = np.asarray(operand)
        return repr(operand) if array.ndim == 0 else str(spec_of(array))
    except (GradwitnessError, ValueError):
        return f"a {type(operand).__name__}, which is no array"


def _is_float(node: Node) -> bool:
    specs = node.spec if isinstance(node.spec, tuple) else (node.spec,)
    return any(s.dtype == FLOAT for s in specs)


def _only(node: Node) -> Node:
    (source,) = node.inputs
    assert source is not None
    return source


def _expression(node: Node, leaves: Mapping[str, str], ops: Mapping[str, str]) -> str:
    if node.op == LEAF:
        path = node.attributes["path"]
        return leaves.get(path, f"leaves[{path!r}]")
    if node.op == OUTPUT:
        return f"v{_only(node).id}[{node.attributes['position']}]"
    arguments = [_argument(i) for i in node.inputs]
    if find_op(node.op).variadic:
        arguments = [f"[{', '.join(arguments)}]"]
    arguments += [f"{name}={value!r}" for name, value in node.attributes.items()]
    return f"{ops.get(node.op, node.op)}({', '.join(arguments)})"


def _argument(node: Node | None) -> str:
    if node is None:
        return "None"
    return repr(node.attributes["value"]) if node.op == LITERAL else f"v{node.id}"
