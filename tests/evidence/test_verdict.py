"""The verdict: each one reached by a planted fault, and none raised for a right gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwitness.evidence.finite_difference import Differences, Probe
from gradwitness.evidence.noise_floor import RUNS, TensorFloor, tensor_floor
from gradwitness.evidence.reference import Exact, exactly
from gradwitness.verdict import Standing, TensorEvidence, Verdict, confirms, judge, judge_loss, threshold

G = np.random.default_rng(0).standard_normal((4, 5))
SPREAD = 1e-7
ROUNDING = SPREAD * np.random.default_rng(1).standard_normal(G.shape)


def evidence(
    reference: np.ndarray = G, *, spread: float = SPREAD, bound: float = 1e-10, truth: np.ndarray = G
) -> TensorEvidence:
    """float32 evidence: every coordinate of `truth` differenced within `bound`, and a uniform floor."""
    floor = TensorFloor(spread * np.sqrt(reference.size), np.full(reference.shape, spread))
    probes = tuple(Probe(float(v), bound, index=i) for i, v in enumerate(truth.reshape(-1)))
    differences = Differences(probes, truth.size, truth.size)
    confirmed = confirms(reference, "float32", lambda: floor, differences)
    standing = Standing.CONFIRMED if confirmed else Standing.REFUTED
    return TensorEvidence("float32", exactly(reference), standing, floor, differences, reached=True)


def wrong(index: tuple[int, int], by: float) -> np.ndarray:
    gradient = G + ROUNDING
    gradient[index] += by
    return gradient


def test_rounding_agrees() -> None:
    judgement = judge(G + ROUNDING, evidence())
    assert judgement.verdict is Verdict.AGREE
    assert judgement.ratio is not None
    assert judgement.ratio < 0.3
    assert judgement.limit == pytest.approx(threshold(16) * SPREAD * np.sqrt(20))


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
        (G[:2], Verdict.DISAGREE),
        (G.T, Verdict.DISAGREE),
    ],
)
def test_planted_faults_are_named(gradient: np.ndarray | None, verdict: Verdict) -> None:
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


def test_a_refuted_referee_is_at_fault_and_finite_differences_take_over() -> None:
    refuted = evidence(-G, truth=G)
    assert refuted.standing is Standing.REFUTED
    assert judge(-G, refuted, is_referee=True).verdict is Verdict.DISAGREE
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
    broken = replace(evidence(), reference=exactly(np.where(G > 0, np.nan, G)))
    assert "the reference is too" in judge(wrong((0, 0), np.nan), broken).message
    assert judge(G, broken).verdict is Verdict.INCONCLUSIVE


def test_against_the_truth_finite_differences_have_no_say() -> None:
    """Blunt differences leave a float64 reference in doubt; one that is validated in 256 bits they do not."""
    blunt = replace(evidence(bound=1e-3), standing=Standing.VALIDATED)
    assert judge(G + ROUNDING, blunt).verdict is Verdict.AGREE
    judgement = judge(G + 1e-4, blunt)
    assert judgement.verdict is Verdict.DISAGREE
    assert not judgement.doubted
    silent = replace(blunt, differences=Differences((), 0, G.size))
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
    between = replace(between, reference=Exact(np.ones(1), np.full(1, 2.0**-53)), scale=1.0)
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
    assert found.verdict is (None if says is None else Verdict.DIFFERENT_LOSS)
    assert (says or "") in found.message


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
    unheard = replace(evidence(), differences=Differences((), 20, 20))
    assert judge(G, unheard).verdict is Verdict.INCONCLUSIVE
    assert judge(G, unheard, is_referee=True).verdict is Verdict.INCONCLUSIVE
