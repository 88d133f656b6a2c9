"""`gw.verify` from research code: what a user would write, and the mistakes that a user would make."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gradwitness as gw
from gradwitness import ops
from gradwitness.errors import GradwitnessError, ProblemError, TraceError, UnknownName
from gradwitness.verdict import Verdict
from gradwitness_numpy.rules import RULES

W = np.array([[0.3, -0.2, 0.5], [0.1, 0.7, -0.4]])
X = np.array([[1.0, 0.5, -1.5], [0.2, -0.3, 0.8], [2.0, 1.1, 0.4], [-0.6, 0.9, 1.3]])


def loss(params: Any, batch: Any) -> Any:
    return ops.tanh(ops.linear(batch["x"], params["w"])).mean()


def verify(loss: Any = loss, params: Any = None, batch: Any = None, **options: Any) -> gw.Report:
    params = {"w": W} if params is None else params
    batch = {"x": X} if batch is None else batch
    defaults = {"backends": ["numpy", "torch"], "dtypes": ["float64", "float32"]}
    return gw.verify(loss, params, batch, **(defaults | options))


def verdicts(report: gw.Report) -> set[str]:
    return {str(row.verdict) for row in report.rows}


def test_a_right_loss_is_truthy_and_short() -> None:
    report = verify()
    assert report
    assert repr(report) == "gradwitness: 4 gradients: 4 agree"


def test_names_may_be_given_alone() -> None:
    report = verify(backends="numpy", dtypes="float64", devices="cpu", wrt="x")
    assert [(r.backend, r.dtype, r.parameter) for r in report.rows] == [("numpy", "float64", "x")]


def test_a_loss_of_params_alone() -> None:
    assert gw.verify(lambda p, b: (p["w"] ** 2).sum(), {"w": W}, backends="numpy")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"precision": "hihest"}, UnknownName, "unknown precision 'hihest'; did you mean 'highest'"),
        ({"devices": ("cpu", "cdua")}, UnknownName, "unknown device 'cdua'"),
        ({"dtypes": "float23"}, UnknownName, "unknown dtype 'float23'"),
        ({"backends": "tourch"}, UnknownName, "unknown backend 'tourch'"),
        ({"seed": -1}, GradwitnessError, "not negative, got -1"),
        ({"wrt": "weight"}, ProblemError, "wrt names 'weight'.*the leaves are: w, x"),
        ({"params": {"w": [0.1, 0.2]}}, TraceError, r"wrap numbers in np.array"),
        ({"loss": lambda p, b: getattr(ops, "sofmax")(p["w"])}, TraceError, "no op 'sofmax'; did you mean 'softmax'"),  # noqa: B009  # a typo
        ({"loss": lambda p, b: np.tanh(p["w"]).sum()}, TraceError, "use those of gradwitness.ops"),
        ({"loss": lambda p, b: p["weight"].sum()}, TraceError, r"(?s)KeyError: 'weight'.*test_verify.py:\d+: .*p\["),
    ],
)
def test_mistakes_are_one_error_that_helps(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        verify(**options)


def test_values_that_overflow_in_a_dtype_cost_only_that_dtype() -> None:
    report = verify(lambda p, b: ops.log(p["w"] ** 2).sum(), {"w": W * 1e45})
    assert {r.verdict for r in report.rows if r.dtype == "float64"} == {Verdict.AGREE}
    assert all("w: values overflow in float32" in r.message for r in report.rows if r.dtype == "float32")


def test_a_loss_that_drowns_its_own_derivative_is_inconclusive() -> None:
    """1e9 beside 1e-6: no finite difference of float64 could tell a wrong gradient from a right one."""
    params = {"w": W, "c": np.full(3, 1e9)}

    def loss(p: Any, b: Any) -> Any:
        return ops.tanh(p["w"]).sum() * 1e-6 + p["c"].sum()

    by_differences = verify(loss, params, reference="differences")
    assert {r.verdict for r in by_differences.rows if r.parameter == "w"} == {Verdict.INCONCLUSIVE}
    assert verify(loss, params)  # 256 bits are not drowned


def test_at_a_kink_each_convention_is_accepted() -> None:
    """clip at its bound: 1 by NumPy and torch, 0.5 by jax; finite differences see 0 on one side, 1 on the other."""
    a = np.array([0.1, 0.5, 1.0, 2.0])
    report = verify(lambda p, b: ops.clip(p["a"], min=-1.0, max=1.0).sum() * 1.3, {"a": a}, backends=["numpy", "jax"])
    assert {(row.backend, str(row.verdict)) for row in report.rows} == {("numpy", "agree"), ("jax", "convention")}
    assert report


def test_stop_gradient_stands_still_for_finite_differences_too() -> None:
    def straight(p: Any, b: Any) -> Any:
        return (ops.stop_gradient(p["w"] ** 2) * p["w"]).sum()

    assert verify(straight)


def test_one_hot_has_the_precision_of_the_run() -> None:
    labels = np.array([0, 2, 1, 2])

    def smoothed(p: Any, b: Any) -> Any:
        target = ops.one_hot(b["y"], num_classes=3) * 0.9 + 0.1 / 3
        return -(target * ops.log_softmax(p["z"], axis=1)).sum()

    assert verify(smoothed, {"z": X}, {"y": labels}, backends=["numpy", "torch", "jax"])


def test_labels_out_of_range_are_named() -> None:
    def loss(p: Any, b: Any) -> Any:
        return ops.cross_entropy(p["z"], b["y"], reduction="mean")

    report = verify(loss, {"z": X}, {"y": np.array([0, 2, 1, -1])})
    assert all("cross_entropy: label -1 is outside [0, 3)" in r.message for r in report.rows)


def test_vast_and_tiny_scales_are_judged_or_said_to_be_beyond_judgement() -> None:
    for scale in (1e-200, 1e-170, 1e-12, 1e12, 1e100):
        report = verify(lambda p, b, s=scale: ops.tanh(p["w"]).sum() * s, dtypes="float64")
        assert verdicts(report) <= {"agree", "inconclusive"}, (scale, repr(report))


def test_an_oscillating_loss_does_not_deceive_the_differences() -> None:
    rng = np.random.default_rng(4)
    for frequency in 10 ** rng.uniform(1, 5, 12):
        report = verify(
            lambda p, b, f=frequency: ops.sin(p["w"] * f).sum(),
            {"w": rng.standard_normal(6)},
            backends="numpy",
            dtypes="float64",
        )
        assert verdicts(report) <= {"agree", "inconclusive"}, (frequency, repr(report))


def test_a_zero_dimensional_leaf_that_is_indexed_and_reused() -> None:
    assert verify(lambda p, b: p["s"][...] * p["s"][...] * p["s"], {"s": np.array(0.7)})


def test_elements_of_very_different_scale_are_judged_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradwitness_torch.prepared import TorchPrepared

    honest = TorchPrepared.value_and_gradient

    def first_off(self: TorchPrepared, params: Any) -> Any:
        value, gradient = honest(self, params)
        b = gradient["b"]
        assert b is not None
        b[0] *= 1.2
        return value, gradient

    def spread(p: Any, b: Any) -> Any:
        return (ops.tanh(p["b"]) * np.logspace(0, 8, 64)).sum()

    params = {"b": np.linspace(-1, 1, 64)}
    assert verify(spread, params, dtypes="float32")
    monkeypatch.setattr(TorchPrepared, "value_and_gradient", first_off)
    assert "torch b: disagree" in repr(verify(spread, params, dtypes="float32"))


def test_without_a_reference_in_256_bits_the_run_goes_on_and_says_so() -> None:
    def loss(p: Any, b: Any) -> Any:
        third = p["w"] / 3.0
        rounding = ops.stop_gradient(third + third + third - p["w"])  # 0 in truth: neither above it nor below
        return (ops.tanh(p["w"]) + ops.where(rounding > 0, rounding, 0.0)).sum()

    report = verify(loss, dtypes="float64")
    assert report
    assert "loss float64 w: no reference in 256 bits: 256 bits cannot say: undecided branch" in report.table()
    assert all(row.refused for row in report.rows)


def test_a_refused_reference_is_said_by_its_tensors_name(monkeypatch: pytest.MonkeyPatch) -> None:
    right = RULES["tanh"]
    monkeypatch.setitem(RULES, "tanh", replace(right, vjp=lambda g, step: [right.vjp(g, step)[0] * (1 + 1e-9)]))
    report = verify(lambda p, b: (ops.tanh(p["w"]) * p["c"]).sum(), {"w": W, "c": 0.3 * W}, dtypes="float64")
    assert {row.parameter for row in report.rows if row.refused} == {"w"}
    assert "w: no reference in 256 bits: 256-bit differences of the forward pass refute it" in report.table()
    assert {r.verdict for r in report.rows if r.parameter == "w" and r.backend == "numpy"} == {Verdict.DISAGREE}
    assert {r.verdict for r in report.rows if r.parameter == "w" and r.backend != "numpy"} == {Verdict.AGREE}


def test_a_mask_of_minus_infinity_is_exact() -> None:
    mask = np.where(np.tri(2, 4, k=1), 0.0, -np.inf)

    def masked(p: Any, b: Any) -> Any:
        return (ops.softmax(ops.linear(p["w"], b["x"], None) + b["mask"], axis=1) * b["c"]).sum()

    assert verify(masked, batch={"x": X, "mask": mask, "c": np.arange(8.0).reshape(2, 4)})


def test_a_problem_has_settings_of_its_own() -> None:
    with pytest.raises(GradwitnessError, match="give it alone"):
        gw.verify(gw.Problem("mine", loss, {"w": W}, {"x": X}), wrt="x")


def test_a_wrong_option_is_an_error_at_once() -> None:
    with pytest.raises(UnknownName, match=r"unknown option of jax .jti.; did you mean .jit."):
        gw.verify({"j": gw.Candidate("jax", lambda p, b: p["w"].sum(), options={"jti": False})}, {"w": W})


def test_where_nothing_could_run_the_reason_is_in_the_short_report() -> None:
    report = gw.verify({"mine": gw.Candidate("numpy", lambda p, b: p["w"].sum())}, {"w": W})
    assert "NumPy differentiates no loss that is written in its own arrays: give the gradient as well" in repr(report)


def test_what_256_bits_would_take_too_long_for_is_validated_on_fewer_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((6, 5))}
    batch = {"x": rng.standard_normal((64, 5)), "labels": rng.integers(0, 6, 64)}

    def classified(p: Any, b: Any) -> Any:
        return ops.cross_entropy(ops.tanh(ops.linear(b["x"], p["w"])), b["labels"], reduction="mean")

    def report() -> gw.Report:
        return verify(classified, params, batch, dtypes="float32", seconds=2e-3)

    assert report()
    assert "one in float64 is held against differences, and 256 bits its rules, on" in report().table()
    assert "of 64 examples" in report().table()
    right = RULES["tanh"]
    monkeypatch.setitem(RULES, "tanh", replace(right, vjp=lambda g, step: [right.vjp(g, step)[0] * (1 + 1e-9)]))
    assert "256-bit differences of the forward pass refute it" in report().table()


def test_seconds_must_be_positive() -> None:
    with pytest.raises(GradwitnessError, match="seconds must be a positive number"):
        verify(seconds=0.0)
    with pytest.raises(GradwitnessError, match=r"reference_seconds= is now seconds=: give seconds=2\.0"):
        verify(reference_seconds=2.0)


@pytest.mark.parametrize("reference", ["extended", "differences"])
def test_a_pole_or_an_oscillation_within_the_step_deceives_no_difference(reference: str) -> None:
    """Steps are a part of the tensor's scale; one element is 1e-10 of that."""
    near_pole = {"w": np.array([0.3, 0.7, 1e-10])}
    rows = [
        *verify(lambda p, b: (1.0 / p["w"]).sum(), near_pole, dtypes="float64", reference=reference).rows,
        *verify(lambda p, b: ops.sin(p["w"] * 1e10).sum(), dtypes="float64", reference=reference).rows,
    ]
    assert {str(row.verdict) for row in rows} <= ({"agree"} if reference == "extended" else {"agree", "inconclusive"})


