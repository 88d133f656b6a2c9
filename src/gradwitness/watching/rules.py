"""What is wrong with a training: each kind a rule, with its threshold, its remedy and its source."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from gradwitness.findings import Finding, Rule, found
from gradwitness.training import NonFinite, Training

__all__ = ["RULES", "findings_of"]

FEWEST = 3  # steps, or calls, of which something is said that holds for all
GROWN = 10.0  # times that a norm must grow before a step that is not finite, to be its cause

RULES: Mapping[str, Rule] = {
    "not finite": Rule(""),
    "zero_grad forgotten": Rule("call optimizer.zero_grad() before each step's first backward()"),
    "unequal micro-batches": Rule(
        "divide the sum of the losses by the number of examples, or weigh each mean by its share of them"
    ),
    "clipping always binds": Rule(
        "raise the limit, or lower the learning rate: the size of the gradient is lost", "Pascanu et al. 2013"
    ),
    "clipping never binds": Rule("lower the limit, or leave it out", "Pascanu et al. 2013"),
    "no gradient": Rule("use it in the loss, leave it out, or look for a detach, no_grad or requires_grad=False"),
    "never moved": Rule("give it to an optimizer that steps, and look at the learning rate"),
    "log of softmax": Rule("use log_softmax, which loses no small probability", "Blanchard et al. 2021"),
}


def findings_of(training: Training) -> list[Finding]:
    """By every rule, in their order."""
    return [finding for look in LOOKS for finding in look(training)]


def _nonfinite(training: Training) -> Iterator[Finding]:
    one = training.nonfinite
    if one is None:
        return
    line = f" at {one.line}" if one.line else ""
    came = {
        "data": f"it came in with the data, {one.place}{line}",
        "parameter": f"{one.place} was not finite before",
        "op": f"it came out of {one.place}{line}",
    }[one.origin]
    backwards = ", in the backward pass" if one.backwards else ""
    growth = _growth(training, one.step)
    yield found(RULES, "not finite", f"step {one.step}", f"{one.what}: {came}{backwards}{growth}", _remedy(one, growth))


def _growth(training: Training, step: int) -> str:
    """How norms grew before a step, if they did."""
    before = {n: size for n, size in training.norms.items() if n < step and math.isfinite(size) and size > 0}
    if len(before) < FEWEST:
        return ""
    last, least = max(before), min(before, key=lambda n: before[n])
    if before[last] < GROWN * before[least] or least > last:
        return ""
    return f"; before, the norm of the gradient grew from {before[least]:.2g} at step {least} to {before[last]:.2g}"


def _remedy(one: NonFinite, growth: str) -> str:
    if one.origin == "data":
        return "look at that example, and check what is read in"
    if growth:
        return "clip the gradient by its norm, or lower the learning rate"
    return (
        "keep what goes into it away from where it is not finite" if one.origin == "op" else "look at the step before"
    )


def _carried(training: Training) -> Iterator[Finding]:
    for step, size in training.carried.items():
        message = f"its first backward pass added to what was there, of norm {size:.2g}: the sum of several gradients"
        yield found(RULES, "zero_grad forgotten", f"step {step}", message)


def _unequal(training: Training) -> Iterator[Finding]:
    for step, weights in training.unequal.items():
        shown = ", ".join(f"{weight / max(weights):.3g}" for weight in weights)
        message = f"an example weighs {shown} in its {len(weights)} micro-batches, relative to the most"
        yield found(RULES, "unequal micro-batches", f"step {step}", message)


def _clipped(training: Training) -> Iterator[Finding]:
    calls = [(size, limit) for size, limit in training.clipped if math.isfinite(size) and math.isfinite(limit)]
    bound = sum(size > limit for size, limit in calls)
    if len(calls) < FEWEST or 0 < bound < len(calls):
        return
    least, most = min(size for size, _ in calls), max(size for size, _ in calls)
    message = f"in all of {len(calls)} calls: norms from {least:.2g} to {most:.2g}, the limit {calls[-1][1]:g}"
    yield found(RULES, "clipping always binds" if bound else "clipping never binds", "", message)


def _received(training: Training) -> Iterator[Finding]:
    for name, (got, looks) in training.received.items():
        if got == 0 and looks >= FEWEST:
            yield found(RULES, "no gradient", name, f"none in any of its {looks} steps that were looked at")


def _still(training: Training) -> Iterator[Finding]:
    for name, why in training.still.items():
        if training.steps >= FEWEST and training.received.get(name, (1, 0))[0] > 0:  # else it got no gradient
            yield found(RULES, "never moved", name, f"the same after {training.steps} steps: {why}")


def _logs(training: Training) -> Iterator[Finding]:
    for line in training.logs:
        yield found(RULES, "log of softmax", line, "a probability that rounds to 0 has a log of -inf")


LOOKS: Sequence[Callable[[Training], Iterator[Finding]]] = (
    _nonfinite,
    _carried,
    _unequal,
    _clipped,
    _received,
    _still,
    _logs,
)
