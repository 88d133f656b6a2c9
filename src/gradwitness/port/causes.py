"""Why two sides of a port differ: each known cause is tried, and one that makes the values equal is named.

A cause is evidence, no guess: torch is run by the other convention, or jax with the parameter in another layout, and
then the value that differed first agrees to rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import combinations, islice, permutations
from typing import Any

import numpy as np

from gradwitness.dtypes import DTYPES, Array
from gradwitness.port.matching import Match, exchanged
from gradwitness.port.pieces import GATES
from gradwitness.port.values import Compared, first_difference
from gradwitness.protocol import Deviation

__all__ = ["Cause", "Explained", "explain", "hypotheses", "misplaced"]

Matches = Mapping[str, Match]
Compare = Callable[[Sequence[Deviation], Matches], list[Compared]]
PAIRS = 300  # of causes that are tried together
EXCHANGES = 60


@dataclass(frozen=True)
class Cause:
    """text: what is so in torch and what in jax. remedy: what to write instead. family: what it is counted as.

    deviations: how torch runs to show it. matches: what replaces the mapping's, by jax's name.
    """

    text: str
    remedy: str
    family: str
    deviations: tuple[Deviation, ...] = ()
    matches: Matches = field(default_factory=dict)


@dataclass(frozen=True)
class Explained:
    """causes: each with the value that it makes agree. rest: what still differs first. tried: causes by family.

    nearest: the one that leaves least of `rest`, if that is less than a thousandth, and what it leaves.
    """

    causes: tuple[tuple[Cause, Compared], ...]
    rest: Compared | None
    tried: Mapping[str, int]
    nearest: tuple[Cause, Compared] | None = None


def hypotheses(matches: Sequence[Match], deviations: Sequence[Deviation]) -> list[Cause]:
    """Everything that may be otherwise, the likelier first: pairs are made in this order."""
    at_all, at_one = [d for d in deviations if d.everywhere], [d for d in deviations if not d.everywhere]
    of_parameters = (*_layouts(matches), *_gates(matches))
    return [*map(_deviating, at_all), *of_parameters, *map(_deviating, at_one), *_exchanges(matches)]


def _deviating(deviation: Deviation) -> Cause:
    family = deviation.text.partition(":")[0].partition(" (call")[0]
    return Cause(deviation.text, deviation.remedy, family, (deviation,))


def _layouts(matches: Sequence[Match]) -> Iterator[Cause]:
    """A parameter in another layout that its shape allows, one at a time and then all of them."""
    others = {m.target: replace(m, layout=m.alternatives[0]) for m in matches if m.alternatives}
    for match in matches:
        for layout in match.alternatives:
            other = replace(match, layout=layout)
            text = f"{match.piece.label} is {_as(layout.name)} in jax's {match.target}, not {_as(match.layout.name)}"
            yield Cause(text, _remedy([other]), "layout of a parameter", matches={match.target: other})
    if len(others) > 1:
        text = f"the layout of {', '.join(others)} is the other one that their shapes allow"
        yield Cause(text, _remedy([*others.values()]), "layout of a parameter", matches=others)


def _as(layout: str) -> str:
    return "as it is" if layout == "same" else layout


def _gates(matches: Sequence[Match]) -> Iterator[Cause]:
    """The gates of a recurrent layer in another order, of all such layers or of one."""
    layers: dict[str, list[Match]] = {}
    for match in matches:
        if match.piece.gates:
            layers.setdefault(match.piece.layer, []).append(match)
    groups = [*layers.values()] if len(layers) == 1 else [[m for of in layers.values() for m in of], *layers.values()]
    for group in (group for group in groups if group):
        torchs = GATES[group[0].piece.gates]
        if any(GATES[m.piece.gates] != torchs for m in group):
            continue
        for order in map("".join, permutations(torchs)):
            others = {m.target: replace(m, gates="" if order == torchs else order) for m in group}
            if any(others[m.target].gates != m.gates for m in group):
                names = ", ".join(dict.fromkeys(m.piece.layer for m in group))
                text = f"{names}: gates {', '.join(torchs)} in torch, {', '.join(order)} in jax"
                yield Cause(text, _remedy([*others.values()]), "order of the gates", matches=others)


def _exchanges(matches: Sequence[Match]) -> Iterator[Cause]:
    """Two parameters in each other's place."""
    pairs = ((a, b, exchanged(a, b)) for a, b in combinations([m for m in matches if m.why != "given"], 2))
    for a, b, both in islice((each for each in pairs if each[2]), EXCHANGES):
        assert both is not None
        text = f"{a.piece.label} and {b.piece.label} are in each other's place: {b.target} and {a.target} in jax"
        yield Cause(text, _remedy(both), "exchange of two parameters", matches={m.target: m for m in both})