def test_a_black_box_beside_a_pole_is_not_accused() -> None:
    report = gw.verify({"torch": lambda p, b: (1 / p["w"]).sum()}, {"w": np.array([0.3, 0.7, 1e-10])})
    assert verdicts(report) <= {"agree", "inconclusive"}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("reference", ["extended", "differences"])
def test_a_rule_wrong_in_one_element_blames_nobody_who_is_right(
    reference: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that sampled differences miss: one more is taken where NumPy and torch differ most."""
    right, place = RULES["sin"], (43, 21)

    def wrong(g: Any, step: Any) -> Any:
        (sent,) = right.vjp(g, step)
        factor = np.ones(sent.shape)
        factor[place] = 1.01
        return [sent * factor]

    monkeypatch.setitem(RULES, "sin", replace(right, vjp=wrong))
    rng = np.random.default_rng(seed)
    k = np.ones((60, 60))
    k[7, 7] = 1e6  # so steep that directions tell little
    report = gw.verify(
        lambda p, b: ops.sin(p["w"] * b["k"]).sum(),
        {"w": rng.standard_normal((60, 60))},
        {"k": k},
        backends=("numpy", "torch"),
        reference=reference,
        seed=seed,
    )
    verdicts = {row.backend: row.verdict for row in report.rows}
    assert verdicts["numpy"] in (Verdict.DISAGREE, Verdict.INCONCLUSIVE), repr(report)
    assert verdicts["torch"] in (Verdict.AGREE, Verdict.INCONCLUSIVE), repr(report)


def by_hand(p: Any, b: Any, factor: float = 1.0) -> dict[str, Any]:
    h = np.tanh(b["x"] @ p["w"].T)
    return {"w": factor * (1 - h * h).T @ b["x"]}


def test_candidates_of_ones_own_are_held_against_the_traced_loss() -> None:
    own = {
        "mine": gw.Candidate("numpy", gradient=by_hand),
        "twice": gw.Candidate("numpy", gradient=lambda p, b: by_hand(p, b, 2.0)),
        "native": gw.Candidate("torch", lambda p, b: (b["x"] @ p["w"].T).tanh().sum()),
        "other": gw.Candidate("torch", lambda p, b: (b["x"] @ p["w"].T).sigmoid().sum()),
    }

    def traced(p: Any, b: Any) -> Any:
        return ops.tanh(ops.linear(b["x"], p["w"], None)).sum()

    report = gw.verify(traced, {"w": W}, {"x": X}, backends="numpy, torch", candidates=own)
    assert [str(row.verdict) for row in report.rows] == ["agree"] * 3 + ["disagree", "agree", "different-loss"]
    assert all(row.refused is None for row in report.rows)
    for wrong, says in (
        ({"torch": own["native"]}, "'torch' is a backend, which runs the loss itself"),
        ({"mine": by_hand}, "'mine': expected a Candidate, got function"),
    ):
        with pytest.raises(GradwitnessError, match=says):
            gw.verify(traced, {"w": W}, {"x": X}, candidates=wrong)  # type: ignore[arg-type]
    with pytest.raises(GradwitnessError, match="put all into the mapping"):
        gw.verify({"native": own["native"]}, {"w": W}, {"x": X}, candidates=own)


def test_a_message_shows_the_statistic_that_failed() -> None:
    """One element of many is wrong by little of the whole: by norm that is within the floor."""
    w = np.full(10_000, 0.3)
    w[0] = 1e-6

    def wrong(p: Any, b: Any) -> dict[str, Any]:
        g = 2 * p["w"]
        g[0] *= 1 + 1e-3
        return {"w": g}

    def squares(p: Any, b: Any) -> Any:
        return (p["w"] * p["w"]).sum()

    own = {"mine": gw.Candidate("numpy", gradient=wrong)}
    row = gw.verify(squares, {"w": w}, candidates=own, backends="numpy", dtypes="float32").rows[1]
    assert row.verdict is Verdict.DISAGREE
    assert re.search(r"noise floors; worst at \[0\].* \([0-9.e+]+ noise floors of this element\)", row.message)
