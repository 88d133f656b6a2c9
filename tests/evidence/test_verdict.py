"""The verdict: each one reached by a planted fault, and none raised for a right gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import gradwitness as gw
from gradwitness import ops
from gradwitness.arithmetic import Arithmetic
from gradwitness.evidence.finite_difference import Probe
from gradwitness.evidence.groups import NEGLIGIBLE, PROMISED
from gradwitness.evidence.noise_floor import TensorFloor, tensor_floor
from gradwitness.evidence.norms import norm
from gradwitness.evidence.perturbed_runs import RUNS
from gradwitness.evidence.reach import JITTER_REACH, Reach, node_reach, threshold
from gradwitness.evidence.reference import Exact, exactly
from gradwitness.evidence.sight import Refutation, Sight
from gradwitness.problem import Candidate, Problem
from gradwitness.report import Address
from gradwitness.run.referee import graph_referee
from gradwitness.run.trial import Trial
from gradwitness.run.witness import OfGraph
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict, checks
from gradwitness.verdict.checks import CHECKS, judge
from gradwitness.verdict.leaf import LeafEvidence, Standing
from gradwitness.verdict.losses import judge_loss

Array = np.ndarray[Any, Any]
G = np.random.default_rng(0).standard_normal((4, 5))
SPREAD = 1e-7
ROUNDING = SPREAD * np.random.default_rng(1).standard_normal(G.shape)


def sight(gradient: Array, truth: Array, bound: float) -> Sight:
    """Of a gradient, by differences of every element that are known within `bound`; the largest share is about 1."""
    error, size = np.abs(gradient - truth), gradient.size
    index = int(np.argmax(error))
    probe, claim = Probe(float(truth.flat[index]), bound, index), float(gradient.flat[index])
    is_seen = bound <= PROMISED * norm(gradient) or max(norm(gradient), bound) <= NEGLIGIBLE
    return Sight(
        size,
        refuted=Refutation(probe, claim) if error.flat[index] > bound else None,
        seen=size if is_seen else 0,
        unseen=0 if is_seen else size,
        limit=bound,
        limit_element=bound,
    )


def evidence(reference: Array = G, *, spread: float = SPREAD, bound: float = 1e-10, truth: Array = G) -> LeafEvidence:
    """float32 evidence: every coordinate of `truth` differenced within `bound`, and a uniform floor."""
    floor = TensorFloor(spread * np.sqrt(reference.size), np.full(reference.shape, spread))
    probes = tuple(Probe(float(v), bound, index=i) for i, v in enumerate(truth.reshape(-1)))
    seen = sight(reference, truth, bound)
    standing = Standing.CONFIRMED if seen.refuted is None else Standing.REFUTED
    return LeafEvidence(
        "float32",
        exactly(reference),
        standing,
        floor,
        node_reach(floor),
        seen,
        partial(sight, truth=truth, bound=bound + threshold(RUNS, truth.size) * spread),
        scale=norm(G),
        probes=probes,
    )


def own(gradient: Array, *, truth: Array = G, bound: float = 1e-10, **known: Any) -> LeafEvidence:
    """Of a user's own loss, in float64: what is judged is the gradient that the differences look at."""
    seen = sight(gradient, truth, bound)
    found = replace(evidence(gradient), standing=Standing.OWN, sight=seen, sight_of=None, probes=(), reached=None)
    return replace(found, **known)


def wrong(index: tuple[int, int], by: float) -> Array:
    gradient = G + ROUNDING
    gradient[index] += by
    return gradient


def test_rounding_agrees() -> None:
    judgement = judge(G + ROUNDING, evidence())
    assert judgement.verdict is Verdict.AGREE
    assert judgement.ratio is not None
    assert judgement.ratio < 0.3
    assert judgement.limit == pytest.approx(threshold(16) * SPREAD * np.sqrt(20) + 1e-10)
    assert judgement.limit_element == pytest.approx(threshold(16, 20) * SPREAD + 1e-10)


@pytest.mark.parametrize(
    ("gradient", "verdict"),
    [
        (2 * G, Verdict.DISAGREE),
        (-G, Verdict.DISAGREE),
        (0 * G, Verdict.DISAGREE),
        (G * (1 + 1e-5), Verdict.DISAGREE),
        (wrong((2, 3), 1e-5), Verdict.DISAGREE),
        (wrong((2, 3), np.nan), Verdict.NONFINITE),
        (wrong((2, 3), np.inf), Verdict.NONFINITE),
        (None, Verdict.MISSING),
        (G[:2], Verdict.ERROR),
        (G.T, Verdict.ERROR),
    ],
)
def test_planted_faults_are_named(gradient: Array | None, verdict: Verdict) -> None:
    judgement = judge(gradient, evidence())
    assert judgement.verdict is verdict
    assert judgement.message


