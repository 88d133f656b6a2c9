"""Where the nodes and edges of a layered drawing go (after Sugiyama, Tagawa and Toda, 1981).

Columns run from left to right. A node stands in its column with a lane for each edge that leaves it, level and
wide enough for a label; an edge that passes a column takes a place of its own there, so that it crosses no box.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["Lane", "Layout", "Place", "lay_out"]

SWEEPS = 8
CURVE = 56.0  # width in which edges bend
GAP = 14.0
PASSING = 12.0  # height that a passing edge takes
SPINE = 1000.0  # how much stronger an op keeps its place than a leaf or a passing edge: the chain of ops runs straight


@dataclass(frozen=True)
class Place:
    """What a node asks for: the nodes it reads, its box, a lane's height per target, and a label's width."""

    inputs: tuple[str, ...]
    width: float
    height: float
    lanes: Mapping[str, float]
    label: float


@dataclass(frozen=True)
class Lane:
    """An edge: from the box, level along its label, past other columns, to the next box."""

    source: str
    target: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Layout:
    """Centers of boxes and the points of edges, from (0, 0) at the upper left."""

    places: Mapping[str, Place]
    centers: Mapping[str, tuple[float, float]]
    lanes: tuple[Lane, ...]
    width: float
    height: float


@dataclass(eq=False)
class _Item:
    """Something that takes height in a column: a node, or an edge that passes."""

    node: str | None
    column: int
    height: float
    weight: float = 1.0
    y: float = 0.0
    before: list[_Item] = field(default_factory=list)
    after: list[_Item] = field(default_factory=list)


_Routes = dict[tuple[str, str], list[_Item]]


def lay_out(places: Mapping[str, Place]) -> Layout:
    """`places` in topological order."""
    columns = _columns(places)
    items, routes = _items(places, columns)
    count = 1 + max(columns.values())
    stacks: list[list[_Item]] = [[item for item in items if item.column == c] for c in range(count)]
    for _ in range(SWEEPS):
        _sweep(stacks, forward=True)
        _sweep(stacks, forward=False)
    _sweep(stacks, forward=True)
    top = min(item.y - item.height / 2 for item in items)
    for item in items:
        item.y -= top
    return _measured(places, columns, items, routes, count)


def _columns(places: Mapping[str, Place]) -> dict[str, int]:
    """An op stands after all that it reads, a leaf right before the first that reads it."""
    columns: dict[str, int] = {}
    for name, place in places.items():
        columns[name] = 1 + max((columns[i] for i in place.inputs), default=-1)
    for name, place in places.items():
        if not place.inputs and any(place.lanes):
            columns[name] = min(columns[target] for target in place.lanes) - 1
    return columns


def _items(places: Mapping[str, Place], columns: Mapping[str, int]) -> tuple[list[_Item], _Routes]:
    """The items of all columns, and for each edge those that it goes through."""
    boxes = {
        n: _Item(n, columns[n], GAP + max(p.height, sum(p.lanes.values())), SPINE if p.inputs else 1.0)
        for n, p in places.items()
    }
    items = list(boxes.values())
    routes: _Routes = {}
    for name, place in places.items():
        for target in filter(None, place.lanes):
            passing = [_Item(None, c, PASSING) for c in range(columns[name] + 1, columns[target])]
            route = routes[name, target] = [boxes[name], *passing, boxes[target]]
            items += passing
            for one, next_ in pairwise(route):
                one.after.append(next_)
                next_.before.append(one)
    return items, routes


def _sweep(stacks: list[list[_Item]], *, forward: bool) -> None:
    """Move every item towards the mean of its neighbours in the column passed last, then pull overlaps apart."""
    for stack in stacks if forward else reversed(stacks):
        wanted = {}
        for item in stack:
            near = item.before if forward else item.after
            near = near or item.after or item.before
            total = sum(n.weight for n in near)
            wanted[item] = sum(n.weight * n.y for n in near) / total if near else item.y
        stack.sort(key=wanted.__getitem__)
        _spread(stack, [wanted[item] for item in stack])


def _spread(stack: list[_Item], wanted: list[float]) -> None:
    """Heights as near to the wanted ones as the order and the room allow: blocks that touch share their mean."""
    blocks: list[tuple[float, float, int]] = []  # (weighted sum of tops, weight, members)
    offset = 0.0
    shifts = []
    for item, y in zip(stack, wanted, strict=True):
        offset += item.height / 2
        shifts.append(offset)
        blocks.append((item.weight * (y - offset), item.weight, 1))
        offset += item.height / 2
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            last = blocks.pop()
            total, weight, members = blocks[-1]
            blocks[-1] = (total + last[0], weight + last[1], members + last[2])
    starts = [total / weight for total, weight, members in blocks for _ in range(members)]
    for item, start, shift in zip(stack, starts, shifts, strict=True):
        item.y = start + shift


def _measured(
    places: Mapping[str, Place], columns: Mapping[str, int], items: list[_Item], routes: _Routes, count: int
) -> Layout:
    """Coordinates for it all."""
    boxes = [max(p.width for n, p in places.items() if columns[n] == c) for c in range(count)]
    labels = [max(p.label for n, p in places.items() if columns[n] == c) for c in range(count)]
    lefts = [0.0]
    for box, label in zip(boxes, labels, strict=True):
        lefts.append(lefts[-1] + box + label + 2 * CURVE)
    nodes = {item.node: item for item in items if item.node is not None}
    centers = {name: (lefts[columns[name]] + boxes[columns[name]] / 2, nodes[name].y) for name in places}
    lanes = []
    for name, place in places.items():
        x, y = centers[name]
        height = y - sum(place.lanes.values()) / 2
        start = lefts[columns[name]] + boxes[columns[name]] + CURVE / 2
        for target in _from_above(name, place, routes):
            level = height + place.lanes[target] / 2
            height += place.lanes[target]
            points = [(x + place.width / 2, y), (start, level), (start + labels[columns[name]], level)]
            if target:
                for item in routes[name, target][1:-1]:
                    points += [(lefts[item.column], item.y), (lefts[item.column + 1] - CURVE, item.y)]
                points.append((centers[target][0] - places[target].width / 2, centers[target][1]))
            lanes.append(Lane(name, target, points))
    bottom = max(item.y + item.height / 2 for item in items)
    return Layout(places, centers, tuple(lanes), lefts[-1], bottom)


def _from_above(name: str, place: Place, routes: _Routes) -> list[str]:
    """The targets of a node in the order in which its edges leave it, so that they do not cross."""
    return sorted(place.lanes, key=lambda target: routes[name, target][1].y if target else 0.0)
