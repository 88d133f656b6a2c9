"""Which of the rules that a user wrote is wrong: each by itself, at the inputs and cotangents of this very gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gradwitness.protocol import Prepared, Primals, RuleCall, RuleCalling
from gradwitness.run.failing import short
from gradwitness.run.trial import Failure, attempt
from gradwitness.verdict import Verdict

__all__ = ["WRONG", "Alone", "Found", "calls_of", "first_off", "looked_at"]

WRONG = (Verdict.DISAGREE, Verdict.MISSING)
RIGHT = (Verdict.AGREE, Verdict.CONVENTION)


@dataclass(frozen=True)
class Alone:
    """The verdict on a rule's gradient by one of its inputs; part: how far it is off, of its norm, if that is known."""

    verdict: Verdict
    part: float | None = None

    @property
    def how(self) -> str:
        if self.verdict is Verdict.MISSING:
            return "None"
        return "refuted by differences" if self.part is None else f"by {self.part:.2g} of its norm"


@dataclass(frozen=True)
class Found:
    """What was found of rules by themselves. off: how those are wrong that are, and where they stand; right: the
    others that are right at every call. elsewhere: whether they were seen on the plain path."""

    off: dict[str, str] = field(default_factory=dict)
    right: dict[str, None] = field(default_factory=dict)
    elsewhere: bool = False

    def said(self, way: str) -> str:
        """In words; way: the path, or backend, whose gradient is wrong. Empty where there is nothing to say."""
        if self.off:
            where = "run eagerly, " if self.elsewhere else ""
            named = ", ".join(f"{name} {how}" for name, how in self.off.items())
            return f"{where}wrong by itself: the backward of {named}"
        if self.right and self.elsewhere:
            named = ", ".join(self.right)
            return f"run eagerly, the backward of {named} is right by itself: at fault may be what {way} makes of it"
        return ""


def calls_of(prepared: Prepared, primals: Primals) -> Sequence[RuleCall]:
    """The calls of users' own rules that made a gradient; none where that cannot be told."""
    return prepared.rule_calls(primals) if isinstance(prepared, RuleCalling) else ()


def first_off(every: Iterable[Found]) -> Found:
    """The first in which a rule is wrong, of which no further are made; else the last."""
    found = Found()
    for found in every:
        if found.off:
            break
    return found


def looked_at(calls: Sequence[RuleCall], judged: Callable[[RuleCall], Mapping[str, Alone]]) -> Found:
    """Each rule judged by itself, up to the first call at which it is wrong. One that cannot be judged, as one that
    cannot be run alone, is left out."""
    off, doubted, right = dict[str, str](), set[str](), dict[str, None]()
    for call in calls:
        if call.name in off:
            continue
        found = attempt(lambda call=call: judged(call))  # type: ignore[misc]
        if isinstance(found, Failure) or not all(alone.verdict in RIGHT for alone in found.values()):
            doubted.add(call.name)
        if not isinstance(found, Failure) and (worst := _worst(found)):
            off[call.name] = f"({worst}) at {short(call.place)}" if call.place else f"({worst})"
        right[call.name] = None
    return Found(
        off, {name: None for name in right if name not in doubted}, elsewhere=any(call.elsewhere for call in calls)
    )


def _worst(found: Mapping[str, Alone]) -> str:
    """The input by which a rule is farthest off, and how far; empty if it is right by all."""
    wrong = {path: alone for path, alone in found.items() if alone.verdict in WRONG}
    if not wrong:
        return ""
    path = max(wrong, key=lambda path: wrong[path].part or 0.0)
    return f"{path}, {wrong[path].how}"