def test_the_message_shows_the_worst_element_and_its_finite_difference() -> None:
    message = judge(wrong((2, 3), 1e-3), evidence()).message
    assert f"worst at [2, 3]: {G[2, 3] + ROUNDING[2, 3] + 1e-3:.9g}, expected {G[2, 3]:.9g}" in message
    assert f"finite difference {G[2, 3]:.9g} +- 1e-10" in message


def test_none_for_a_parameter_that_no_path_reaches_equals_zeros() -> None:
    unreached = replace(evidence(0 * G, spread=0.0, truth=0 * G), reached=False)
    assert judge(None, unreached).verdict is Verdict.AGREE
    assert judge(0 * G, unreached).verdict is Verdict.AGREE
    assert judge(G, unreached).verdict is Verdict.DISAGREE


def test_both_zero_is_agreement_and_zero_floor_with_an_error_is_none() -> None:
    exact = evidence(spread=0.0)
    assert judge(G.copy(), exact).verdict is Verdict.AGREE
    one_ulp = G.copy()
    one_ulp[0, 0] = np.nextafter(one_ulp[0, 0], 9)
    assert judge(one_ulp, evidence(spread=0.0, bound=1e-30)).verdict is Verdict.DISAGREE


def test_a_floor_as_large_as_the_gradient_is_inconclusive() -> None:
    coarse = evidence(spread=1.0)
    assert judge(G, coarse).verdict is Verdict.INCONCLUSIVE
    assert judge(0 * G, coarse).verdict is Verdict.INCONCLUSIVE


def test_a_gradient_that_is_zero_by_structure_agrees_with_zero() -> None:
    """A bias before batch norm: the truth is 0, float64 computes 1e-17, float32 1e-8."""
    nothing = 1e-17 * G
    structural = evidence(nothing, spread=1e-8, truth=0 * G)
    assert judge(0 * G, structural).verdict is Verdict.AGREE
    assert judge(1e-8 * G, structural).verdict is Verdict.AGREE
    assert judge(1e-5 * G, structural).verdict is Verdict.DISAGREE


@pytest.mark.parametrize("reference", ["extended", "differences"])
def test_beside_an_infinite_gradient_no_other_counts_as_zero(reference: str) -> None:
    """sqrt has none at 0; b's is drowned by what cancels, whatever a's is."""

    def loss(p: Any, b: Any) -> Any:
        cancelling = ops.exp(p["b"]) * 1e4 - ops.exp(p["b"] * 1.0) * 1e4
        return ops.sqrt(p["a"]).sum() + cancelling.sum() + ops.sin(p["b"]).sum() * 1e-6

    for a in (0.0, 1.0):
        params = {"a": np.array([a]), "b": np.array([0.3, 0.7])}
        with np.errstate(all="ignore"):
            report = gw.verify(loss, params, {}, backends="numpy", dtypes="float32", reference=reference)
        (row,) = (row for row in report.rows if row.parameter == "b")
        assert (row.verdict, "a zero would pass" in row.message) == (Verdict.INCONCLUSIVE, True)


def test_a_refuted_referee_is_at_fault_and_finite_differences_take_over() -> None:
    refuted = evidence(-G, truth=G)
    assert refuted.standing is Standing.REFUTED
    assert judge(-G, replace(refuted, is_referee=True)).verdict is Verdict.DISAGREE
    assert judge(-G, refuted).verdict is Verdict.DISAGREE
    right = judge(G + ROUNDING, refuted)
    assert right.verdict is Verdict.AGREE
    assert "finite differences" in right.message


def test_where_differences_cannot_decide_both_are_inconclusive() -> None:
    blunt = evidence(bound=1e-3)
    judgement = judge(G + 1e-4, blunt)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.doubted
    assert judge(G + 1e-1, blunt).verdict is Verdict.DISAGREE


def test_a_nonfinite_referee_is_said() -> None:
    broken = replace(evidence(), truth=exactly(np.where(G > 0, np.nan, G)))
    assert "the reference is too" in judge(wrong((0, 0), np.nan), broken).message
    assert judge(G, broken).verdict is Verdict.INCONCLUSIVE


