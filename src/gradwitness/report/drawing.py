"""An explanation as a picture: the graph from left to right, values above and gradients below each edge (SVG)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.report.explanation import numbers
from gradwitness.report.layout import Place, lay_out

if TYPE_CHECKING:
    from gradwitness.explain import Edge, Explanation, Visit

__all__ = ["svg"]


CHARACTER, LINE = 6.7, 14.0  # the size of a character in the font below
PADDING, MARGIN = 10.0, 24.0
HEADER = 52.0  # room for the title and the legend
DRAWN = 4  # numbers drawn in full; of more, shape and norm
STYLE = """
text { font: 11px 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #24292f }
.title { font-size: 15px; font-weight: bold }
.name { font-weight: bold; text-anchor: middle }
.shape { fill: #57606a; text-anchor: middle }
.value { fill: #116329; text-anchor: middle }
.gradient { fill: #b3261e; text-anchor: middle }
rect { stroke: #57606a; rx: 5; fill: #ffffff }
.parameter rect { fill: #ddf4ff; stroke: #0969da }
.data rect { fill: #f0f0f0 }
.loss rect { fill: #fff8c5; stroke: #9a6700 }
path { fill: none; stroke: #8c959f; stroke-width: 1.2 }
"""


def svg(explanation: Explanation, title: str = "") -> str:
    """The drawing as an SVG document."""
    return _Drawing(explanation).document(title)


class _Drawing:
    def __init__(self, explanation: Explanation) -> None:
        self.explanation = explanation
        self.visits = {visit.name: visit for visit in explanation.visits}
        self.sent: dict[tuple[str, str], list[Edge]] = {}
        for edge in explanation.edges:
            self.sent.setdefault((edge.source, edge.target), []).append(edge)
        self.layout = lay_out({name: self._place(visit) for name, visit in self.visits.items()})

    def _place(self, visit: Visit) -> Place:
        """The room that a node takes: its box, and beside it a lane for each edge that leaves it."""
        width = CHARACTER * max(map(len, self._caption(visit))) + 2 * PADDING
        targets = [v.name for v in self.explanation.visits if visit.name in v.inputs]
        labels = {target: self._labels(visit, target) for target in targets or [""]}
        texts = [line for above, below in labels.values() for line in (*above, *below)]
        lanes = {t: (LINE * max(len(above), len(below), 1) + 8) * 2 for t, (above, below) in labels.items()}
        room = CHARACTER * max(map(len, texts), default=0) + 2 * PADDING
        return Place(visit.inputs, width, 2 * LINE + PADDING, lanes, room)

    def _caption(self, visit: Visit) -> tuple[str, str]:
        if visit.value is None:
            return visit.name, f"{visit.op}, {len([n for n in self.visits if n.startswith(visit.name + '[')])} results"
        return visit.name, " x ".join(map(str, visit.value.shape)) or "scalar"

    def _labels(self, visit: Visit, target: str) -> tuple[list[str], list[str]]:
        """What stands above the edge to `target`, and what below it."""
        value = [] if visit.value is None else _lines(visit.value)
        if not target:  # the loss, which nothing uses
            return value, [] if visit.cotangent is None else _lines(visit.cotangent)
        edges = self.sent.get((visit.name, target), [])
        if self.visits[target].role == "result":
            return value, []
        return value, [line for edge in edges for line in _lines(edge.sent)]

    def document(self, title: str) -> str:
        width, height = self.layout.width + 2 * MARGIN, self.layout.height + 2 * MARGIN + HEADER
        heading = f"{self.explanation.name}: {title}" if title else self.explanation.name
        legend = "above each edge: the value going forward; below it: the gradient of the loss coming back"
        width = max(width, CHARACTER * 1.5 * len(heading), CHARACTER * len(legend) + 2 * MARGIN)
        size = {"width": _n(width), "height": _n(height), "viewBox": f"0 0 {_n(width)} {_n(height)}"}
        root = ElementTree.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", **size})
        ElementTree.SubElement(root, "title").text = heading
        ElementTree.SubElement(root, "style").text = STYLE
        style = "fill: #ffffff; stroke: none; rx: 0"
        ElementTree.SubElement(root, "rect", {"width": "100%", "height": "100%", "style": style})
        _text(root, MARGIN, MARGIN + 4, heading, "title")
        _text(root, MARGIN, MARGIN + 22, legend, "legend")
        body = ElementTree.SubElement(root, "g", {"transform": f"translate({_n(MARGIN)} {_n(MARGIN + HEADER)})"})
        for lane in self.layout.lanes:
            self._edge(body, lane.source, lane.target, lane.points)
        for name, visit in self.visits.items():
            self._node(body, visit, *self.layout.centers[name])
        ElementTree.indent(root)
        return ElementTree.tostring(root, encoding="unicode") + "\n"

    def _node(self, parent: ElementTree.Element, visit: Visit, x: float, y: float) -> None:
        last = visit is self.explanation.visits[-1]
        group = ElementTree.SubElement(parent, "g", {"class": f"node {'loss' if last else visit.role}"})
        ElementTree.SubElement(group, "title").text = "\n".join(self._details(visit))
        place = self.layout.places[visit.name]
        box = {"x": x - place.width / 2, "y": y - place.height / 2, "width": place.width, "height": place.height}
        ElementTree.SubElement(group, "rect", {key: _n(length) for key, length in box.items()})
        name, shape = self._caption(visit)
        _text(group, x, y - 3, name, "name")
        _text(group, x, y + LINE - 2, shape, "shape")

    def _details(self, visit: Visit) -> Iterator[str]:
        """What a viewer shows when the pointer rests on a node: every digit."""
        yield f"{visit.name} = {visit.formula}" if visit.formula else visit.name
        if visit.value is not None:
            yield f"value: {numbers(visit.value)}"
        if visit.cotangent is not None:
            yield f"gradient: {numbers(visit.cotangent)}"

    def _edge(self, parent: ElementTree.Element, source: str, target: str, points: list[tuple[float, float]]) -> None:
        """A curve through `points`; it is level from the second to the third, and carries its labels there."""
        group = ElementTree.SubElement(parent, "g", {"class": "edge"})
        ElementTree.SubElement(group, "path", {"d": _curve(points)})
        (x1, y), (x2, _) = points[1], points[2]
        above, below = self._labels(self.visits[source], target)
        for row, line in enumerate(reversed(above)):
            _text(group, (x1 + x2) / 2, y - 5 - row * LINE, line, "value")
        for row, line in enumerate(below):
            _text(group, (x1 + x2) / 2, y + LINE - 1 + row * LINE, line, "gradient")


def _lines(array: Array) -> list[str]:
    """An array as the lines of a label: a row per line, or shape and norm."""
    if array.size > DRAWN:
        norm = f", norm {np.linalg.norm(array):.3g}" if array.dtype.kind == "f" else ""
        return [" x ".join(map(str, array.shape)) + norm]
    digits = ".4g" if array.dtype.kind == "f" else "d"
    rows = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
    return [", ".join(format(x.item(), digits) for x in row) for row in rows]


def _curve(points: list[tuple[float, float]]) -> str:
    """Straight where two points are level, an S between others."""
    path = [f"M {_n(points[0][0])} {_n(points[0][1])}"]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = _n((x0 + x1) / 2)
        end = f"{_n(x1)} {_n(y1)}"
        path.append(f"L {end}" if y0 == y1 else f"C {middle} {_n(y0)} {middle} {_n(y1)} {end}")
    return " ".join(path)


def _text(parent: ElementTree.Element, x: float, y: float, text: str, kind: str) -> None:
    ElementTree.SubElement(parent, "text", {"x": _n(x), "y": _n(y), "class": kind}).text = text


def _n(length: float) -> str:
    return format(round(length, 1), "g")
