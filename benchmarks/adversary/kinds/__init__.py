"""The corpus by kind: what can go wrong, or wrongly be accused, in one place each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from benchmarks.adversary.corpus import Case, Subject, cases_of
from benchmarks.adversary.kinds import (
    answers,
    backwards,
    cancellation,
    comparisons,
    flat,
    float32_inside,
    hidden,
    ill_conditioned,
    initial,
    kinks,
    magnitudes,
    narrow,
    networks,
    offsets,
    oscillation,
    peers,
    poles,
    scales,
    single,
    sizes,
    smooth,
    special_points,
    stairs,
    traced,
    underflow,
    unused,
)

__all__ = ["KINDS", "corpus", "every_case"]

KINDS: Mapping[str, Sequence[Subject]] = {
    "smooth": smooth.SUBJECTS,
    "scales": scales.SUBJECTS,
    "initial points": initial.SUBJECTS,
    "sizes": sizes.SUBJECTS,
    "single elements": single.SUBJECTS,
    "backwards by hand": backwards.SUBJECTS,
    "networks": networks.SUBJECTS,
    "kinks": kinks.SUBJECTS,
    "comparisons": comparisons.SUBJECTS,
    "float32 inside": float32_inside.SUBJECTS,
    "stairs": stairs.SUBJECTS,
    "poles and edges": poles.SUBJECTS,
    "waves and gates": oscillation.SUBJECTS,
    "offsets": offsets.SUBJECTS,
    "magnitudes": magnitudes.SUBJECTS,
    "narrow dtypes": narrow.SUBJECTS,
    "underflow": underflow.SUBJECTS,
    "flat": flat.SUBJECTS,
    "cancellation": cancellation.SUBJECTS,
    "hidden leaves": hidden.SUBJECTS,
    "unused parameters": unused.SUBJECTS,
    "answers": answers.SUBJECTS,
    "special points": special_points.SUBJECTS,
    "ill-conditioned": ill_conditioned.SUBJECTS,
    "peers": peers.SUBJECTS,
    "traced": traced.SUBJECTS,
}


@cache
def corpus(kind: str) -> tuple[Case, ...]:
    """All cases of a kind. Raises KeyError for another."""
    return tuple(cases_of(kind, KINDS[kind]))


def every_case(kinds: Sequence[str] = tuple(KINDS)) -> Iterator[Case]:
    for kind in kinds:
        yield from corpus(kind)
