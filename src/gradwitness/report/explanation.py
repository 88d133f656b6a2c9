"""An explanation as text: the pass written down as on paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from tabulate import tabulate

from gradwitness.dtypes import Array
from gradwitness.explain.derivative import words
from gradwitness.explain.walk import SMALL

if TYPE_CHECKING:
    from gradwitness.explain import Comparison, Descent, Edge, Explanation, Term, Visit

__all__ = ["numbers", "text"]


FULL = ".15g"  # every digit that float64 holds for certain
SHORT = ".4g"
MOST_TERMS = 16  # products of one edge that a person would write out
FIRST = 3  # elements of a large tensor that are shown
INDENT = "    "


def text(explanation: Explanation, title: str = "") -> str:
    """The whole pass: forward, backward, gradients; the step if one was taken; what was published, if anything was."""
    sections = [
        [f"{explanation.name}: {title}" if title else explanation.name],
        ["FORWARD: every value, in order", "", *_forward(explanation)],
        ["BACKWARD: what arrives at an op, times its local derivative, goes on", "", *_backward(explanation)],
        ["GRADIENTS, and where a step of gradient descent moves each weight", "", _gradients(explanation)],
    ]
    if explanation.descent is not None:
        sections.append([f"A STEP at rate {explanation.descent.rate:g}", "", *_descent(explanation.descent)])
    if explanation.published:
        sections.append(["PUBLISHED AGAINST COMPUTED", "", *_published(explanation.published)])
    return "\n\n".join("\n".join(lines) for lines in sections)


def numbers(array: Array, digits: str = FULL) -> str:
    """Every number of a small array, as nested lists; of a large one shape, norm, extremes and the first."""
    if array.size > SMALL:
        return _summary(array)
    if array.ndim == 0:
        return _number(array[()], digits)
    return f"[{', '.join(numbers(part, digits) for part in array)}]"


def _number(x: Any, digits: str) -> str:
    return format(float(x), digits) if np.asarray(x).dtype.kind == "f" else str(x)


def _summary(array: Array) -> str:
    first = ", ".join(_number(x, ".6g") for x in array.reshape(-1)[:FIRST])
    shape = " x ".join(map(str, array.shape))
    if array.dtype.kind != "f":
        return f"{shape}, from {array.min()} to {array.max()}, first {first}, ..."
    return f"{shape}, norm {np.linalg.norm(array):.6g}, from {array.min():.6g} to {array.max():.6g}, first {first}, ..."


def _forward(explanation: Explanation) -> Iterator[str]:
    for visit in explanation.visits:
        if visit.role in ("parameter", "data"):
            note = "" if visit.role == "parameter" else "   (data)"
            yield f"{visit.name} = {_value(visit)}{note}"
        elif visit.role == "op":
            yield f"{visit.name} = {visit.formula}" + (f"   ({visit.place})" if visit.place else "")
            if visit.value is not None:
                yield f"{INDENT}= {_value(visit)}"
        else:
            yield f"{INDENT}{visit.name} = {_value(visit)}"


def _value(visit: Visit) -> str:
    assert visit.value is not None, f"{visit.name} has several results"
    return numbers(visit.value)


def _backward(explanation: Explanation) -> Iterator[str]:
    for visit in reversed(explanation.visits):
        edges = explanation.edges_from(visit.name)
        if len(visit.received) > 1 or edges or (visit.role == "result" and visit.cotangent is not None):
            yield from _arrival(visit, is_loss=visit is explanation.visits[-1])
        for edge in edges:
            yield from _edge(edge)


def _arrival(visit: Visit, *, is_loss: bool) -> Iterator[str]:
    """What has arrived at a node, and how it is made up if several consumers sent it."""
    if visit.cotangent is None:
        yield f"{visit.name}: the cotangents of its results go on together"
        return
    loss = "   (the loss itself)" if is_loss else ""
    yield f"dL/d {visit.name} = {numbers(visit.cotangent)}{loss}"
    if len(visit.received) > 1:
        yield f"{INDENT}the sum of what its {len(visit.received)} consumers send:"
        for edge in visit.received:
            yield f"{INDENT}  {edge.target} sends {numbers(edge.sent)}"


def _edge(edge: Edge) -> Iterator[str]:
    copies = edge.local is not None and edge.local.size != edge.sent.size
    how = words(edge.op, edge.operand) + (", summed over the copies" if copies else "")
    yield f"{INDENT}to {edge.source} ({edge.operand} of {edge.op}): {how}"
    if edge.terms and len(edge.terms) <= MOST_TERMS:
        yield from _products(edge)
        return
    if edge.local is not None:
        yield f"{INDENT * 2}local derivative  {numbers(edge.local)}"
    yield f"{INDENT * 2}sends             {numbers(edge.sent)}"


def _products(edge: Edge) -> Iterator[str]:
    """A line per element: cotangent * local derivative, added up over the results that it reaches."""
    reached = {to: list(terms) for to, terms in groupby(edge.terms, key=lambda term: term.to)}
    for to in np.ndindex(edge.sent.shape):
        total = _number(edge.sent[to], FULL)
        products = " + ".join(_product(term) for term in reached.get(to, []))
        yield f"{INDENT * 2}{edge.source}{_at(to)}: {products or 'no way to the result'} = {total}"


def _product(term: Term) -> str:
    return f"{_number(term.cotangent, FULL)} * {_number(term.local, FULL)}"


def _at(index: Sequence[int]) -> str:
    return f"[{','.join(map(str, index))}]" if index else ""


def _gradients(explanation: Explanation) -> str:
    rows = []
    for path, gradient in explanation.gradients.items():
        value = explanation.visit(path).value
        assert value is not None
        if gradient.size > SMALL:
            rows.append([path, "", _summary(gradient), "", f"{(gradient < 0).sum()} up, {(gradient > 0).sum()} down"])
            continue
        for at in np.ndindex(gradient.shape):
            g = float(gradient[at])
            exact, short = (_number(g, digits) for digits in (FULL, SHORT))
            rows.append([path + _at(at), _number(value[at], ".6g"), exact, short, _direction(g)])
    return _table(rows, ["parameter", "value", "gradient", "short", "a step moves it"])


def _direction(gradient: float) -> str:
    """Against the gradient."""
    return "down" if gradient > 0 else "up" if gradient < 0 else "not at all"


def _descent(descent: Descent) -> Iterator[str]:
    yield _table(
        [
            ["loss before", _number(descent.before, FULL)],
            ["loss after", _number(descent.after, FULL)],
            ["change", _number(descent.change, FULL)],
            ["predicted: -rate * |gradient|^2", _number(descent.predicted, FULL)],
        ],
        [],
    )
    yield ""
    rows = []
    for path, old in descent.old.items():
        new = descent.new[path]
        if old.size > SMALL:
            rows.append([path, _summary(old), f"moved by {np.linalg.norm(new - old):.6g} in norm"])
        else:
            rows += [[path + _at(at), _number(old[at], FULL), _number(new[at], FULL)] for at in np.ndindex(old.shape)]
    yield _table(rows, ["parameter", "old", "new"])


def _published(comparisons: Sequence[Comparison]) -> Iterator[str]:
    rows = [
        [c.quantity, c.printed, c.right, " to ".join(_number(x, FULL) for x in c.computed), _wrong(c)]
        for c in comparisons
    ]
    yield _table(rows, ["quantity", "published", "right", "computed", "what is wrong"])
    yield ""
    yield "Why they differ: what gives the published figure, found by trying it"
    yield _table([[INDENT + c.quantity, c.why] for c in comparisons if c.why], [])


def _wrong(comparison: Comparison) -> str:
    wrong = comparison.wrong
    if wrong is not None:
        place = f"decimal {wrong.place}" if wrong.place > 0 else "before the point"
        return f"{place}: {wrong.printed}, not {wrong.right}"
    ends = zip(comparison.printed.split(" to "), comparison.right.split(" to "), strict=True)
    return "; ".join(f"{was}, not {should}" for was, should in ends) if comparison.why else "nothing"


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers, tablefmt="simple" if headers else "plain", disable_numparse=True)
