"""What of torch's parameters may become one of jax's: each as it is, or fused layers read in other ways.

torch holds a recurrent layer's gates stacked, with two biases, and an attention's three projections in one matrix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from gradwitness.port.layouts import Shape
from gradwitness.port.names import Name, read_name

__all__ = ["GATES", "Arrays", "Piece", "readings"]

Arrays = Mapping[str, Any]
Shapes = Mapping[str, Shape]
GATES = {4: "ifgo", 3: "rzn"}  # torch's order, by the number of blocks: of an LSTM, of a GRU
RECURRENT = re.compile(r"^(.*?)weight_ih((?:_l\d+)?(?:_reverse)?)$")


@dataclass(frozen=True)
class Piece:
    """An array made of torch's parameters.

    label: how tables and `mapping=` call it. sources: torch's names. name: what it is matched by. gates: how many
    stacked blocks it has, 0 if their order means nothing; layer: to which recurrent layer they belong. required:
    whether a port must have it; a buffer or a frozen parameter may be missing in jax.
    """

    label: str
    sources: tuple[str, ...]
    name: Name
    shape: Shape
    make: Callable[[Arrays], Any]
    gates: int = 0
    layer: str = ""
    required: bool = True


def readings(shapes: Shapes, kinds: Mapping[str, str], required: frozenset[str]) -> Iterator[list[Piece]]:
    """Every way to read all of torch's parameters; the first is as they stand.

    kinds: classes of the layers by name, where known.
    """
    layers = list(_recurrent(shapes))
    fused = [name for name in shapes if re.search(r"(^|\.)in_proj_(weight|bias)$", name)]
    for recurrent, split in product(_READINGS if layers else (_whole,), (False, True) if fused else (False,)):
        pieces: dict[str, list[Piece]] = {name: [_as_it_is(name, shapes, kinds, name in required)] for name in shapes}
        for layer in layers:
            for name in layer.names:
                pieces[name] = []
            pieces[layer.weights[0]] = recurrent(layer)
        for name in fused if split else ():
            pieces[name] = list(_projections(name, shapes[name]))
        yield [piece for parts in pieces.values() for piece in parts]


def _as_it_is(name: str, shapes: Shapes, kinds: Mapping[str, str], required: bool) -> Piece:
    read = read_name(name, kinds.get(name.rpartition(".")[0], ""))
    return Piece(name, (name,), read, shapes[name], lambda arrays: arrays[name], required=required)


def _projections(name: str, shape: Shape) -> Iterator[Piece]:
    """Query, key and value of an attention's fused matrix or bias."""
    width = shape[0] // 3
    for number, part in enumerate(("query", "key", "value")):
        rows = slice(number * width, (number + 1) * width)
        yield Piece(
            f"{name}[{part}]",
            (name,),
            read_name(name.replace("in_proj_", f"{part}.")),
            (width, *shape[1:]),
            partial(lambda arrays, rows: arrays[name][rows], rows=rows),
        )


@dataclass(frozen=True)
class _Layer:
    """One recurrent layer in one direction: its names, weights and biases for (input, hidden)."""

    prefix: str
    suffix: str
    weights: tuple[str, str]
    biases: tuple[str, ...]
    shapes: Shapes
    gates: int

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.weights, *self.biases)

    @property
    def width(self) -> int:
        return self.shapes[self.weights[1]][1]

    def piece(
        self,
        label: str,
        sources: tuple[str, ...],
        called: str,
        shape: Shape,
        make: Callable[[Arrays], Any],
        **more: Any,
    ) -> Piece:
        name = read_name(f"{self.prefix}{called}{self.suffix}")
        how = {"gates": self.gates if self.gates in GATES else 0} | more
        return Piece(label, sources, name, shape, make, layer=f"{self.prefix}*{self.suffix}", **how)

    def whole(self, name: str) -> Piece:
        called = name.removeprefix(self.prefix).removesuffix(self.suffix)
        return self.piece(name, (name,), called, self.shapes[name], lambda arrays: arrays[name])


