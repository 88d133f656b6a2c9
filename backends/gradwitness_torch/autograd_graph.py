"""The graph that autograd keeps of a loss: which op made what, what it saved, and at which line it was called."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

__all__ = ["AutogradGraph", "Culprit", "name_of", "without_slope"]

LEAF = "torch::autograd::AccumulateGrad"
RESULTS = ("_saved_result", "_saved_output", "_saved_result0")
OPERANDS = {  # what is saved of each operand, where that is not `self` alone
    "MulBackward0": ("_saved_self", "_saved_other"),
    "DivBackward0": ("_saved_self", "_saved_other"),
    "MmBackward0": ("_saved_self", "_saved_mat2"),
    "BmmBackward0": ("_saved_self", "_saved_mat2"),
    "AddmmBackward0": ("", "_saved_mat1", "_saved_mat2"),
    "PowBackward1": ("_saved_self", "_saved_exponent"),
    "ConvolutionBackward0": ("_saved_input", "_saved_weight"),
    "NativeLayerNormBackward0": ("_saved_input", "_saved_weight"),
    "NativeBatchNormBackward0": ("_saved_input", "_saved_weight"),
}
ALONE = ("_saved_self",)
PICKING = (
    "IndexBackward0",
    "GatherBackward0",
    "SelectBackward0",
    "SliceBackward0",
    "ViewBackward0",
    "SqueezeBackward1",
    "UnsqueezeBackward0",
    "AddBackward0",
)
ROOTS = ("SqrtBackward0", "LinalgVectorNormBackward0", "NormBackward0", "NormBackward1")
LOGS = ("LogBackward0", "Log2Backward0", "Log10Backward0")
RISKY = {*ROOTS, *LOGS, "PowBackward0", "DivBackward0"}
FRAME = re.compile(r'\s*File "(?P<file>[^"]+)", line (?P<number>\d+)[^\n]*\n(?P<code>[^\n]*)')
HOME = str(Path(torch.__file__).parent)


@dataclass(frozen=True)
class Culprit:
    """Where numbers stopped being finite: origin and place as in `training.NonFinite`; line: the user's, or empty."""

    origin: str
    place: str
    line: str


def name_of(node: Any) -> str:
    """What a user calls it: "log" for LogBackward0."""
    plain = re.sub(r"Backward\d*$", "", str(node.name()).rpartition("::")[2])
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain).lower()


class AutogradGraph:
    """Of a loss that has not been differentiated yet. ops, lines: those of an earlier graph. parameters: their names by
    id."""

    def __init__(
        self, loss: torch.Tensor, ops: Sequence[str], lines: Sequence[str], parameters: Mapping[int, str]
    ) -> None:
        self.nodes = list(_forward_order(loss.grad_fn))
        self.parameters = parameters
        self.names = [str(node.name()) for node in self.nodes]
        self._lines = lines if self.names == list(ops) else ()

    @property
    def is_of_module(self) -> bool:
        """Whether a way leads from a parameter to the loss."""
        return any(node.name() == LEAF and id(node.variable) in self.parameters for node in self.nodes)

    @cached_property
    def lines(self) -> list[str]:
        """The user's line of each op, as far as anomaly mode was on."""
        return ["" if node.name() == LEAF else _line(node) for node in self.nodes]

    def line(self, node: Any) -> str:
        number = self.nodes.index(node)
        return self.lines[number] or (self._lines[number] if self._lines else "")

    def logs_of_softmax(self) -> Iterator[str]:
        """The lines of logs of what a softmax gave: all of it or some, with a number added to it, perhaps."""
        for node in self.nodes:
            if node.name() == "LogBackward0":
                source = node.next_functions[0][0]
                while source is not None and source.name() in PICKING:
                    source = source.next_functions[0][0]
                if source is not None and source.name() == "SoftmaxBackward0":
                    yield self.line(node) or "a log"

    def averaged(self) -> list[tuple[Any, float]]:
        """(a node that averages or sums, how many numbers it averages, or 1), of each that is not behind another."""
        found, waiting, seen = list[tuple[Any, float]](), [self.nodes[-1]], set[Any]()
        while waiting:
            node = waiting.pop(0)
            if node is None or node in seen:
                continue
            seen.add(node)
            count = _count(node)
            if count is None:
                waiting.extend(source for source, _ in node.next_functions)
            else:
                found.append((node, count))
        return found

    # Where numbers stop being finite

    def culprit(self) -> Culprit:
        """The first node whose result is not finite, as far as what is saved tells."""
        finite: dict[Any, bool] = {}
        for node in self.nodes:
            if (result := _result(node)) is not None:
                finite[node] = _is_finite(result)
        for node in self.nodes:
            for (source, _), operand in zip(node.next_functions, _operands(node), strict=False):
                if operand is None:
                    continue
                if source is None and not _is_finite(operand):
                    return Culprit("data", _described(node, operand), self.line(node))
                if source is not None:
                    finite.setdefault(source, _is_finite(operand))
        for node in self.nodes:
            if node.name() == LEAF and not _is_finite(node.variable):
                name = self.parameters.get(id(node.variable), "a leaf")
                return Culprit("parameter", name, "")
        found = self._first(finite)
        return Culprit("op", name_of(found), self.line(found))

    def _first(self, finite: dict[Any, bool]) -> Any:
        """The first that is known not to be finite, or before it one of which nothing is known and that is at a point
        where it is not finite, or whose operands are known to be."""
        end = next((node for node in self.nodes if finite.get(node) is False), self.nodes[-1])
        unknown = {*_unknown_before(end, finite), end}
        ordered = [node for node in self.nodes if node in unknown]
        singular = next((node for node in ordered if _is_singular(node)), None)
        if singular is not None:
            return singular
        return end if finite.get(end) is False else ordered[0]

    # Where a derivative is not finite

    def risky(self) -> list[tuple[tuple[int, ...], str]]:
        """The ops that have points without a finite derivative: the way to each from the loss, and the user's line."""
        ways: dict[Any, tuple[int, ...]] = {self.nodes[-1]: ()}
        for node in reversed(self.nodes):
            for number, (source, _) in enumerate(node.next_functions):
                if source is not None and node in ways:
                    ways.setdefault(source, (*ways[node], number))
        return [(ways[node], self.line(node)) for node in self.nodes if str(node.name()) in RISKY and node in ways]