def test_against_the_truth_finite_differences_have_no_say() -> None:
    """Blunt differences leave a float64 reference in doubt; one that is validated in 256 bits they do not."""
    blunt = replace(evidence(bound=1e-3), standing=Standing.VALIDATED)
    assert judge(G + ROUNDING, blunt).verdict is Verdict.AGREE
    judgement = judge(G + 1e-4, blunt)
    assert judgement.verdict is Verdict.DISAGREE
    assert not judgement.doubted
    silent = replace(blunt, sight=None, probes=())
    assert judge(G + ROUNDING, silent).verdict is Verdict.AGREE


def test_the_true_error_is_told_by_norm_by_element_and_in_units_in_the_last_place() -> None:
    truth = replace(evidence(np.ones((4, 5)), truth=np.ones((4, 5))), standing=Standing.VALIDATED, scale=1.0)
    gradient = np.ones((4, 5))
    gradient[1, 2] += 3 * 2.0**-23
    judgement = judge(gradient, truth)
    assert judgement.error == judgement.worst == 3 * 2.0**-23
    assert judgement.ulps == 3


def test_the_error_is_told_beyond_float64() -> None:
    """The truth lies between two float64: half a unit away from either."""
    between = replace(evidence(np.ones(1), truth=np.ones(1)), dtype="float64", standing=Standing.VALIDATED)
    between = replace(between, truth=Exact(np.ones(1), np.full(1, 2.0**-53)), scale=1.0)
    assert judge(np.ones(1), between).ulps == 0.5
    assert judge(np.ones(1) + 2.0**-52, between).ulps == 0.5


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ([1.0, 2.0, 3.0], None),
        ([1.0 + 1e-7, 2.0, 3.0], None),
        ([1.001, 2.0, 3.0], "at the given point"),
        ([1.0, 2.01, 3.0], "neighbour 1"),
        ([1.0, 2.0, np.nan], "the loss is nan at seeded neighbour 2"),
    ],
)
def test_different_losses_are_found_at_the_point_and_around_it(losses: list[float], says: str | None) -> None:
    found = judge_loss(losses, [1.0, 2.0, 3.0], [tensor_floor(np.array([1e-7] * RUNS))] * 3)
    assert (found is None) is (says is None)
    assert found is None or (found.verdict is Verdict.DIFFERENT_LOSS and str(says) in found.message)


@pytest.mark.parametrize(
    ("loss", "floor", "says"),
    [(1 + 1e-7, 1e-16, "32 bits"), (1 + 1e-4, 1e-16, "16 bits"), (1 + 1e-4, 1e-7, "16 bits"), (1.1, 1e-16, "")],
)
def test_losses_that_differ_by_little_are_asked_for_a_cast(loss: float, floor: float, says: str) -> None:
    found = judge_loss([loss], [1.0], [tensor_floor(np.array([floor] * RUNS))])
    assert found is not None
    assert found.verdict is Verdict.DIFFERENT_LOSS
    assert ("does one of them cast" in found.message) == bool(says)
    assert says in found.message


def test_thresholds_follow_student_and_grow_slowly_with_size() -> None:
    assert 10 < threshold(16) < 16
    assert threshold(16) < threshold(16, 100) < threshold(16, 10_000) < 40
    assert threshold(1000) < 7


def test_false_alarms_of_the_statistic_are_as_rare_as_it_says() -> None:
    """Floors estimated from 16 runs of the same Gaussian noise: at a chance of 1e-9 none of 20,000 may exceed."""
    rng = np.random.default_rng(5)
    spread = np.sqrt(np.mean(rng.standard_normal((20_000, 16)) ** 2, axis=1))
    ratios = np.abs(rng.standard_normal(20_000)) / spread
    assert ratios.max() < threshold(16)
    assert ratios.max() > 3  # and a table of 3 sigma would have alarmed


def test_without_any_finite_difference_nothing_is_concluded() -> None:
    """(x**1.5).sum() at 0: the loss is NaN on one side."""
    for seen in (None, Sight(20, unseen=20, doubt="the loss is not finite around it")):
        unheard = replace(evidence(), sight=seen, probes=())
        assert judge(G, unheard).verdict is Verdict.INCONCLUSIVE
        assert judge(G, replace(unheard, is_referee=True)).verdict is Verdict.INCONCLUSIVE