def _remedy(matches: Sequence[Match]) -> str:
    return f"mend the jax loss, or if it is meant so, give mapping={{{', '.join(m.entry for m in matches)}}}"


def explain(compare: Compare, matches: Sequence[Match], known: Sequence[Cause]) -> Explained:
    """Causes, one after the other, until the values agree or none is left that makes the first difference agree.

    compare: the values of both sides, torch's with these deviations, and jax's by these matches.
    """
    causes: list[tuple[Cause, Compared]] = []
    mapping = {match.target: match for match in matches}
    before = compare((), mapping)
    while (place := first_difference(before)) is not None:
        held = [cause for cause, _ in causes]
        found = _first_that_explains(compare, mapping, held, known, place)
        if not found:
            tried = Counter(cause.family for cause in known)
            nearest = _nearest(compare, mapping, held, known, before[place], place)
            return Explained(tuple(causes), before[place], tried, nearest)
        causes += [(cause, before[place]) for cause in found]
        before = _compare(compare, mapping, [*held, *found])
    return Explained(tuple(causes), None, Counter(cause.family for cause in known))


def _first_that_explains(
    compare: Compare, mapping: Matches, held: list[Cause], known: Sequence[Cause], place: int
) -> tuple[Cause, ...]:
    """One cause, or two together; the smallest number of them that moves the first difference on."""
    places = sorted(combinations(range(len(known)), 2), key=sum)[:PAIRS]
    for tried in (*((cause,) for cause in known), *((known[i], known[j]) for i, j in places)):
        targets = [target for cause in (*held, *tried) for target in cause.matches]
        if len({*targets}) < len(targets):
            continue
        try:
            after = _compare(compare, mapping, [*held, *tried])
        except Exception:  # noqa: BLE001  # a run by another convention may raise anything, and explains nothing then
            continue
        further = first_difference(after)
        if after[place].agrees and (further is None or further > place):
            return tried
    return ()


def _nearest(
    compare: Compare, mapping: Matches, held: list[Cause], known: Sequence[Cause], before: Compared, place: int
) -> tuple[Cause, Compared] | None:
    """A cause that explains all but what a computation in fewer bits on one side may leave."""
    found = []
    for cause in known:
        if not {target for other in held for target in other.matches} & {*cause.matches}:
            with suppress(Exception):
                found.append((cause, _compare(compare, mapping, [*held, cause])[place]))
    best = min(found, key=lambda each: each[1].error, default=None)
    return best if best is not None and best[1].error < before.error / 1000 else None


def _compare(compare: Compare, mapping: Matches, causes: Sequence[Cause]) -> list[Compared]:
    changed = {target: match for cause in causes for target, match in cause.matches.items()}
    return compare(tuple(d for cause in causes for d in cause.deviations), {**mapping, **changed})


def misplaced(matches: Sequence[Match], torch: Mapping[str, Array], jax: Mapping[str, Any]) -> list[str]:
    """What of jax's own values is not torch's by the mapping, a line each: another layout that it would be, or none."""
    lines = []
    for match in matches:
        own = jax[match.target]
        if _holds(match, torch, own):
            continue
        others = [other for cause in (*_layouts([match]), *_gates([match])) for other in cause.matches.values()]
        fitting = next((other for other in others if _holds(other, torch, own)), None)
        wanted = f"{match.target} does not hold {match.piece.label} {_as(match.how)}"
        if fitting is not None:
            lines.append(f"{wanted}; it holds it {_as(fitting.how)}")
            continue
        a, b = match.convert(torch), np.asarray(own, np.float64)
        place = tuple(int(i) for i in np.unravel_index(int(np.argmax(np.abs(a - b))), a.shape))
        lines.append(
            f"{wanted}: at {list(place)} it is {b[place]:.9g}, and torch's {a[place]:.9g}; no known layout fits"
        )
    return lines


def _holds(match: Match, torch: Mapping[str, Array], own: Any) -> bool:
    """To a few roundings of jax's dtype, as a sum of two biases has."""
    array = np.asarray(own)
    found = DTYPES.get(array.dtype.name, DTYPES["float64"])
    converted = match.convert(torch)
    return bool(
        np.all(np.abs(converted - array.astype(np.float64)) <= 4 * found.unit_roundoff * np.abs(converted).max())
    )
