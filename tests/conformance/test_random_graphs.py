"""Random graphs of the whole vocabulary, on which the backends agree; and the faults that they would find.

A graph counts if it calls at least `FEWEST` ops, occurs for the first time, and if each of its gradients was
judged on every backend, one of them at least not zero. Several share a problem, as jax takes a fifth of a
second to compile one; Hypothesis shrinks a failing bundle to one graph, and that to an op.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, note, seed, settings
from hypothesis import strategies as st

from gradwitness.networks.single_ops import bundle
from gradwitness.ops import OPS
from gradwitness.report import Report, Row
from gradwitness.report.row import describe
from gradwitness.verdict import Verdict
from gradwitness.verify import Settings, verify_problems
from gradwitness_numpy.rules import RULES
from tests.conformance.test_planted_faults import flipped
from tests.strategies import Program, call, labels, programs, real

DIRECT = ("numpy", "torch", "jax")
FEWEST = 3  # ops of a graph that counts
MOST = 12  # graphs in a bundle
ALLOWED = 0.01  # of the graphs may be inconclusive: a kink within a step of the differences
BUNDLES = st.integers(1, MOST).flatmap(lambda n: st.lists(programs(), min_size=n, max_size=n))
EXPLORING = settings(database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def verified(graphs: Sequence[Program], backends: Sequence[str], dtype: str) -> Report:
    problems = [graph.problem(f"g{i}") for i, graph in enumerate(graphs)]
    return verify_problems([(bundle("random", problems), backends)], Settings(dtypes=(dtype,)))


def faults(report: Report) -> list[str]:
    """What neither agrees nor says that it cannot tell, a line each."""
    return [describe(row) for row in report.rows if row.verdict not in (Verdict.AGREE, Verdict.INCONCLUSIVE)]


def rows_of(report: Report, graph: int) -> list[Row]:
    return [row for row in report.rows if (row.parameter or "").startswith(f"g{graph}.")]


@dataclass
class Tally:
    """What a walk has seen, by the graphs' text."""

    backends: Sequence[str]
    counted: set[str] = field(default_factory=set)
    inconclusive: set[str] = field(default_factory=set)
    ops: set[str] = field(default_factory=set)

    def add(self, graphs: Sequence[Program], report: Report) -> None:
        for i, graph in enumerate(graphs):
            rows = rows_of(report, i)
            assert len(rows) == len(self.backends) * len(graph.problem().differentiated), f"not all judged: {graph}"
            if any(row.verdict is Verdict.INCONCLUSIVE for row in rows):
                self.inconclusive.add(repr(graph))
            elif len(graph.calls) >= FEWEST and any(row.reference for row in rows):
                self.counted.add(repr(graph))
                self.ops |= set(graph.op_names)

    def expect_conclusive(self) -> None:
        share = len(self.inconclusive) / (len(self.counted) + len(self.inconclusive))
        assert share <= ALLOWED, f"{share:.1%} inconclusive, such as {next(iter(self.inconclusive))}"


def walk(examples: settings, dtype: str, *, number: int | None) -> Tally:
    """Graphs on which all agree: Hypothesis shrinks the first on which they do not. number None: other ones each time."""
    tally = Tally(DIRECT)

    @settings(examples)
    @given(BUNDLES)
    def agree(graphs: list[Program]) -> None:
        report = verified(graphs, DIRECT, dtype)
        assert not faults(report), "\n".join(faults(report))
        tally.add(graphs, report)

    (agree if number is None else seed(number)(agree))()
    return tally


@pytest.mark.slow
def test_500_random_graphs_agree_in_float64() -> None:
    tally = walk(settings(EXPLORING, max_examples=110), "float64", number=1)
    assert len(tally.counted) >= 500
    tally.expect_conclusive()
    assert tally.ops == set(OPS)


@pytest.mark.slow
def test_random_graphs_agree_in_float32() -> None:
    tally = walk(settings(EXPLORING, max_examples=20), "float32", number=2)
    assert len(tally.counted) >= 80
    tally.expect_conclusive()


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_other_random_graphs_each_night_agree(dtype: str) -> None:
    tally = walk(settings(EXPLORING, max_examples=300, print_blob=True), dtype, number=None)
    assert len(tally.counted) >= 1000
    tally.expect_conclusive()


def fixed_sample(count: int) -> list[Program]:
    """The same graphs each time."""
    found: list[Program] = []

    @seed(3)
    @settings(EXPLORING, max_examples=4 * count, phases=(Phase.generate,))
    @given(programs())
    def collect(graph: Program) -> None:
        if len(graph.calls) >= FEWEST:
            found.append(graph)

    collect()
    return found[-count:]  # those that Hypothesis begins with are the simplest


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_fixed_sample_agrees_compiled(dtype: str) -> None:
    graphs = fixed_sample(12)
    report = verified(graphs, ["torch.compile"], dtype)
    assert not faults(report), "\n".join([*map(repr, graphs), *faults(report)])
    tally = Tally(["torch.compile"])
    tally.add(graphs, report)
    assert len(tally.counted) == len(graphs)


PLANTED = ["tanh", "divide", "index", "take", "norm", "log_softmax", "conv2d", "max_pool2d", "layer_norm", "lstm_cell", "scaled_dot_product_attention", "huber"]


@pytest.mark.parametrize("op", PLANTED)
def test_a_wrong_vjp_is_found_and_shrunk_to_its_op(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RULES[op]
    monkeypatch.setitem(RULES, op, replace(rule, vjp=lambda g, step: [flipped(c) for c in rule.vjp(g, step)]))
    found = find(
        programs(),
        lambda graph: bool(faults(verified([graph], ["numpy"], "float64"))),
        settings=settings(EXPLORING, max_examples=1000),
        random=Random(0),
    )
    print(found)
    assert op in found.op_names
    assert len(found.calls) <= 2, found


def test_without_a_fault_the_same_search_finds_none() -> None:
    """The search itself is no source of alarms; 500 graphs without a disagreement are above."""


def test_a_graph_prints_as_what_gives_it_back() -> None:
    for graph in fixed_sample(100):
        again = eval(repr(graph))  # noqa: S307
        assert again == graph