def _recurrent(shapes: Shapes) -> Iterator[_Layer]:
    for name in shapes:
        if not (found := RECURRENT.match(name)):
            continue
        prefix, suffix = found.groups()
        weights = name, f"{prefix}weight_hh{suffix}"
        biases = tuple(f"{prefix}bias_{side}{suffix}" for side in ("ih", "hh"))
        if weights[1] in shapes:
            gates = shapes[name][0] // shapes[weights[1]][1]
            yield _Layer(prefix, suffix, weights, biases if biases[0] in shapes else (), shapes, gates)


def _whole(layer: _Layer) -> list[Piece]:
    return [layer.whole(name) for name in layer.names]


def _summed(layer: _Layer) -> list[Piece]:
    """One bias instead of two; but a GRU multiplies the last block of the hidden one by its reset gate."""
    return [*(layer.whole(name) for name in layer.weights), *_biases(layer)]


def _joined(layer: _Layer) -> list[Piece]:
    """One matrix of [input, hidden], and one bias."""
    (of_input, of_hidden), shapes = layer.weights, layer.shapes
    shape = (shapes[of_input][0], shapes[of_input][1] + shapes[of_hidden][1])

    def make(arrays: Arrays) -> Any:
        both = [arrays[of_input], arrays[of_hidden]]
        return both[0].__array_namespace__().concat(both, axis=1)

    joined = layer.piece(f"{of_input} | {of_hidden}", layer.weights, "weight", shape, make)
    return [joined, *_biases(layer)]


def _biases(layer: _Layer) -> list[Piece]:
    if not layer.biases:
        return []
    (one, other), width = layer.biases, layer.width
    shape = layer.shapes[one]
    if layer.gates != 3:
        return [
            layer.piece(f"{one} + {other}", layer.biases, "bias", shape, lambda arrays: arrays[one] + arrays[other])
        ]

    def make(arrays: Arrays) -> Any:
        gates = [arrays[other][: 2 * width], 0 * arrays[other][2 * width :]]
        return arrays[one] + arrays[one].__array_namespace__().concat(gates)

    label = f"{one} + {other}[r, z]"
    alone = layer.piece(f"{other}[n]", (other,), "bias_n", (width,), lambda a: a[other][2 * width :], gates=0)
    return [layer.piece(label, layer.biases, "bias", shape, make), alone]


def _apart(layer: _Layer) -> list[Piece]:
    """A matrix for each gate, and one bias: flax's cells have the LSTM's beside the hidden state, the GRU's as here."""
    pieces = []
    for number, gate in enumerate(GATES.get(layer.gates, "")):
        rows = slice(number * layer.width, (number + 1) * layer.width)
        for side, name in zip("ih", layer.weights, strict=True):
            shape = (layer.width, layer.shapes[name][1])
            make = partial(lambda arrays, name, rows: arrays[name][rows], name=name, rows=rows)
            called = f"{side}{gate}.weight"
            pieces.append(layer.piece(f"{name}[{gate}]", (name,), called, shape, make, gates=0))
        pieces += _biases_of_gate(layer, gate, rows)
    return pieces


def _biases_of_gate(layer: _Layer, gate: str, rows: slice) -> list[Piece]:
    if not layer.biases:
        return []
    one, other = layer.biases

    def piece(side: str, label: str, names: tuple[str, ...]) -> Piece:
        def make(arrays: Arrays) -> Any:
            return sum((arrays[name][rows] for name in names[1:]), start=arrays[names[0]][rows])

        return layer.piece(f"{label}[{gate}]", names, f"{side}{gate}.bias", (layer.width,), make, gates=0)

    if gate == "n":
        return [piece("i", one, (one,)), piece("h", other, (other,))]
    return [piece("h" if layer.gates == 4 else "i", f"{one} + {other}", (one, other))]


_READINGS = (_whole, _summed, _joined, _apart)
