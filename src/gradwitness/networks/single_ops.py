"""One small problem per op and operand: what `--ops` runs. And the same, bundled by family, for compilers."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gradwitness import ops
from gradwitness.dtypes import Array
from gradwitness.graph import spec_of
from gradwitness.networks.initial import generator
from gradwitness.ops import OPS, Op, Spec, Value
from gradwitness.ops.samples import Sample
from gradwitness.ops.value import FLOAT
from gradwitness.problem import Problem

__all__ = ["INNER", "bundle", "op_bundles", "op_problems", "problems_of"]

Operands = dict[str, Array]  # one sample's operands by name, those that are given
Contraction = Callable[[Op, Value, Value], Value]  # of an op's result with its cotangent

INNER = {"multiply", "sum", "matmul", "reshape"}  # what the inner product with a cotangent takes
WITHOUT_GRADIENT = ("stop_gradient",)  # its gradient is zero by definition


def op_problems(seed: int = 0, *, vocabulary: Collection[str] | None = None) -> list[Problem]:
    """A problem `matmul.x` for each op and each floating operand of it, over all its samples that have one.

    The loss is the sum of the results times random cotangents. Leaf `sample0.x` is the operand, in
    params; the sample's others and `sample0.cotangent.0`, one for each result, are in batch. With a
    smaller vocabulary, only its ops are tried and used: where it lacks one of multiply, sum, matmul and
    reshape, the loss is half the squared distance from the cotangents, by mse. add it must have.
    """
    known = set(OPS if vocabulary is None else vocabulary)
    chosen = [op for op in OPS.values() if op.name in known and op.name not in WITHOUT_GRADIENT]
    inner = _inner if known >= INNER else _half_square
    return [problem for op in chosen for problem in _problems(op, seed, inner)]


def problems_of(op: Op, seed: int = 0) -> list[Problem]:
    """The problems of one op."""
    return list(_problems(op, seed, _inner))


def op_bundles(seed: int = 0, *, vocabulary: Collection[str] | None = None) -> list[Problem]:
    """The problems of `op_problems` in one problem per family of ops: `ops.reductions`, leaf `max.x.sample0.x`."""
    families: dict[str, list[Problem]] = {}
    for problem in op_problems(seed, vocabulary=vocabulary):
        op = OPS[problem.name.partition(".")[0]]
        families.setdefault(op.family, []).append(problem)
    return [bundle(f"ops.{family}", problems) for family, problems in families.items()]


def bundle(name: str, problems: Sequence[Problem]) -> Problem:
    """One problem whose loss is the sum of theirs, the leaves of each nested under the parts of its name."""
    names = [problem.name.split(".") for problem in problems]
    parts = [(problem.loss, parts) for problem, parts in zip(problems, names, strict=True) if callable(problem.loss)]

    def loss(params: Any, batch: Any) -> Value:
        losses: list[Value] = [part(_find(params, name), _find(batch, name)) for part, name in parts]
        return functools.reduce(ops.add, losses)

    return Problem(
        name, loss, _nested(names, [p.params for p in problems]), _nested(names, [p.batch for p in problems])
    )


def _problems(op: Op, seed: int, inner: Contraction) -> Iterator[Problem]:
    rng = generator(f"op:{op.name}", seed)  # apart from networks of the same name
    drawn = [_operands(op, sample, rng) for sample in op.samples]
    results = [_results(op, operands, sample) for operands, sample in zip(drawn, op.samples, strict=True)]
    if any(result.dtype != FLOAT for sample_results in results for result in sample_results):
        return  # comparisons
    cotangents = [[np.asarray(rng.standard_normal(r.shape)) for r in sample_results] for sample_results in results]
    for operand in _floating(drawn):
        chosen = [i for i, operands in enumerate(drawn) if operand in operands]
        params = {f"sample{i}": {operand: drawn[i][operand]} for i in chosen}
        others = {i: {name: array for name, array in drawn[i].items() if name != operand} for i in chosen}
        batch = {f"sample{i}": {**others[i], "cotangent": cotangents[i]} for i in chosen}
        yield Problem(f"{op.name}.{operand}", functools.partial(_loss, op, chosen, inner), params, batch)


def _loss(op: Op, chosen: Sequence[int], inner: Contraction, params: Any, batch: Any) -> Value:
    """The sum over samples and results of result times cotangent."""
    terms: list[Value] = []
    for i in chosen:
        result = _call(op, {**batch[f"sample{i}"], **params[f"sample{i}"]}, op.samples[i])
        results = result if isinstance(result, tuple) else (result,)
        terms += [inner(op, r, c) for r, c in zip(results, batch[f"sample{i}"]["cotangent"], strict=True)]
    return functools.reduce(ops.add, terms)


def _inner(op: Op, result: Value, cotangent: Value) -> Value:
    """sum(result * cotangent), by another op than the one on trial: two equal faults would cancel."""
    if op.name == "multiply":
        return ops.matmul(result.reshape(-1), cotangent.reshape(-1))
    product = result * cotangent
    return product.sum() if product.ndim else product


def _half_square(op: Op, result: Value, cotangent: Value) -> Value:
    """Half of sum((result - cotangent)^2), whose cotangent is their difference; a loss's own result is left alone."""
    if op.name == "mse":
        return result
    return ops.mse(result, cotangent, reduction="sum", half=True)


def _call(op: Op, operands: Mapping[str, Any], sample: Sample) -> Any:
    arrays = [operands.get(op.name_of_operand(i)) for i in range(len(sample.operands))]
    return op(*arrays, **sample.attributes)


def _operands(op: Op, sample: Sample, rng: np.random.Generator) -> Operands:
    return {op.name_of_operand(i): np.asarray(d.array(rng)) for i, d in enumerate(sample.operands) if d is not None}


def _results(op: Op, operands: Operands, sample: Sample) -> tuple[Spec, ...]:
    names = [op.name_of_operand(i) for i in range(len(sample.operands))]
    specs = [spec_of(operands[name]) if name in operands else None for name in names]
    result = op.rule(*specs, **op.attributes(specs, sample.attributes))
    return result if isinstance(result, tuple) else (result,)


def _floating(drawn: Sequence[Operands]) -> list[str]:
    """Names of the floating operands, in order."""
    names = {name: None for operands in drawn for name, array in operands.items() if array.dtype.kind == "f"}
    return list(names)


def _nested(names: Sequence[Sequence[str]], trees: Sequence[Any]) -> dict[str, Any]:
    """Nested dicts in which `_find(nested, name)` is the tree of that name."""
    nested: dict[str, Any] = {}
    for name, tree in zip(names, trees, strict=True):
        node = nested
        for part in name[:-1]:
            node = node.setdefault(part, {})
        node[name[-1]] = tree
    return nested


def _find(nested: Any, name: Sequence[str]) -> Any:
    return functools.reduce(operator.getitem, name, nested)
