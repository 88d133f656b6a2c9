"""How each claim is measured: one function each, which gives every figure that it found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gradwitness import ops
from gradwitness.claims.measuring import Bench, Measured, memory_without_tape, ratio_of, seconds_without_tape
from gradwitness.networks import network
from gradwitness.networks.sizes import sized, sizes_of
from gradwitness.problem import Candidate, Problem
from gradwitness.timing.growth import exponent
from gradwitness.timing.statistics import Interval
from gradwitness.verification import verify

__all__ = [
    "apart_over_fused",
    "backward_over_forward",
    "by_differences",
    "by_forward_mode",
    "by_reverse_mode",
    "cut",
    "error_apart_over_fused",
    "faster",
    "memory_of_checkpoints",
    "memory_with_depth",
    "reverse_over_forward",
    "time_of_checkpoints",
    "training_over_inference",
]

LARGER = ("mlp", "convnet", "lstm", "transformer")
WIDTHS = (2, 4, 8, 16)  # of the networks whose number of parameters grows
DEPTHS = (2, 4, 8, 16)  # of those whose tape grows
WITHOUT_TAPE = ("torch", "jax")  # backends with forward mode
SEGMENTS = 4  # the root of the deepest network's layers
ROWS, CLASSES = 256, 512  # of logits
SPREADS = (1.0, 10.0, 30.0)  # of logits: in the last, some classes are too improbable for float32
EAGER, COMPILED = "torch", "torch.compile"


def cut(bench: Bench) -> Iterator[Measured]:
    for size in _sizes(bench, "transformer"):
        if found := _compiled_over_eager(bench, "transformer", size, "backward"):
            part = Interval(1 - found.middle, 1 - found.high, 1 - found.low)
            yield Measured(f"transformer {size}, backward", part)


def faster(bench: Bench) -> Iterator[Measured]:
    for name in LARGER:
        for size in _sizes(bench, name):
            if found := _compiled_over_eager(bench, name, size, "forward_backward"):
                yield Measured(f"{name} {size}, forward + backward", _inverse(found))


def _compiled_over_eager(bench: Bench, name: str, size: str, phase: str) -> Interval | None:
    if not bench.has(EAGER, COMPILED):
        return None
    found = bench.timed(sized(name, size), (EAGER, COMPILED))
    return ratio_of(found[COMPILED], found[EAGER], phase) if found.keys() >= {EAGER, COMPILED} else None


def _sizes(bench: Bench, name: str) -> list[str]:
    return [size for size in bench.sizes if size in sizes_of(name)]


def _inverse(found: Interval) -> Interval:
    return Interval(1 / found.middle, 1 / found.high, 1 / found.low)


def backward_over_forward(bench: Bench) -> Iterator[Measured]:
    for size in _sizes(bench, "mlp"):
        for label, timing in bench.timed(sized("mlp", size), bench.backends).items():
            if found := ratio_of(timing, timing, "backward", "forward"):
                yield Measured(f"mlp {size}, {label}", found)


def by_reverse_mode(bench: Bench) -> Iterator[Measured]:
    return _curve(bench, "reverse")


def by_forward_mode(bench: Bench) -> Iterator[Measured]:
    return _curve(bench, "tangents")


def by_differences(bench: Bench) -> Iterator[Measured]:
    return _curve(bench, "differences")


def _curve(bench: Bench, way: str) -> Iterator[Measured]:
    """How what all P derivatives take, in forward passes, grows with P."""
    for backend in WITHOUT_TAPE:
        if bench.has(backend):
            points = _passes(bench, backend)
            passes = [seconds[way] / seconds["forward"] for seconds in points.values()]
            shown = ", ".join(f"P = {count}: {x:,.3g}" for count, x in zip(points, passes, strict=True))
            if found := exponent([*points], passes):
                yield Measured(f"mlp, {backend}", found, f"forward passes at {shown}")


def _passes(bench: Bench, backend: str) -> Mapping[int, Mapping[str, float]]:
    """By number of parameters, what each way takes."""
    key = f"passes, {backend}"
    if key not in bench.curves:
        found = {}
        for width in WIDTHS:
            problem = network("mlp", width=width, depth=1)
            count = sum(x.size for x in problem.primals.values())
            found[count] = bench.asked(problem, backend, seconds_without_tape, count)
        bench.curves[key] = found
    return bench.curves[key]


def training_over_inference(bench: Bench) -> Iterator[Measured]:
    return _memory(bench, "training", "inference")


def reverse_over_forward(bench: Bench) -> Iterator[Measured]:
    return _memory(bench, "training", "forward mode")


def memory_with_depth(bench: Bench) -> Iterator[Measured]:
    for backend, points in _memories(bench):
        shown = ", ".join(f"depth {depth}: {found['training'] / 2**20:.3g} MiB" for depth, found in points.items())
        if found := exponent([*points], [most["training"] for most in points.values()]):
            yield Measured(f"mlp, {backend}", found, shown)


def _memory(bench: Bench, more: str, less: str) -> Iterator[Measured]:
    """The ratio at the greatest depth; the curve over all of them beside it."""
    for backend, points in _memories(bench):
        ratios = {depth: found[more] / max(found[less], 1) for depth, found in points.items()}
        last = ratios[max(ratios)]
        shown = ", ".join(f"depth {depth}: {x:.3g}" for depth, x in ratios.items())
        yield Measured(f"mlp, {backend}", Interval(last, last, last), shown)


def _memories(bench: Bench) -> Iterator[tuple[str, Mapping[int, Mapping[str, int]]]]:
    for backend in WITHOUT_TAPE:
        key = f"memory, {backend}"
        if bench.has(backend) and key not in bench.curves:
            bench.curves[key] = {depth: bench.asked(_deep(depth), backend, memory_without_tape) for depth in DEPTHS}
        if all(bench.curves.get(key, {0: None}).values()):
            yield backend, bench.curves[key]


def _deep(depth: int) -> Problem:
    return network("mlp", batch=512, features=64, width=256, depth=depth)


def apart_over_fused(bench: Bench) -> Iterator[Measured]:
    for backend in bench.backends:
        candidates = {name: Candidate(backend, _logits(loss).graph) for name, loss in WAYS.items()}
        problem = _logits(_fused)
        report = verify(candidates, problem.params, problem.batch, backends=None, name="log_softmax", **bench.how)
        found = bench.of(report)
        if found.keys() >= WAYS.keys() and (ratio := ratio_of(found["apart"], found["fused"], "forward_backward")):
            yield Measured(f"{backend}, forward + backward", ratio)


def error_apart_over_fused(bench: Bench) -> Iterator[Measured]:
    """By the errors of the gradients, whose truth has 256 bits."""
    for spread in SPREADS:
        errors: dict[str, dict[str, float]] = {}
        for name, loss in WAYS.items():
            how: dict[str, Any] = {**bench.how, "reference": "extended"}
            report = verify(_logits(loss, rows=8, classes=32, spread=spread), backends=tuple(bench.backends), **how)
            for row in report.rows:
                if row.parameter is not None:  # without an error it is not finite
                    errors.setdefault(row.candidate, {})[name] = math.inf if row.error is None else row.error
        for backend, found in errors.items():
            if found.keys() >= WAYS.keys() and 0 < found["fused"] < math.inf:
                times = found["apart"] / found["fused"]
                note = f"errors {found['apart']:.2g} and {found['fused']:.2g}"
                yield Measured(f"{backend}, logits of spread {spread:g}", Interval(times, times, times), note)


def _logits(loss: Any, rows: int = ROWS, classes: int = CLASSES, spread: float = SPREADS[0]) -> Problem:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((rows, classes)) / rows
    return Problem("log_softmax", loss, {"x": spread * rng.standard_normal((rows, classes))}, {"weights": weights})


def _fused(params: Any, batch: Any) -> Any:
    return (ops.log_softmax(params["x"], axis=-1) * batch["weights"]).sum()


def _apart(params: Any, batch: Any) -> Any:
    return (ops.log(ops.softmax(params["x"], axis=-1)) * batch["weights"]).sum()


WAYS = {"fused": _fused, "apart": _apart}


def time_of_checkpoints(bench: Bench) -> Iterator[Measured]:
    for backend, found in _checkpoints(bench):
        if ratio := ratio_of(found[_with(backend)], found[backend], "forward_backward"):
            yield Measured(f"mlp of depth {DEPTHS[-1]}, {backend}, {SEGMENTS} segments", ratio)


def memory_of_checkpoints(bench: Bench) -> Iterator[Measured]:
    for backend, found in _checkpoints(bench):
        held, whole = found[_with(backend)].memory, found[backend].memory
        if held is not None and whole:
            part = held / whole
            note = f"{held / 2**20:.3g} MiB of {whole / 2**20:.3g} MiB"
            yield Measured(
                f"mlp of depth {DEPTHS[-1]}, {backend}, {SEGMENTS} segments", Interval(part, part, part), note
            )


def _checkpoints(bench: Bench) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for backend in WITHOUT_TAPE:
        if bench.has(backend):
            other = {_with(backend): Candidate(backend, options={"segments": SEGMENTS})}
            found = bench.timed(_deep(DEPTHS[-1]), (backend,), other)
            if found.keys() >= {backend, _with(backend)}:
                yield backend, found


def _with(backend: str) -> str:
    return f"{backend}, checkpoints"
