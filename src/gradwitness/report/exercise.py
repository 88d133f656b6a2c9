"""What a network did not exercise, in words: all of it on request, in one line otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gradwitness.evidence.exercise import Exercise

__all__ = ["unexercised", "unexercised_in_full", "untested"]

Exercises = Mapping[str, Sequence[Exercise]]  # by network
OPS_SHOWN = 4  # in the one line
NETWORKS_SHOWN = 2  # for each of them
LINES_SHOWN = 4  # of a loss


def untested(exercises: Exercises) -> list[str]:
    """Where gradients end: at a call that sends none back, and calls that none arrives at."""
    lines = []
    for network, calls in exercises.items():
        lines += [
            f"{network}: {call.op}{_at([call])} passes no gradient back{_because(call)}: "
            "what leads only to it is untested"
            for call in calls
            if call.arrives and not call.passes
        ]
        cut_off = list(dict.fromkeys(f"{call.op}{_at([call])}" for call in calls if not call.arrives))
        if cut_off:
            lines.append(f"{network}: no gradient arrives at {_some(cut_off, LINES_SHOWN)}")
    return lines


def unexercised(exercises: Exercises) -> list[str]:
    """One line, or none: the ops with regions that no call of theirs in some network reached."""
    networks: dict[str, list[str]] = {}
    for network, calls in exercises.items():
        for op, mine in _by_op(calls).items():
            reached = {region for call in mine for region in call.reached}
            missed = [region for region in _missed(call for call in mine if call.passes) if region not in reached]
            if missed:
                networks.setdefault(f"{op} {_joined(missed)}", []).append(network)
    if not networks:
        return []
    named = [
        f"{what} ({_some(where, NETWORKS_SHOWN)})" if len(exercises) > 1 else what for what, where in networks.items()
    ]
    return [f"never exercised: {_some(named, OPS_SHOWN, '; ')} (verbose says where)"]


def unexercised_in_full(exercises: Exercises) -> list[str]:
    """A line for each network, op and region: how many calls missed it, where, and how far their inputs go."""
    lines = []
    for network, calls in exercises.items():
        for op, mine in _by_op(calls).items():
            for region in _missed(mine):
                missing = [call for call in mine if region in call.missed]
                count = f" at {len(missing)} of {len(mine)} calls" if len(mine) > 1 else ""
                lines.append(f"{network}: {op} never {region}{count}{_at(missing, _span(missing))}")
    return lines


def _by_op(calls: Iterable[Exercise]) -> dict[str, list[Exercise]]:
    """The calls at which a gradient arrives."""
    found: dict[str, list[Exercise]] = {}
    for call in calls:
        if call.arrives:
            found.setdefault(call.op, []).append(call)
    return found


def _missed(calls: Iterable[Exercise]) -> list[str]:
    """The regions that one of the calls missed."""
    return list(dict.fromkeys(region for call in calls for region in call.missed))


def _because(call: Exercise) -> str:
    return f", as none arrives {_joined(call.missed)}" if call.missed else ""


def _at(calls: Iterable[Exercise], more: str = "") -> str:
    """Where the loss calls it, in brackets."""
    lines = list(dict.fromkeys(call.line for call in calls if call.line))
    inside = "; ".join(filter(None, (_some(lines, LINES_SHOWN), more)))
    return f" ({inside})" if inside else ""


def _span(calls: Iterable[Exercise]) -> str:
    lowest = [call.lowest for call in calls if call.lowest is not None]
    highest = [call.highest for call in calls if call.highest is not None]
    return f"from {min(lowest):.3g} to {max(highest):.3g}" if lowest and highest else ""


def _joined(regions: Sequence[str]) -> str:
    return " or ".join(regions)


def _some(names: Sequence[str], shown: int, separator: str = ", ") -> str:
    """The first of them, and how many more there are."""
    more = [f"{len(names) - shown} more"] if len(names) > shown else []
    return separator.join([*names[:shown], *more])