def without_slope(loss: torch.Tensor, risky: Sequence[tuple[tuple[int, ...], str]]) -> Culprit | None:
    """The first op that a gradient comes to at a point where its derivative is not finite, among those that were found
    in an earlier graph of the same ops; None where there is none."""
    for way, line in reversed(risky):
        node = loss.grad_fn
        for number in way:
            sources = () if node is None else node.next_functions
            node = sources[number][0] if number < len(sources) else None
        if node is not None and _has_no_slope(node):
            return Culprit("op", f"the backward of {name_of(node)}", line)
    return None


def _forward_order(root: Any) -> Iterator[Any]:
    """Every node, each after those whose results it takes."""
    seen, waiting = {None}, [(root, False)]
    while waiting:
        node, is_done = waiting.pop()
        if is_done:
            yield node
        elif node not in seen:
            seen.add(node)
            waiting.append((node, True))
            waiting.extend((source, False) for source, _ in reversed(node.next_functions))


def _unknown_before(node: Any, finite: dict[Any, bool]) -> list[Any]:
    """The nodes of which nothing is known, and through which one goes back from a node."""
    found: list[Any] = []
    waiting = [source for source, _ in node.next_functions]
    while waiting:
        source = waiting.pop()
        if source is None or source in finite or source in found or source.name() == LEAF:
            continue
        found.append(source)
        waiting.extend(further for further, _ in source.next_functions)
    return found


def _saved(node: Any, name: str) -> torch.Tensor | None:
    try:
        found = getattr(node, name, None)
    except RuntimeError:  # freed by a backward pass before
        return None
    return found if isinstance(found, torch.Tensor) and found.is_floating_point() else None


def _result(node: Any) -> torch.Tensor | None:
    return next((x for name in RESULTS if (x := _saved(node, name)) is not None), None)


def _operands(node: Any) -> list[torch.Tensor | None]:
    return [_saved(node, name) if name else None for name in OPERANDS.get(str(node.name()), ALONE)]


def _is_finite(x: torch.Tensor) -> bool:
    return bool(torch.isfinite(x).all())


def _is_singular(node: Any) -> bool:
    """Whether it is at a point where its result is not finite."""
    name, x = str(node.name()), _saved(node, "_saved_self")
    if name in LOGS:
        return x is not None and bool((x <= 0).any())
    if name == "DivBackward0":
        other = _saved(node, "_saved_other")
        return other is not None and bool((other == 0).any())
    return False


def _has_no_slope(node: Any) -> bool:
    """Whether its derivative is not finite where it is: a root or a norm of 0."""
    name = str(node.name())
    if name in ROOTS:
        result = _saved(node, "_saved_result")
        return result is not None and not bool((result > 0).all())
    if name == "PowBackward0":
        x, exponent = _saved(node, "_saved_self"), getattr(node, "_saved_exponent", 1)
        return x is not None and isinstance(exponent, int | float) and exponent < 1 and bool((x <= 0).any())
    return _is_singular(node)


def _described(node: Any, operand: torch.Tensor) -> str:
    """Which examples of an operand are not finite."""
    rows = operand if operand.ndim > 1 else operand.reshape(1, -1)
    wrong = (~torch.isfinite(rows)).reshape(len(rows), -1).any(1).nonzero().reshape(-1).tolist()
    which = f"in row {', '.join(map(str, wrong[:3]))} " if operand.ndim > 1 and len(wrong) < len(rows) else ""
    return f"{which}of what goes into {name_of(node)}"


def _count(node: Any) -> float | None:
    """How many losses of examples it averages; 1 where it sums; None for any other op."""
    name = str(node.name())
    if name.startswith("MeanBackward"):
        return float(getattr(node, "_saved_self_sym_numel", 0) or 0) or None
    if name == "SumBackward0":
        return 1.0
    if not hasattr(node, "_saved_reduction"):
        return None
    if node._saved_reduction != 1:
        return 1.0
    weight = _saved(node, "_saved_total_weight")
    if weight is not None and weight.numel():
        return float(weight)
    x = _saved(node, "_saved_self")
    return None if x is None else float(x.numel())


def _line(node: Any) -> str:
    """The innermost line outside of torch at which it was called, where anomaly mode took that down."""
    stack = (node.metadata or {}).get("traceback_", ())
    frames = [found for text in stack if (found := FRAME.match(text))]
    own = [frame for frame in frames if not frame["file"].startswith(HOME)]
    return f"{own[-1]['file']}:{own[-1]['number']}: {own[-1]['code'].strip()}" if own else ""
