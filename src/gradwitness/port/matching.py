"""Which of jax's parameters each of torch's becomes: by name, by shape, and as the caller says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradwitness.errors import GradwitnessError, UnknownName
from gradwitness.port.layouts import LAYOUTS, Layout, Shape, by_function, find_layout, fitting
from gradwitness.port.names import Name, read_name
from gradwitness.port.pieces import GATES, Arrays, Piece, readings

__all__ = ["Given", "Match", "exchanged", "match_parameters"]

Given = Mapping[str, Any]
MOVED = {"kernel", "w"}  # what flax, haiku and Keras call a weight whose inputs come first


@dataclass(frozen=True)
class Match:
    """One of jax's parameters, and what of torch's becomes it.

    gates: the order of the stacked gates in jax, such as "igfo"; empty for torch's. why: "name", "shape", "given"...
    """

    piece: Piece
    target: str
    shape: Shape
    layout: Layout
    why: str
    gates: str = ""

    def convert(self, arrays: Arrays) -> Any:
        """jax's array, of torch's arrays by name: NumPy's, or jax's, through which this is differentiated."""
        x = self.piece.make(arrays)
        if self.gates:
            width = x.shape[0] // len(self.gates)
            order = [GATES[len(self.gates)].index(gate) for gate in self.gates]
            x = x[np.concatenate([np.arange(number * width, (number + 1) * width) for number in order])]
        return self.layout.apply(x, self.shape)

    @property
    def how(self) -> str:
        """The way as `mapping=` takes it."""
        order = f"gates {', '.join(self.gates)}" if self.gates else ""
        return ", ".join(part for part in (self.layout.name, order) if part)

    @property
    def alternatives(self) -> tuple[Layout, ...]:
        """The other layouts that the shapes allow."""
        return tuple(x for x in fitting(self.piece.shape, self.shape) if x.name != self.layout.name)

    @property
    def entry(self) -> str:
        """What stands in `mapping=` for it."""
        return f'"{self.piece.label}": ("{self.target}", "{self.how}")'


def match_parameters(
    shapes: Mapping[str, Shape],
    targets: Mapping[str, Shape],
    mapping: Given | None = None,
    *,
    kinds: Mapping[str, str] | None = None,
    required: Iterable[str] | None = None,
) -> tuple[Match, ...]:
    """A match for each of jax's parameters, in the order of torch's.

    shapes, targets: of torch's parameters and jax's, by name. mapping: what is known, by the name of torch's: jax's
    name, or (name, layout). kinds: classes of torch's layers by name. required: those of torch's that must be matched,
    by default all.

    Raises GradwitnessError for what does not fit together, or where several fit equally well, with the `mapping=` to
    write.
    """
    needed = frozenset(shapes if required is None else required)
    ways = list(readings(shapes, kinds or {}, needed))
    counted = [way for way in ways if sum(p.required for p in way) <= len(targets) <= len(way)]
    _expect_known(mapping or {}, ways, targets)
    refusals: list[GradwitnessError] = []
    for way in counted or ways[:1]:
        if not {*(mapping or {})} <= {piece.label for piece in way}:
            continue
        try:
            return _Matching(way, targets, mapping or {}).run()
        except GradwitnessError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]
    raise GradwitnessError(f"mapping= names {', '.join(mapping or {})}, which no one reading of torch's has together")


def _expect_known(mapping: Given, ways: Sequence[Sequence[Piece]], targets: Mapping[str, Shape]) -> None:
    labels = {piece.label for way in ways for piece in way}
    for label, given in mapping.items():
        target = given if isinstance(given, str) else given[0]
        if label not in labels:
            raise UnknownName("parameter of torch in mapping=", label, labels)
        if target not in targets:
            raise UnknownName("parameter of jax in mapping=", target, targets)


class _Matching:
    """The state of one attempt: what is matched, and what is free on each side."""

    def __init__(self, pieces: Sequence[Piece], targets: Mapping[str, Shape], mapping: Given) -> None:
        self.pieces, self.targets = {p.label: p for p in pieces}, dict(targets)
        self.order = list(self.pieces)
        self.names = {path: read_name(path) for path in targets}
        self.found: dict[str, tuple[Piece, str]] = {}  # by jax's name: what it is made of, and why
        self.given: dict[str, Layout | str] = {}
        self.gates: dict[str, str] = {}
        for label, given in mapping.items():
            self._give(label, given)

    def _give(self, label: str, given: Any) -> None:
        target, how = (given, None) if isinstance(given, str) else given
        if target in self.found:
            raise GradwitnessError(f"mapping= gives {target!r} twice: {self.found[target][0].label!r} and {label!r}")
        self._take(self.pieces[label], target, "given")
        if how is not None:
            layout, self.gates[target] = _layout(how, self.found[target][0])
            if layout is not None:
                self.given[target] = layout

    def _take(self, piece: Piece, target: str, why: str) -> None:
        self.found[target] = piece, why

    @property
    def free_pieces(self) -> list[Piece]:
        taken = {piece.label for piece, _ in self.found.values()}
        return [piece for piece in self.pieces.values() if piece.label not in taken]

    @property
    def free_targets(self) -> list[str]:
        return [path for path in self.targets if path not in self.found]

    def fits(self, piece: Piece, target: str) -> bool:
        roles = {piece.name.role, self.names[target].role} - {None}
        return len(roles) <= 1 and bool(fitting(piece.shape, self.targets[target]))

    def run(self) -> tuple[Match, ...]:
        while any(rule(self) for rule in RULES):
            pass
        self._expect_complete()
        matches = [self._match(target) for target in self.found]
        return tuple(sorted(matches, key=lambda match: self.order.index(match.piece.label)))

    def _match(self, target: str) -> Match:
        piece, why = self.found[target]
        shape = self.targets[target]
        given = self.given.get(target)
        if isinstance(given, Layout):
            if not given.fits(piece.shape, shape):
                raise GradwitnessError(
                    f"mapping=: {given.name!r} does not lead from {piece.label} {piece.shape} to {target} {shape}"
                )
            return Match(piece, target, shape, given, why, self.gates[target])
        found = fitting(piece.shape, shape)
        if not found:
            raise GradwitnessError(
                f"mapping=: no layout leads from {piece.label} {piece.shape} to {target} {shape} "
                f"(known: {', '.join(layout.name for layout in LAYOUTS)}); give a function of torch's array, "
                f'{{"{piece.label}": ("{target}", function)}}'
            )
        layout = found[0] if len(found) == 1 else self._convention(piece, target, found)
        return Match(piece, target, shape, layout, why, self.gates.get(target, ""))

    def _convention(self, piece: Piece, target: str, found: Sequence[Layout]) -> Layout:
        """Of several layouts that a shape allows: that of its fellows, or of its name."""
        same, moved = found[0], found[1]
        leaf = self.names[target].leaf
        fellows = Counter(fitting(p.shape, self.targets[t])[0].name != "same" for t, p in self._fellows(target, piece))
        if len(fellows) == 1:
            return moved if next(iter(fellows)) else same
        if leaf in MOVED and leaf != piece.name.leaf:
            return moved
        if leaf in {"weight", "embedding", "scale"} or leaf == piece.name.leaf:
            return same
        raise GradwitnessError(
            f"{piece.label} {piece.shape} may become {target} as it is or transposed, and neither shape nor name "
            f'tells. Say which: mapping={{"{piece.label}": ("{target}", "{same.name}")}} or '
            f'mapping={{"{piece.label}": ("{target}", "{moved.name}")}}'
        )

    def _fellows(self, target: str, piece: Piece) -> list[tuple[str, Piece]]:
        """Matches of matrices (or kernels) by the same leaf names, whose shapes leave one layout."""
        return [
            (other, its)
            for other, (its, _) in self.found.items()
            if (self.names[other].leaf, its.name.leaf) == (self.names[target].leaf, piece.name.leaf)
            and len(its.shape) == len(piece.shape)
            and len(fitting(its.shape, self.targets[other])) == 1
        ]

    def _expect_complete(self) -> None:
        pieces, targets = [p for p in self.free_pieces if p.required], self.free_targets
        if not pieces and not targets:
            return
        choices = {t: [p for p in self.free_pieces if self.fits(p, t)] for t in targets}
        doubtful = {t: found for t, found in choices.items() if len(found) > 1}
        if doubtful and len(pieces) <= len(targets):
            raise GradwitnessError(_ambiguous(doubtful, self.targets))
        raise GradwitnessError(
            "the parameters do not fit together. Left over in torch: "
            f"{_listed({p.label: p.shape for p in pieces})}; in jax: {_listed({t: self.targets[t] for t in targets})}. "
            'Give what belongs together, mapping={"torch.name": "jax.name"} or {"torch.name": ("jax.name", function)}, '
            "and leave out of jax_params what the loss can close over"
        )


def _listed(shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"


def _ambiguous(doubtful: Mapping[str, Sequence[Piece]], targets: Mapping[str, Shape]) -> str:
    lines = [f"{t} {targets[t]} may be {' or '.join(p.label for p in found)}" for t, found in doubtful.items()]
    labels = list(dict.fromkeys(p.label for found in doubtful.values() for p in found))
    example = ", ".join(f'"{label}": "{target}"' for label, target in zip(labels, doubtful, strict=False))
    return f"names and shapes leave several ways: {'; '.join(lines)}. Say which, as in mapping={{{example}}}"


def _layout(how: Any, piece: Piece) -> tuple[Layout | None, str]:
    """What the second part of an entry of `mapping=` means: a layout, if it names one, and an order of gates."""
    if isinstance(how, Layout):
        return how, ""
    if callable(how):
        return by_function(how), ""
    text, found, gates = str(how), None, ""
    if "gates" in text:
        text, _, order = text.partition("gates")
        gates = "".join(order.replace(",", " ").split())
        torchs = GATES.get(piece.gates, "")
        if sorted(gates) != sorted(torchs):
            what = f"an order of {', '.join(torchs)}" if torchs else "a gated layer, such as an LSTM's"
            raise GradwitnessError(f"mapping=: {piece.label}: gates {order.strip()!r} is not of {what}")
    if text := text.strip().strip(",").strip():
        found = find_layout(text)
        if found is None:
            raise UnknownName("layout in mapping=", text, [layout.name for layout in LAYOUTS])
    return found, gates


# The rules, strongest first. Each takes what it finds and says whether it found anything; then all begin anew.


def _same_path(state: _Matching) -> bool:
    free = {piece.label: piece for piece in state.free_pieces}
    found = [path for path in state.free_targets if path in free and state.fits(free[path], path)]
    for path in found:
        state._take(free[path], path, "name")
    return bool(found)


def _same_words(state: _Matching) -> bool:
    """Equal words; numbers may count otherwise (0, 2, 4 against 0, 1, 2), and go by their order."""
    pieces, targets = _grouped(state, lambda name: (name.words, name.role))
    return any(_in_order(state, pieces[key], targets[key], "name") for key in pieces if key in targets)


def _same_layer(state: _Matching) -> bool:
    """What is left of layers of which a part is matched."""
    layers = {(p.name.stem, state.names[t].stem) for t, (p, _) in state.found.items()}
    pairs = [
        (p, t)
        for p in state.free_pieces
        for t in state.free_targets
        if (p.name.stem, state.names[t].stem) in layers and state.fits(p, t)
    ]
    return _take_unique(state, pairs, "layer")


def _only_shape(state: _Matching) -> bool:
    """The one that its shape, and its role where that is known, allows."""
    pairs = [(p, t) for p in state.free_pieces for t in state.free_targets if state.fits(p, t)]
    return _take_unique(state, pairs, "shape")


def _similar_words(state: _Matching) -> bool:
    """Names that share more words with each other than with any third."""
    pieces, targets = _grouped(state, lambda name: (name.words, name.role))
    scores = {
        (a, b): _overlap(a[0], b[0])
        for a in pieces
        for b in targets
        if a[1] == b[1] and len(pieces[a]) == len(targets[b]) and _overlap(a[0], b[0])
    }
    for (a, b), score in sorted(scores.items(), key=lambda item: -item[1]):
        rivals = [s for (c, d), s in scores.items() if ((c == a) != (d == b)) and s >= score]
        if not rivals and _in_order(state, pieces[a], targets[b], "similar name"):
            return True
    return False


def _numbered(state: _Matching) -> bool:
    """Alike in shape and role, and numbered on both sides: in this order."""
    pieces, targets = state.free_pieces, state.free_targets
    for piece in pieces:
        reach = [t for t in targets if state.fits(piece, t)]
        alike = [p for p in pieces if [t for t in targets if state.fits(p, t)] == reach]
        same = len({p.name.words for p in alike}) == 1 == len({state.names[t].words for t in reach})
        if same and _in_order(state, alike, reach, "number"):
            return True
    return False


RULES: tuple[Callable[[_Matching], bool], ...] = (
    _same_path,
    _same_words,
    _same_layer,
    _only_shape,
    _similar_words,
    _numbered,
)


def _grouped(state: _Matching, key: Callable[[Name], Any]) -> tuple[dict[Any, list[Piece]], dict[Any, list[str]]]:
    pieces: dict[Hashable, list[Piece]] = {}
    targets: dict[Hashable, list[str]] = {}
    for piece in state.free_pieces:
        pieces.setdefault(key(piece.name), []).append(piece)
    for path in state.free_targets:
        targets.setdefault(key(state.names[path]), []).append(path)
    return pieces, targets


def _in_order(state: _Matching, pieces: Sequence[Piece], targets: Sequence[str], why: str) -> bool:
    """Match both by their numbers, if these tell all apart and every pair fits."""
    if len(pieces) != len(targets) or not pieces:
        return False
    ours = sorted(pieces, key=lambda p: p.name.numbers)
    theirs = sorted(targets, key=lambda t: state.names[t].numbers)
    distinct = len({p.name.numbers for p in ours}) == len(ours) == len({state.names[t].numbers for t in theirs})
    if not distinct or not all(state.fits(p, t) for p, t in zip(ours, theirs, strict=True)):
        return False
    counted = len(ours) > 1 and [p.name.numbers for p in ours] != [state.names[t].numbers for t in theirs]
    for piece, target in zip(ours, theirs, strict=True):
        state._take(piece, target, f"{why}, in order" if counted and why != "number" else why)
    return True


def _take_unique(state: _Matching, pairs: Sequence[tuple[Piece, str]], why: str) -> bool:
    """Take the pairs of which each side has no other."""
    ours, theirs = Counter(p.label for p, _ in pairs), Counter(t for _, t in pairs)
    found = [(p, t) for p, t in pairs if ours[p.label] == 1 == theirs[t]]
    for piece, target in found:
        state._take(piece, target, why)
    return bool(found)


def _overlap(one: Sequence[str], other: Sequence[str]) -> float:
    both = {*one} | {*other}
    return len({*one} & {*other}) / len(both) if both else 0.0


def exchanged(one: Match, other: Match) -> tuple[Match, Match] | None:
    """Both with each other's of torch's, None where shapes do not allow it."""
    if one.piece.shape != other.piece.shape or one.shape != other.shape:
        return None
    return replace(one, piece=other.piece), replace(other, piece=one.piece)