def at_a_kink() -> LeafEvidence:
    """relu at exactly 0: any slope between 0 and 1 is right there, and beside it nothing but 1."""
    problem = Problem("kink", lambda p, b: ops.relu(p["x"]).sum(), {"x": np.array([0.0, 1.0])}, {})
    known = graph_referee(problem, "float64", Settings(dtypes=("float64",)))
    address, tried = Address("kink", "numpy", "numpy", "cpu", "float64"), Trial(None, (), {}, {})  # type: ignore[arg-type]
    witness = OfGraph(
        address, Candidate("numpy"), known.problem, tried, known=known, arithmetic=Arithmetic(), is_referee=False
    )
    return witness.evidence_on("x")


def overflowing() -> LeafEvidence:
    return replace(evidence(), floor=TensorFloor(np.inf, np.full(G.shape, np.inf)))


@dataclass(frozen=True)
class Planted:
    """A fault, or a point at which one would pass, that one check alone is there for."""

    gradient: Array | None
    evidence: Callable[[], LeafEvidence]
    verdict: Verdict
    message: str


PLANTED = {
    "_defective": Planted(None, evidence, Verdict.MISSING, "None, though a path leads from this parameter to the loss"),
    "_undefined": Planted(
        2 * G,
        lambda: replace(evidence(), truth=exactly(np.full(G.shape, np.nan))),
        Verdict.INCONCLUSIVE,
        "the reference is NaN or infinite here, this one is not",
    ),
    "_at_kink": Planted(np.array([5.0, 1.0]), at_a_kink, Verdict.DISAGREE, "5"),
    "_overflowing": Planted(
        2 * G, overflowing, Verdict.INCONCLUSIVE, "rounding in this dtype can make the gradient overflow"
    ),
    "_without_reference": Planted(
        2 * G,
        lambda: evidence(-G, truth=G),
        Verdict.DISAGREE,
        f"{2 * np.abs(G).max():.9g}, finite difference",
    ),
    "_refuted": Planted(
        wrong((2, 3), 1e-3),
        lambda: own(wrong((2, 3), 1e-3)),
        Verdict.DISAGREE,
        f"finite differences refute it at [2, 3]: {wrong((2, 3), 1e-3)[2, 3]:.9g}, finite difference {G[2, 3]:.9g}",
    ),
    "_distant": Planted(2 * G, evidence, Verdict.DISAGREE, "off by 1 of its norm"),
    "_unseen": Planted(
        G,
        lambda: own(G, bound=1.0),
        Verdict.INCONCLUSIVE,
        "finite differences are too coarse; a wrong one could pass",
    ),
    "_flushed": Planted(
        1.5e-39 * G,
        lambda: own(1e-39 * G, truth=1e-39 * G, bound=0.0, narrowed=True, floor=TensorFloor(0, 0 * G), scale=1e-39),
        Verdict.INCONCLUSIVE,
        "subnormal numbers may become zero in this dtype",
    ),
    "_drowned": Planted(0 * G, lambda: evidence(spread=1.0), Verdict.INCONCLUSIVE, "a zero would pass"),
}


def test_every_check_has_a_planted_fault() -> None:
    assert list(PLANTED) == [check.__name__ for check in CHECKS]


@pytest.mark.parametrize("name", PLANTED)
def test_each_check_catches_its_planted_fault_and_no_other_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = PLANTED[name]
    known = planted.evidence()
    found = judge(planted.gradient, known)
    assert found.verdict is planted.verdict
    assert planted.message in found.message
    monkeypatch.setattr(checks, "CHECKS", tuple(check for check in CHECKS if check.__name__ != name))
    without = judge(planted.gradient, known)
    assert (without.verdict, without.message) != (found.verdict, found.message)


def test_the_right_one_passes_where_faults_are_planted() -> None:
    assert judge(G + ROUNDING, own(G + ROUNDING, bound=1e-6)).verdict is Verdict.AGREE
    assert judge(np.array([0.5, 1.0]), at_a_kink()).verdict is Verdict.CONVENTION


def narrowed(gradient: Array = G, reach: Reach | None = None, **known: Any) -> LeafEvidence:
    """Of a user's own loss in float32, held against the same in float64."""
    found = own(gradient, narrowed=True)
    return replace(found, reach=found.reach if reach is None else reach, **known)


