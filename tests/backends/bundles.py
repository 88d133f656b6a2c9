"""Problems that hold every sample of several ops, each with leaves of its own: one compilation for many ops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from gradwitness import ops
from gradwitness.graph import spec_of
from gradwitness.ops import OPS, Op, Spec
from gradwitness.ops.samples import Sample
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Prepared
from gradwitness.registry import backend

Array = np.ndarray[Any, Any]
Result = tuple[float, dict[str, Array | None]]

FAMILIES: dict[str, tuple[str, ...]] = {}
for _op in OPS.values():
    _family = _op.rule.__module__.rsplit(".", 1)[-1]
    FAMILIES[_family] = (*FAMILIES.get(_family, ()), _op.name)
FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names}


def sample_calls() -> Iterator[tuple[Op, list[Array | None], dict[str, Any]]]:
    """Every sample of every op as adapters are called: all operands, attributes in canonical form."""
    rng = np.random.default_rng(0)
    for op in OPS.values():
        for sample in op.samples:
            operands = [None if d is None else d.array(rng) for d in sample.operands]
            operands += [None] * (len(op.operand_names) - len(operands))
            specs = [None if a is None else spec_of(a) for a in operands]
            yield op, operands, op.attributes(specs, sample.attributes)


@cache
def bundle(*names: str, samples: int | None = None) -> Problem:
    """The sum, over the samples of these ops (all, or the first few), of its results times random weights."""
    calls = {f"{name}.{i}": (OPS[name], s) for name in names for i, s in enumerate(OPS[name].samples[:samples])}
    params: dict[str, Any] = {}
    batch: dict[str, Any] = {}
    for seed, (call, (op, sample)) in enumerate(calls.items()):
        key = call.replace(".", "_")
        rng = np.random.default_rng(seed)
        operands = [None if d is None else d.array(rng) for d in sample.operands]
        params[key] = {str(i): a for i, a in enumerate(operands) if a is not None and a.dtype.kind == "f"}
        batch[key] = {str(i): a for i, a in enumerate(operands) if a is not None and a.dtype.kind != "f"}
        results = _results(op, sample, operands)
        batch[key] |= {f"w{i}": rng.standard_normal(spec.shape) for i, spec in enumerate(results)}
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
def run(name: str, *names: str, dtype: str = "float64", decomposed: bool = False, samples: int | None = None) -> Result:
    """Value and gradient of the bundle of these ops in a backend."""
    problem = bundle(*names, samples=samples).rounded(dtype)
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


def faults(found: Result, expected: Result, op: str) -> dict[str, float]:
    """The errors of the value and of the gradients of one op's samples, those over 1e-10."""
    errors = {"value": error(np.array(found[0]), np.array(expected[0]))}
    errors |= {path: error(g, expected[1][path]) for path, g in found[1].items() if _op_of(path) == op}
    return {path: e for path, e in errors.items() if not e < 1e-10}


def _op_of(path: str) -> str:
    return path.split(".")[0].rsplit("_", 1)[0]


def prepare(name: str, problem: Problem, dtype: str = "float64") -> Prepared:
    """A problem's own graph in a backend, on the CPU, at the point that the dtype can hold."""
    return backend(name).prepare(Candidate(name), problem.rounded(dtype), dtype=dtype, device="cpu")


def edge_problems() -> dict[str, Problem]:
    """Points and operands off the samples' beaten track, where adapters have been wrong."""
    rng = np.random.default_rng(7)
    draw = rng.standard_normal
    mask = np.array([[True, False, True], [False, False, False], [True, True, True], [False, True, False]])
    labels = np.array([0, 3, -100, 1, 1, -100])
    query, memory = draw((2, 2, 4, 5)), {"k": draw((2, 2, 3, 5)), "v": draw((2, 2, 3, 2))}

    def attend(mask_name: str | None, causal: bool) -> Callable[[Any, Any], Any]:
        def loss(p: Any, b: Any) -> Any:
            allowed = None if mask_name is None else b[mask_name]
            mixed = ops.scaled_dot_product_attention(p["q"], p["k"], p["v"], allowed, is_causal=causal)
            return (mixed * b["w"]).sum()

        return loss

    weights = {"w": draw((2, 2, 4, 2)), "mask": mask}
    vector, ints = {"x": draw(6)}, {"y": labels}
    cases: dict[str, tuple[Any, Any, Any]] = {
        "attention row fully masked": (attend("mask", False), {"q": query, **memory}, weights),
        "causal, more queries than keys": (attend(None, True), {"q": query, **memory}, weights),
        "ignored labels": (
            lambda p, b: ops.cross_entropy(p["x"], b["y"], reduction="mean", label_smoothing=0.1),
            {"x": draw((6, 4))},
            ints,
        ),
        "literals": (
            lambda p, b: (
                2.0 ** p["x"]
                + ops.maximum(p["x"], 0.0) / (3 + p["x"] ** 2)
                + ops.minimum(0.5, p["x"])
                + ops.where(p["x"] > 0, 1 / 3, 0.1) * p["x"]
                + ops.where(ops.greater(3, b["y"]), p["x"], 2.0)
                + ops.where(True, p["x"], 0.0)
            ).sum(),
            vector,
            ints,
        ),
        "powers of a negative base": (
            lambda p, b: (p["x"] ** 2 + p["x"] ** 3.0 + p["x"] ** -1 + p["x"] ** 0 + p["x"] ** 1).sum(),
            {"x": -1 - draw(6) ** 2},
            {},
        ),
        "scalars reduced": (
            lambda p, b: sum((f(p["s"] * 1.5) for f in (ops.sum, ops.mean, ops.max, ops.norm, ops.var)), start=p["s"]),
            {"s": np.array(-0.7)},
            {},
        ),
        "no axis reduced": (lambda p, b: (ops.norm(p["x"], axis=()) * ops.sum(p["x"], axis=())).sum(), vector, {}),
        "loss of shape [1]": (lambda p, b: (p["x"] * p["x"]).sum(keepdims=True), vector, {}),
        "labels out of range": (
            lambda p, b: (
                (ops.one_hot(b["y"], num_classes=3) @ p["x"]).sum() + ops.one_hot(b["y"], num_classes=3).mean()
            ),
            {"x": draw((3, 2))},
            ints,
        ),
        "scalar literals beside scalars": (
            lambda p, b: (
                ops.stack([p["x"][0], 1.0, p["x"][1]], axis=0)[1:].sum()
                + ops.mse(p["x"].sum(), 0.3, reduction="mean", half=False)
                + ops.huber(0.3, p["x"].sum(), delta=0.1, reduction="sum")
            ),
            vector,
            {},
        ),
    }
    return {name: Problem(name, *case) for name, case in cases.items()}
