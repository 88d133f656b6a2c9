"""Problems that hold every sample of several ops, each with leaves of its own: one compilation for many ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from gradwitness import ops
from gradwitness.graph import spec_of
from gradwitness.ops import OPS, Op, Spec
from gradwitness.ops.samples import Sample
from gradwitness.problem import Candidate, Problem
from gradwitness.registry import backend

Array = np.ndarray[Any, Any]
Result = tuple[float, dict[str, Array | None]]

FAMILIES: dict[str, tuple[str, ...]] = {}
for _op in OPS.values():
    _family = _op.rule.__module__.rsplit(".", 1)[-1]
    FAMILIES[_family] = (*FAMILIES.get(_family, ()), _op.name)
FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names}


@cache
def bundle(*names: str) -> Problem:
    """The sum, over every sample of these ops, of its results times random weights."""
    calls = {f"{name}.{i}": (OPS[name], s) for name in names for i, s in enumerate(OPS[name].samples)}
    params: dict[str, Any] = {}
    batch: dict[str, Any] = {}
    for seed, (call, (op, sample)) in enumerate(calls.items()):
        key = call.replace(".", "_")
        rng = np.random.default_rng(seed)
        operands = [None if d is None else d.array(rng) for d in sample.operands]
        params[key] = {str(i): a for i, a in enumerate(operands) if a is not None and a.dtype.kind == "f"}
        batch[key] = {str(i): a for i, a in enumerate(operands) if a is not None and a.dtype.kind != "f"}
        batch[key] |= {f"w{i}": rng.standard_normal(spec.shape) for i, spec in enumerate(_results(op, sample, operands))}
    params = {key: leaves for key, leaves in params.items() if leaves} or {"unused": np.ones(2)}
    return Problem("+".join(names), _loss(list(calls.values()), list(batch)), params, batch)


def _results(op: Op, sample: Sample, operands: list[Array | None]) -> tuple[Spec, ...]:
    specs = [None if a is None else spec_of(a) for a in operands]
    result = op.rule(*specs, **op.attributes(specs, sample.attributes))
    return result if isinstance(result, tuple) else (result,)


def _loss(calls: list[tuple[Op, Sample]], keys: list[str]) -> Callable[[Any, Any], Any]:
    def loss(params: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        total: Any = 0.0
        for key, (op, sample) in zip(keys, calls, strict=True):
            leaves = {**params.get(key, {}), **batch[key]}
            operands = [leaves.get(str(i)) for i in range(len(sample.operands))]
            result = getattr(ops, op.name)(*([operands] if op.variadic else operands), **sample.attributes)
            for i, part in enumerate(result if isinstance(result, tuple) else (result,)):
                weights = leaves[f"w{i}"]
                total = total + (part * weights if part.dtype == "float" else ops.where(part, weights, 0.0)).sum()
        return total

    return loss


@cache
def run(name: str, *names: str, dtype: str = "float64", decomposed: bool = False) -> Result:
    """Value and gradient of the bundle of these ops in a backend."""
    problem = bundle(*names).rounded(dtype)
    candidate = Candidate(name, problem.graph.decomposed() if decomposed else None)
    with backend(name).precision("highest"):
        prepared = backend(name).prepare(candidate, problem, dtype=dtype, device="cpu")
        return prepared.value_and_gradient(problem.primals)


def error(found: Array | None, expected: Array | None) -> float:
    """The norm of the difference relative to the norm of what was expected; None counts as zero."""
    if expected is None:
        return 0.0 if found is None else float(np.linalg.norm(found))
    difference = -expected if found is None else found - expected
    assert difference.shape == expected.shape
    return float(np.linalg.norm(difference) / (np.linalg.norm(expected) or 1.0))


def worst(found: Result, expected: Result, op: str) -> dict[str, float]:
    """The errors of the value and of the gradients of one op's samples, those over 1e-10."""
    errors = {"value": error(np.array(found[0]), np.array(expected[0]))}
    errors |= {p: error(g, expected[1][p]) for p, g in found[1].items() if p.rsplit(".", 1)[0].rsplit("_", 1)[0] == op}
    return {path: e for path, e in errors.items() if not e < 1e-10}