@pytest.mark.parametrize(
    ("gradient", "known", "verdict", "says"),
    [
        (G + ROUNDING, narrowed(), Verdict.AGREE, ""),
        (
            G * (1 + 1e-5),
            narrowed(),
            Verdict.DISAGREE,
            "noise floors from there in float32: more than rounding explains",
        ),
        (
            wrong((2, 3), 5e-6),
            narrowed(),
            Verdict.DISAGREE,
            "at [2, 3] from there in float32: more than rounding explains",
        ),
        # jittered inputs explain less than there is: what lies between says nothing, unless it is a hundredth or more
        (
            wrong((2, 3), 1e-5),
            narrowed(reach=JITTER_REACH),
            Verdict.INCONCLUSIVE,
            "most at [2, 3]: more than rounding is known",
        ),
        (2 * G, narrowed(reach=JITTER_REACH), Verdict.DISAGREE, "more than rounding explains"),
        (2 * G, narrowed(another_loss="a cast"), Verdict.INCONCLUSIVE, "so does the loss (a cast)"),
        (G + ROUNDING, narrowed(2 * G), Verdict.DISAGREE, "in float64 finite differences refute it"),
        (G, narrowed(2 * G, another_loss="a cast"), Verdict.INCONCLUSIVE, "is another in float64 (a cast), and"),
        (0 * G, narrowed(floor=TensorFloor(9.0, np.ones(G.shape))), Verdict.INCONCLUSIVE, "a zero would pass"),
        (None, narrowed(2 * G), Verdict.MISSING, "None, though a path leads"),
    ],
)
def test_of_a_users_own_loss_formula_and_rounding_are_told_apart(
    gradient: Array | None, known: LeafEvidence, verdict: Verdict, says: str
) -> None:
    judgement = judge(gradient, known)
    assert (judgement.verdict, says in judgement.message) == (verdict, True), judgement.message


def test_what_becomes_zero_below_the_smallest_normal_number_is_no_fault_of_the_formula() -> None:
    tiny, flushed = (np.where(np.arange(G.size).reshape(G.shape) % 3 == 0, x * np.sign(G), G) for x in (1e-39, 0.0))
    known = own(tiny, truth=tiny, narrowed=True)
    assert judge(flushed, known).verdict is Verdict.AGREE
    assert judge(flushed + 1e-5, known).verdict is Verdict.DISAGREE


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.5])  # 1 needs no excuse
def test_where_all_of_it_is_below_the_smallest_normal_number_a_zero_would_pass(factor: float) -> None:
    tiny, floor = 1e-39 * np.sign(G), TensorFloor(1e-46, np.full(G.shape, 1e-46))
    known = own(tiny, truth=tiny, bound=0.0, narrowed=True, floor=floor, scale=1e-38)
    assert judge(factor * tiny, known).verdict is (Verdict.AGREE if factor == 1 else Verdict.INCONCLUSIVE)
    assert judge(1e-30 * G, known).verdict is Verdict.DISAGREE


@pytest.mark.parametrize(
    ("seen", "is_vouched", "verdict", "says"),
    [
        (
            Sight(20, seen=0, unseen=3, doubt="a staircase"),
            True,
            Verdict.INCONCLUSIVE,
            "3 of 20 elements could not be seen: a",
        ),
        (Sight(20, unseen=20, still=True), True, Verdict.AGREE, "nothing leads to the loss"),
        (Sight(20, unseen=20, still=True), False, Verdict.INCONCLUSIVE, "a wrong one could pass"),
        (Sight(20, seen=0, faint=True), True, Verdict.INCONCLUSIVE, "too coarse for so small a gradient"),
        (Sight(20, seen=20), True, Verdict.AGREE, ""),
    ],
)
def test_what_differences_could_not_see_is_said(seen: Sight, is_vouched: bool, verdict: Verdict, says: str) -> None:
    judgement = judge(G, replace(own(G), sight=seen, is_vouched=is_vouched))
    assert (judgement.verdict, says in judgement.message) == (verdict, True), judgement.message


@pytest.mark.parametrize(
    ("derivative", "verdict", "doubted"),
    [
        (G[2, 3], Verdict.DISAGREE, False),
        (G[2, 3] + 1e-4, Verdict.INCONCLUSIVE, True),
        (G[2, 3] + 1.0, Verdict.DISAGREE, True),
    ],
)
def test_a_closer_look_says_which_of_two_is_wrong(derivative: float, verdict: Verdict, doubted: bool) -> None:
    """The gradient on trial is off by 1e-4 there, which the first differences cannot tell from the reference."""
    asked: list[int] = []

    def closer(index: int) -> tuple[Probe, ...]:
        asked.append(index)
        return (Probe(derivative, 1e-6, index),)

    judgement = judge(wrong((2, 3), 1e-4), replace(evidence(bound=1e-3), closer=closer))
    assert (judgement.verdict, judgement.doubted) == (verdict, doubted)
    assert asked == [13]
