"""Random graphs of the whole vocabulary, on which the backends agree; and the faults that they would find.

A graph counts if it calls at least `FEWEST` ops, occurs for the first time, and if each of its gradients was
judged on every backend, one of them at least not zero. Many share a problem, as jax takes long to compile one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from random import Random, randrange

import pytest
from hypothesis import HealthCheck, find, given, seed, settings

from gradwitness.graph import LITERAL, Graph
from gradwitness.networks.single_ops import bundle
from gradwitness.ops import OPS
from gradwitness.report import Report, Row
from gradwitness.report.findings import findings
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict
from gradwitness.verification import verify_problems
from gradwitness_numpy.rules import RULES
from tests.conformance.test_planted_faults import DIFFERENTIABLE, flipped
from tests.programs import Program, boolean, call, definite, dominant, labels, positive, real
from tests.strategies import programs

DIRECT = ("numpy", "torch", "jax")
FEWEST = 3  # ops of a graph that counts
TOGETHER = 24  # graphs in a problem
ALLOWED = 0.02  # of the graphs may be inconclusive: a kink within a step of the differences, a saturated gradient
EXPLORING = settings(
    database=None,
    deadline=None,
    derandomize=False,  # Hypothesis' own profile for CI would give every night the same graphs
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def verified(graphs: Sequence[Program], backends: Sequence[str], dtype: str) -> Report:
    problems = [graph.problem(f"g{i}") for i, graph in enumerate(graphs)]
    return verify_problems([(bundle("random", problems), backends)], Settings(dtypes=(dtype,)))


def faults(report: Report) -> list[str]:
    """What neither agrees nor says that it cannot tell, or agrees without a reference in 256 bits, a line each."""
    passing = (Verdict.AGREE, Verdict.CONVENTION, Verdict.INCONCLUSIVE)
    wrong = findings(row for row in report.rows if row.verdict not in passing)
    return wrong + [row.refused for row in report.rows if row.refused and row.verdict is Verdict.AGREE]


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

    def expect(self, *, counted: int) -> None:
        assert len(self.counted) >= counted
        share = len(self.inconclusive) / (len(self.counted) + len(self.inconclusive))
        assert share <= ALLOWED, f"{share:.1%} inconclusive, such as {next(iter(self.inconclusive))}"


def walk(examples: int, dtype: str, *, number: int, backends: Sequence[str] = DIRECT) -> Tally:
    """Graphs on which all agree. Hypothesis draws them from the seed `number`, and shrinks one on which they do not."""
    graphs, tally = drawn(examples, number), Tally(backends)
    fine: set[str] = set()
    for start in range(0, len(graphs), TOGETHER):
        together = graphs[start : start + TOGETHER]
        report = verified(together, backends, dtype)
        if faults(report):
            shrink(fine, examples, number, backends, dtype)
            raise AssertionError("\n".join([*faults(report), *map(repr, together), "(none of them alone)"]))
        tally.add(together, report)
        fine |= set(map(repr, together))
    return tally


def drawn(examples: int, number: int) -> Sequence[Program]:
    """The same graphs for the same number, each once."""
    found: dict[str, Program] = {}

    @seed(number)
    @settings(EXPLORING, max_examples=examples)
    @given(programs())
    def collect(graph: Program) -> None:
        if len(graph.calls) >= FEWEST:
            found.setdefault(repr(graph), graph)

    collect()
    return list(found.values())


def shrink(fine: Collection[str], examples: int, number: int, backends: Sequence[str], dtype: str) -> None:
    """Draw the same graphs again up to the first on which the backends do not agree, and raise with the simplest."""

    @seed(number)
    @settings(EXPLORING, max_examples=examples)
    @given(programs())
    def agree(graph: Program) -> None:
        if repr(graph) not in fine:
            found = faults(verified([graph], backends, dtype))
            assert not found, "\n".join([*found, repr(graph)])  # Hypothesis shows how it was drawn, at length

    agree()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(11, 16))
def test_500_random_graphs_agree_in_float64(number: int) -> None:
    """A hundred in each of five walks, so that several processes may share them. jax, which takes most of the time,
    comes each night."""
    walk(190, "float64", number=number, backends=("numpy", "torch")).expect(counted=100)


@pytest.mark.nightly
@pytest.mark.parametrize("number", range(11, 16))
def test_500_random_graphs_agree_in_jax(number: int) -> None:
    walk(190, "float64", number=number, backends=("jax",)).expect(counted=100)


@pytest.mark.nightly
def test_these_graphs_call_every_op() -> None:
    called = {op for number in range(11, 16) for graph in drawn(190, number) for op in graph.op_names}
    assert called >= set(DIFFERENTIABLE)


@pytest.mark.nightly
def test_random_graphs_agree_in_float32() -> None:
    walk(100, "float32", number=2).expect(counted=60)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_other_random_graphs_each_night_agree(dtype: str) -> None:
    number = randrange(2**32)
    print(f"seed {number}")  # pytest shows it with a failure
    walk(1200, dtype, number=number).expect(counted=800)


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_fixed_sample_agrees_compiled(dtype: str) -> None:
    graphs = drawn(100, 3)[-12:]  # those that Hypothesis begins with are the simplest
    report = verified(graphs, ["torch.compile"], dtype)
    assert not faults(report), "\n".join([*map(repr, graphs), *faults(report)])
    tally = Tally(["torch.compile"])
    tally.add(graphs, report)
    assert len(tally.counted) >= 10


def has_fan_out(graph: Graph) -> bool:
    used = [node.id for user in graph.nodes for node in user.inputs if node]
    return len(set(used)) < len(used)


def has_broadcasting(graph: Graph) -> bool:
    pairs = [node.inputs for node in graph.nodes if node.is_op and OPS[node.op].broadcasts]
    return any(len({node.spec.shape for node in pair if node and node.op != LITERAL}) > 1 for pair in pairs)


def has_residual(graph: Graph) -> bool:
    """Whether a value meets again what an op has made of it."""
    origins: dict[int, set[int]] = {}  # of each node, by id: all that it is computed from
    for node in graph.nodes:
        inputs = [n for n in node.inputs if n is not None]
        if any(a.id in origins[b.id] for a in inputs for b in inputs):
            return True
        origins[node.id] = {n.id for n in inputs}.union(*(origins[n.id] for n in inputs))
    return False


@pytest.mark.nightly
@pytest.mark.parametrize("has", [has_fan_out, has_broadcasting, has_residual])
def test_one_in_ten_graphs_has(has: Callable[[Graph], bool]) -> None:
    graphs = [program.problem().graph for program in drawn(300, 3)]
    assert sum(map(has, graphs)) >= len(graphs) / 10


# of families that have little in common
PLANTED = ("tanh", "take", "norm", "log_softmax", "conv2d", "layer_norm")


def plant(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RULES[op]
    monkeypatch.setitem(RULES, op, replace(rule, vjp=lambda g, step: [flipped(c) for c in rule.vjp(g, step)]))


@pytest.mark.nightly
@pytest.mark.parametrize("op", PLANTED)
def test_a_wrong_vjp_is_found_and_shrunk_to_its_op(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(op, monkeypatch)

    def is_wrong(graph: Program) -> bool:  # of the graphs without the op, the walk says that none is
        return op in graph.op_names and bool(faults(verified([graph], ["numpy"], "float64")))

    examples = settings(EXPLORING, max_examples=2000)
    found = find(programs(largest=4), is_wrong, settings=examples, random=Random(0))
    assert len(found.calls) <= 2, found
    monkeypatch.undo()
    assert not faults(verified([found], ["numpy"], "float64"))


@pytest.mark.nightly
def test_the_walk_ends_at_a_wrong_vjp_with_a_graph_to_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    plant("exp", monkeypatch)
    with pytest.raises(AssertionError, match="disagree") as failure:
        walk(200, "float64", number=1, backends=["numpy"])
    shown = str(failure.value)
    graph = eval(shown[shown.index("Program(") : shown.rindex("))") + 2])
    assert isinstance(graph, Program)
    assert "exp" in graph.op_names
    assert len(graph.calls) <= 2


NAMES = (Program, boolean, call, definite, dominant, labels, positive, real)


def test_a_graph_prints_as_what_gives_it_back() -> None:
    for graph in drawn(100, 3):
        again = eval(
            repr(graph), {f.__name__: f for f in (Program, boolean, call, definite, dominant, labels, positive, real)}
        )
        assert again == graph
