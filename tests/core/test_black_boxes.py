"""Losses and gradients written in NumPy, as a researcher writes them: right ones pass, planted faults are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradwitness as gw
from gradwitness.errors import GradwitnessError, ProblemError, UnknownName, UnsupportedError

RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.standard_normal((5, 5)), "b": RNG.standard_normal(5), "scale": np.array(1.3)}
BATCH = {"x": RNG.standard_normal((7, 5)), "y": RNG.standard_normal((7, 5)), "keep": np.arange(7) % 3 > 0}

Gradient = dict[str, Any]


def hidden(p: Any, d: Any) -> Any:
    return np.tanh(d["x"] @ p["w"].T + p["b"])


def loss(p: Any, d: Any) -> Any:
    """The mean squared error of the examples kept."""
    error = (p["scale"] * hidden(p, d) - d["y"])[d["keep"]]
    return np.mean(error * error)


def gradient(p: Any, d: Any) -> Gradient:
    h, kept = hidden(p, d), d["keep"][:, None]
    g = 2 * kept * (p["scale"] * h - d["y"]) / (kept.sum() * h.shape[1])
    by_z = g * p["scale"] * (1 - h * h)
    return {"w": by_z.T @ d["x"], "b": by_z.sum(axis=0), "scale": np.sum(g * h)}


def verify(gradient: Any = gradient, loss: Any = loss, **options: Any) -> gw.Report:
    candidate = gw.Candidate("numpy", loss, gradient=gradient)
    return gw.verify({"mine": candidate}, PARAMS, BATCH, **({"dtypes": ("float64", "float32")} | options))


def verdicts(report: gw.Report, parameter: str | None = None) -> set[str]:
    return {str(row.verdict) for row in report.rows if parameter in (None, row.parameter)}


def test_a_right_gradient_agrees() -> None:
    report = verify()
    assert report, repr(report)
    assert len(report.rows) == 6
    assert {row.fd_dtype for row in report.rows} == {"float64"}
    for row in report.rows:
        assert row.limit is not None
        assert row.reference is not None
        assert row.limit < 1e-5 * row.reference, "its detection limit"


def changed(path: str, change: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any], Gradient]:
    """The right gradient with one leaf's changed: `change(g, params, batch)`."""

    def wrong(p: Any, d: Any) -> Gradient:
        found = gradient(p, d)
        return {**found, path: change(found[path], p, d)}

    return wrong


def one_off(g: Any, p: Any, d: Any) -> Any:
    g = g.copy()
    g[3, 1] *= 1.01
    return g


def times(factor: float) -> Callable[[Any, Any, Any], Any]:
    return lambda g, p, d: g * factor


FAULTS: dict[str, tuple[str, Callable[[Any, Any, Any], Any], str]] = {
    "twice": ("w", lambda g, p, d: 2 * g, "disagree"),
    "sign": ("w", lambda g, p, d: -g, "disagree"),
    "transposed": ("w", lambda g, p, d: g.T, "disagree"),
    "zero": ("w", lambda g, p, d: 0 * g, "disagree"),
    "one coordinate off by 1%": ("w", one_off, "disagree"),
    "every coordinate off by 1e-4": ("w", lambda g, p, d: g * 1.0001, "disagree"),
    "mean for sum": ("b", lambda g, p, d: g / 7, "disagree"),
    "constant": ("scale", lambda g, p, d: g + 1e-3, "disagree"),
    "NaN": ("w", lambda g, p, d: np.where(g > 0, g, np.nan), "nonfinite"),
    "None": ("w", lambda g, p, d: None, "missing"),
    "of another shape": ("b", lambda g, p, d: g[:3], "disagree"),
    "random": ("b", lambda g, p, d: g * np.random.default_rng().normal(1, 1e-3), "nondeterministic"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_tensor(fault: str) -> None:
    path, change, verdict = FAULTS[fault]
    report = verify(changed(path, change))
    assert not report
    for row in report.rows:
        assert str(row.verdict) == (verdict if row.parameter == path else "agree"), repr(report)
    assert f"mine {path}: {verdict}" in repr(report)
    assert len(repr(report).splitlines()) <= 12


def test_a_fault_is_found_whatever_the_scale_of_the_loss() -> None:
    for scale in (1e-30, 1e-3, 1e3, 1e12):

        def scaled(p: Any, d: Any, s: float = scale) -> Any:
            return loss(p, d) * s

        def right(p: Any, d: Any, s: float = scale) -> Gradient:
            return {path: g * s for path, g in gradient(p, d).items()}

        def wrong(p: Any, d: Any, s: float = scale) -> Gradient:
            return {**right(p, d), "w": right(p, d)["w"] * 1.001}

        assert verify(right, scaled), scale
        assert verdicts(verify(wrong, scaled), "w") == {"disagree"}, scale


def test_a_stale_activation_is_found() -> None:
    """A cache that the first call fills and that no later one renews."""
    cache: list[Any] = []

    def stale(p: Any, d: Any) -> Gradient:
        if not cache:
            cache.append(p)
        return gradient(cache[0] if cache[0]["w"].dtype == p["w"].dtype else p, d)

    assert "disagree" in verdicts(verify(stale, dtypes="float64"))


def test_a_backward_that_reads_what_the_last_forward_left_is_found() -> None:
    """Each backward after its own forward is right; with another forward between, it is that one's."""
    seen: dict[str, Any] = {}

    def remembering(p: Any, d: Any) -> Any:
        seen["p"] = p
        return loss(p, d)

    def stale(p: Any, d: Any) -> Gradient:
        return gradient(seen["p"], d)

    report = verify(stale, remembering)
    assert verdicts(report) == {"nondeterministic"}
    assert "two forwards before the first backward gave two answers" in repr(report)


def test_a_function_that_remembers_a_batch_of_another_size_is_found() -> None:
    fewest = [len(BATCH["x"])]

    def normalized(p: Any, d: Any) -> Any:
        fewest[0] = min(fewest[0], len(d["x"]))
        return loss(p, d) / fewest[0]

    def by_fewest(p: Any, d: Any) -> Gradient:
        return {path: g / fewest[0] for path, g in gradient(p, d).items()}

    report = verify(by_fewest, normalized, dtypes="float64")
    assert verdicts(report) == {"nondeterministic"}
    assert "the same call before and after a batch of another size gave two losses" in repr(report)


def test_a_function_made_for_one_size_of_batch_is_no_fault() -> None:
    def sized(p: Any, d: Any) -> Any:
        if len(d["x"]) != len(BATCH["x"]):
            raise ValueError("a batch of 7 is what it takes")
        return loss(p, d)

    assert verify(gradient, sized)


def test_accumulation_over_calls_is_found() -> None:
    total = {path: np.zeros(a.shape) for path, a in PARAMS.items()}

    def accumulated(p: Any, d: Any) -> Gradient:
        for path, g in gradient(p, d).items():
            total[path] = total[path] + g
        return dict(total)

    report = verify(accumulated)
    assert verdicts(report) == {"nondeterministic"}
    assert "each call adds the same to its gradient: it accumulates" in repr(report)


@pytest.mark.parametrize(("size", "found"), [(1e-16, {"agree"}), (1e-9, {"nondeterministic"})])
def test_sums_in_no_fixed_order_are_no_fault_and_randomness_is(size: float, found: set[str]) -> None:
    rng = np.random.default_rng(7)

    def jittering(p: Any, d: Any) -> Gradient:
        return {path: g * (1 + size * rng.standard_normal(np.shape(g))) for path, g in gradient(p, d).items()}

    assert verdicts(verify(jittering, dtypes="float64")) == found


@pytest.mark.parametrize("path", ["w", "x"])
def test_modified_inputs_are_an_error_that_says_so(path: str) -> None:
    def modifying(p: Any, d: Any) -> Gradient:
        leaf = {**p, **d}[path]
        leaf += 1
        return gradient(p, d)

    report = verify(modifying)
    assert verdicts(report) == {"error"}
    assert "the function modifies its params or batch" in repr(report)


def test_a_constant_leaf_has_a_zero_gradient() -> None:
    def without_bias(p: Any, d: Any) -> Any:
        return loss({**p, "b": np.zeros(5)}, d)

    def right(p: Any, d: Any) -> Gradient:
        return {**gradient({**p, "b": np.zeros(5)}, d), "b": zero}

    for zero in (np.zeros(5), None):
        assert verify(right, without_bias), zero
    zero = np.full(5, 1e-6)
    assert verdicts(verify(right, without_bias), "b") == {"disagree"}


def test_a_gradient_that_is_zero_by_structure_agrees() -> None:
    """A bias that a subtracted mean takes away again: 1e-17 is computed, and 0 is right."""

    def centred(p: Any, d: Any) -> Any:
        z = d["x"] @ p["w"].T + p["b"]
        return np.mean((z - z.mean(axis=0) - d["y"]) ** 2)

    def right(p: Any, d: Any) -> Gradient:
        z = d["x"] @ p["w"].T + p["b"]
        g = 2 * (z - z.mean(axis=0) - d["y"]) / z.size
        g = g - g.mean(axis=0)
        return {"w": g.T @ d["x"], "b": g.sum(axis=0), "scale": 0.0}

    report = verify(right, centred)
    assert report, repr(report)


def test_beside_a_kink_nothing_is_claimed() -> None:
    at_zero = {"w": np.array([0.0, 1.0, -2.0])}
    for slope in (0.0, 0.5, 1.0):

        def by(p: Any, d: Any, s: float = slope) -> Gradient:
            return {"w": np.where(p["w"] == 0, s, p["w"] > 0)}

        candidate = gw.Candidate("numpy", lambda p, d: np.maximum(p["w"], 0).sum(), gradient=by)
        assert verdicts(gw.verify(candidate, at_zero)) == {"inconclusive"}, slope


def test_value_and_gradient_in_one_call() -> None:
    def both(p: Any, d: Any) -> tuple[Any, Gradient]:
        return loss(p, d), gradient(p, d)

    assert gw.verify(gw.Candidate("numpy", value_and_gradient=both), PARAMS, BATCH)
    assert gw.verify(gw.Candidate("numpy", loss, value_and_gradient=both), PARAMS, BATCH)
    wrong = gw.Candidate("numpy", value_and_gradient=lambda p, d: (loss(p, d), changed("w", one_off)(p, d)))
    assert verdicts(gw.verify(wrong, PARAMS, BATCH), "w") == {"disagree"}


def test_gradients_by_a_leaf_of_the_batch() -> None:
    def by_x(p: Any, d: Any) -> Gradient:
        h, kept = hidden(p, d), d["keep"][:, None]
        g = 2 * kept * (p["scale"] * h - d["y"]) / (kept.sum() * h.shape[1])
        return {"x": (g * p["scale"] * (1 - h * h)) @ p["w"]}

    assert verify(by_x, wrt="x")
    assert not verify(lambda p, d: {"x": by_x(p, d)["x"] * 1.0001}, wrt="x")


# Two candidates


def against(other: Any, **options: Any) -> gw.Report:
    right = gw.Candidate("numpy", loss, gradient=gradient)
    return gw.verify({"right": right, "other": other}, PARAMS, BATCH, **({"dtypes": ("float64", "float32")} | options))


def rows_of(report: gw.Report, label: str, parameter: str) -> set[str]:
    return {str(r.verdict) for r in report.rows if (r.candidate, r.parameter) == (label, parameter)}


def test_one_coordinate_among_many_is_found_by_comparison_and_the_one_at_fault_is_named() -> None:
    """Differences are taken at 12 of 10,000 coordinates; where two gradients differ, they are taken again."""
    rng = np.random.default_rng(3)
    params, batch = {"w": rng.standard_normal(10_000)}, {"x": rng.standard_normal(10_000)}

    def smooth(p: Any, d: Any) -> Any:
        return np.sum(np.sin(p["w"]) * d["x"])

    def right(p: Any, d: Any) -> Gradient:
        return {"w": np.cos(p["w"]) * d["x"]}

    def wrong(p: Any, d: Any) -> Gradient:
        g = right(p, d)["w"]
        g[7_123] *= 1.01
        return {"w": g}

    for order in (("right", "wrong"), ("wrong", "right")):
        gradients = {"right": right, "wrong": wrong}
        candidates = {label: gw.Candidate("numpy", smooth, gradient=gradients[label]) for label in order}
        report = gw.verify(candidates, params, batch)
        assert {r.candidate: str(r.verdict) for r in report.rows} == {"right": "agree", "wrong": "disagree"}
        assert "finite differences refute it at [7123]" in repr(report)


@pytest.mark.parametrize(
    "other",
    [
        lambda p, d: np.mean((p["scale"] * hidden(p, d) - d["y"]) ** 2),  # the mask left out
        lambda p, d: np.sum(((p["scale"] * hidden(p, d) - d["y"])[d["keep"]]) ** 2) / 24,  # another denominator
        lambda p, d: loss(p, d) + 1e-2 * (np.sum(p["b"] ** 2) - np.sum(PARAMS["b"] ** 2)),  # equal at the point
        lambda p, d: loss(p, d) * np.nan,
    ],
)
def test_another_loss_is_said_before_any_gradient_is_judged(other: Any) -> None:
    report = against(gw.Candidate("numpy", other, gradient=gradient))
    for parameter in PARAMS:
        assert rows_of(report, "right", parameter) == {"agree"}
        assert rows_of(report, "other", parameter) == {"different-loss"}
    assert "of 'right'" in repr(report)


def test_where_differences_cannot_tell_both_are_inconclusive() -> None:
    """At a kink one says 0 and the other 1: neither is refuted."""

    def kinked(p: Any, d: Any) -> Any:
        return np.maximum(p["w"], 0).sum()

    def by(slope: float) -> gw.Candidate:
        return gw.Candidate("numpy", kinked, gradient=lambda p, d: {"w": np.where(p["w"] == 0, slope, p["w"] > 0)})

    report = gw.verify({"zero": by(0.0), "one": by(1.0)}, {"w": np.array([0.0, 1.0, -2.0])})
    assert verdicts(report) == {"inconclusive"}


def test_two_that_share_a_mistake_are_both_wrong() -> None:
    """Votes are not counted."""
    wrong = gw.Candidate("numpy", loss, gradient=changed("w", lambda g, p, d: g * 1.001))
    report = gw.verify(
        {"one": wrong, "two": wrong, "right": gw.Candidate("numpy", loss, gradient=gradient)}, PARAMS, BATCH
    )
    assert rows_of(report, "one", "w") == rows_of(report, "two", "w") == {"disagree"}
    assert rows_of(report, "right", "w") == {"agree"}


def test_a_failure_costs_only_its_own_rows() -> None:
    def raising(p: Any, d: Any) -> Any:
        raise RuntimeError("out of luck")

    report = against(gw.Candidate("numpy", raising, gradient=gradient))
    assert {str(r.verdict) for r in report.rows if r.candidate == "right"} == {"agree"}
    place = f"tests/core/test_black_boxes.py:{raising.__code__.co_firstlineno + 1}, raising"
    assert [r.message for r in report.rows if r.candidate == "other"] == [f"RuntimeError: out of luck (at {place})"] * 2


def test_lower_precision_inside_is_seen_or_said_to_be_beyond_judgement() -> None:
    """float16 somewhere in a float32 backward is an error of 1e-4; in float64 even float32 is one."""
    for dtype, inner in (("float32", np.float16), ("float64", np.float32)):

        def coarse(p: Any, d: Any, inner: Any = inner) -> Gradient:
            return {path: np.asarray(g).astype(inner).astype(float) for path, g in gradient(p, d).items()}

        assert verdicts(verify(coarse, dtypes=dtype)) == {"disagree"}, dtype


def test_a_loss_that_computes_in_less_than_it_is_called_in_is_no_false_alarm() -> None:
    """float32 inside a call in float64: the noise of the loss is measured, and the differences stand aside."""

    def narrow(tree: Any) -> Any:
        return {k: a.astype(np.float32) if a.dtype.kind == "f" else a for k, a in tree.items()}

    report = verify(lambda p, d: gradient(narrow(p), narrow(d)), lambda p, d: loss(narrow(p), narrow(d)))
    assert verdicts(report) <= {"agree", "inconclusive"}, repr(report)
    assert all(row.fd_bound is not None and row.fd_bound > 1e-6 for row in report.rows)


def test_a_loss_of_one_dtype_is_differenced_in_it_and_that_is_said() -> None:
    def only_float32(p: Any, d: Any) -> Any:
        if p["w"].dtype != np.float32:
            raise TypeError("float32 only")
        return loss(p, d)

    report = verify(gradient, only_float32, dtypes="float32")
    assert {row.fd_dtype for row in report.rows} == {"float32"}
    assert verdicts(report) <= {"agree", "inconclusive"}
    assert all(
        "differenced in float32, as the loss does not run in float64 (TypeError" in r.message for r in report.rows
    )
    wrong = verify(changed("w", lambda g, p, d: 1.2 * g), only_float32, dtypes="float32")
    assert verdicts(wrong, "w") == {"disagree"}


# Bad input


@pytest.mark.parametrize(
    ("loss", "error", "says"),
    [
        ({}, GradwitnessError, "no candidates"),
        ({"mine": loss}, GradwitnessError, "'mine' is no backend.*numpy.*Candidate"),
        ({"mine": gw.Candidate("tourch", loss)}, UnknownName, "unknown backend 'tourch'"),
        ({"numpy": 3}, GradwitnessError, "'numpy': expected a loss.*got int"),
        (3, GradwitnessError, "expected a loss.*got int"),
        (None, GradwitnessError, "expected a loss.*got NoneType"),
    ],
)
def test_mistakes_are_one_error_that_helps(loss: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        gw.verify(loss, PARAMS, BATCH)


@pytest.mark.parametrize(
    ("candidate", "says"),
    [
        (gw.Candidate("numpy", loss), "give the gradient as well"),
        (gw.Candidate("numpy", loss, gradient=lambda p, d: None), "must return a gradient for each of w, b, scale"),
        (gw.Candidate("numpy", loss, gradient=lambda p, d: p["w"]), "returned ndarray"),
        (gw.Candidate("numpy", loss, gradient=lambda p, d: {"weight": p["w"]}), "it returned weight"),
        (gw.Candidate("numpy", hidden, gradient=gradient), r"one number, got an array of shape \(7, 5\)"),
        (gw.Candidate("numpy", value_and_gradient=gradient), r"must return \(value, gradient\), got dict"),
        (gw.Candidate("numpy", gradient=gradient), "has no loss"),
    ],
)
def test_a_candidate_that_cannot_run_says_why(candidate: gw.Candidate, says: str) -> None:
    report = gw.verify(candidate, PARAMS, BATCH)
    assert not report
    (row,) = report.rows
    assert row.verdict in ("error", "unsupported")
    assert says.replace("\\", "") in row.message


def test_backends_and_candidates_exclude_each_other() -> None:
    with pytest.raises(GradwitnessError, match="each candidate names its own"):
        gw.verify({"mine": gw.Candidate("numpy", loss, gradient=gradient)}, PARAMS, BATCH, backends="numpy")


def test_dtypes_are_by_default_those_of_the_params() -> None:
    def dtypes(params: Any) -> list[str]:
        report = gw.verify(gw.Candidate("numpy", loss, gradient=gradient), params, BATCH)
        assert report, repr(report)
        return list(dict.fromkeys(row.dtype for row in report.rows))

    assert dtypes(PARAMS) == ["float64"]
    assert dtypes({path: a.astype(np.float32) for path, a in PARAMS.items()}) == ["float32"]
    assert dtypes({**PARAMS, "b": PARAMS["b"].astype(np.float32)}) == ["float64", "float32"]


def test_a_backend_that_is_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradwitness import registry

    monkeypatch.setattr(registry, "missing_modules", lambda name: ("torch",))
    with pytest.raises(UnsupportedError, match="needs torch, which is not installed"):
        gw.verify({"torch": loss}, PARAMS, BATCH)


def test_a_point_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ProblemError, match="w: 1 of 2 values are NaN"):
        gw.verify(gw.Candidate("numpy", loss, gradient=gradient), {"w": np.array([1.0, np.nan])}, BATCH)


# What correct but difficult losses must not be accused of, and what must not hide behind them


def one(loss: Any, gradient: Any, params: Any, batch: Any = None, **options: Any) -> set[str]:
    candidate = gw.Candidate("numpy", loss, gradient=gradient)
    return verdicts(gw.verify(candidate, params, batch, **options))


@pytest.mark.parametrize("offset", [1e10, 1e6])
def test_a_zero_gradient_does_not_pass_where_differences_are_coarse(offset: float) -> None:
    """A small loss beside a large one: nobody can say, whoever is right."""

    def drowned(p: Any, d: Any) -> Any:
        return offset + 1e-9 * np.sin(p["w"]).sum()

    point = {"w": np.array([0.3, -0.4, 1.0, 2.0])}
    assert one(drowned, lambda p, d: {"w": 0 * p["w"]}, point) == {"inconclusive"}
    assert one(drowned, lambda p, d: {"w": None}, point) == {"inconclusive"}
    assert one(drowned, lambda p, d: {"w": 1e-9 * np.cos(p["w"])}, point) == {"inconclusive"}


def test_a_zero_gradient_does_not_pass_where_every_coordinate_is_at_a_kink() -> None:
    def kinked(p: Any, d: Any) -> Any:
        return (np.maximum(p["w"], 0) + 0.3 * p["w"]).sum()

    assert one(kinked, lambda p, d: {"w": 0 * p["w"]}, {"w": np.zeros(3)}) == {"inconclusive"}


def cross_entropy(p: Any, d: Any) -> Any:
    z = d["x"] @ p["w"].T
    z = z - z.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), d["t"]])


def by_cross_entropy(p: Any, d: Any) -> Gradient:
    z = d["x"] @ p["w"].T
    e = np.exp(z - z.max(1, keepdims=True))
    soft = e / e.sum(1, keepdims=True)
    soft[np.arange(len(z)), d["t"]] -= 1
    return {"w": soft.T @ d["x"] / np.asarray(len(z), z.dtype)}


@pytest.mark.parametrize("scale", [1, 10, 20, 30])
@pytest.mark.parametrize("seed", range(4))
def test_a_confident_softmax_is_not_accused(seed: int, scale: float) -> None:
    """Tiny elements beside large ones, each with the rounding of the large logits."""
    draw = np.random.default_rng(seed).normal
    params, x = {"w": draw(size=(5, 8)) * scale}, draw(size=(16, 8))
    batch = {"x": x, "t": (x @ params["w"].T).argmax(1)}
    for dtype in ("float64", "float32"):
        assert one(cross_entropy, by_cross_entropy, params, batch, dtypes=dtype) <= {"agree", "inconclusive"}
        wrong = one(cross_entropy, lambda p, d: {"w": by_cross_entropy(p, d)["w"] * 1.001}, params, batch, dtypes=dtype)
        assert "agree" not in wrong


def test_a_noisy_witness_excuses_nobody() -> None:
    """A gradient that is noise at half a percent is not sure itself, and leaves a wrong one beside it wrong."""

    def smooth(p: Any, d: Any) -> Any:
        return np.sum(np.sin(p["w"]))

    def chaotic(p: Any, d: Any) -> Gradient:
        noise = np.sin(1e13 * float(p["w"].sum()) + np.arange(p["w"].size))
        return {"w": np.cos(p["w"]) * (1 + 0.005 * noise)}

    point = {"w": np.linspace(0.1, 2.0, 8)}
    candidates = {
        "chaotic": gw.Candidate("numpy", smooth, gradient=chaotic),
        "wrong": gw.Candidate("numpy", smooth, gradient=lambda p, d: {"w": 1.03 * np.cos(p["w"])}),
        "right": gw.Candidate("numpy", smooth, gradient=lambda p, d: {"w": np.cos(p["w"])}),
    }
    for dtype in ("float64", "float32"):
        report = gw.verify(candidates, point, dtypes=dtype)
        assert rows_of(report, "wrong", "w") == {"disagree"}
        assert rows_of(report, "right", "w") == {"agree"}, repr(report)
        assert rows_of(report, "chaotic", "w") <= {"disagree", "inconclusive"}


@pytest.mark.parametrize("error", [1e-6, 1e-5, 3e-5])
def test_the_order_of_candidates_does_not_change_who_is_right(error: float) -> None:
    wrong = gw.Candidate("numpy", loss, gradient=changed("w", lambda g, p, d: g * (1 + error)))
    right = gw.Candidate("numpy", loss, gradient=gradient)
    first = gw.verify({"wrong": wrong, "right": right}, PARAMS, BATCH, dtypes="float32")
    last = gw.verify({"right": right, "wrong": wrong}, PARAMS, BATCH, dtypes="float32")
    for report in (first, last):
        assert rows_of(report, "right", "w") == {"agree"}, repr(report)
    assert rows_of(first, "wrong", "w") == rows_of(last, "wrong", "w")
    if error >= 1e-5:
        assert rows_of(first, "wrong", "w") == {"disagree"}


def test_an_error_as_large_as_the_limit_is_caught() -> None:
    for dtype in ("float64", "float32"):
        (row,) = (r for r in verify(dtypes=dtype).rows if r.parameter == "w")
        assert row.limit is not None
        assert row.reference is not None
        off = changed("w", times(1 + 1.5 * row.limit / row.reference))
        assert verdicts(verify(off, dtypes=dtype), "w") <= {"disagree", "inconclusive"}


def test_a_loss_that_fails_at_a_closer_look_costs_nobody_the_rest() -> None:
    calls = [0]
    params, batch = {"w": RNG.standard_normal(2_000)}, {"x": RNG.standard_normal(2_000)}

    def tiring(p: Any, d: Any) -> Any:
        calls[0] += 1
        if p["w"][77] != params["w"][77] and calls[0] > 200 and np.count_nonzero(p["w"] != params["w"]) == 1:
            raise MemoryError("out of memory")
        return np.sum(np.sin(p["w"]) * d["x"])

    def right(p: Any, d: Any) -> Gradient:
        return {"w": np.cos(p["w"]) * d["x"]}

    def off(p: Any, d: Any) -> Gradient:
        g = right(p, d)["w"]
        g[77] *= 1.01
        return {"w": g}

    report = gw.verify(
        {"right": gw.Candidate("numpy", tiring, gradient=right), "off": gw.Candidate("numpy", tiring, gradient=off)},
        params,
        batch,
    )
    assert len(report.rows) == 2
    assert not report


def test_domains_that_a_loss_checks_are_not_its_fault() -> None:
    """A standard deviation of 0.02 beside 2: a neighbour at a tenth of their root mean square is often negative."""

    def likelihood(p: Any, d: Any) -> Any:
        if np.any(p["s"] <= 0):
            raise ValueError("the scale must be positive")
        return np.sum(np.log(p["s"]) + 0.5 * (d["y"] / p["s"]) ** 2)

    def right(p: Any, d: Any) -> Gradient:
        return {"s": 1 / p["s"] - d["y"] ** 2 / p["s"] ** 3}

    point, data = {"s": np.array([0.02, 1.0, 2.0])}, {"y": np.array([0.01, 0.5, -1.0])}
    assert one(likelihood, right, point, data) == {"agree"}
    assert one(likelihood, lambda p, d: {"s": 1.001 * right(p, d)["s"]}, point, data) == {"disagree"}


def test_floats_that_are_labels_or_exponents_are_left_whole() -> None:
    def labelled(p: Any, d: Any) -> Any:
        return np.where(d["y"] == 1, p["w"] ** d["p"], np.cos(p["w"])).sum()

    def right(p: Any, d: Any) -> Gradient:
        return {"w": np.where(d["y"] == 1, d["p"] * p["w"] ** (d["p"] - 1), -np.sin(p["w"]))}

    point = {"w": np.array([-0.3, 0.7, -1.1])}
    for dtype in ("float64", "float32"):
        found = one(labelled, right, point, {"y": np.array([1.0, 0.0, 1.0]), "p": np.array(2.0)}, dtypes=dtype)
        assert found == {"agree"}, dtype


def test_losses_are_held_against_one_that_is_finite() -> None:
    candidates = {
        "nan": gw.Candidate("numpy", lambda p, d: loss(p, d) * np.nan, gradient=gradient),
        "right": gw.Candidate("numpy", loss, gradient=gradient),
        "double": gw.Candidate(
            "numpy", lambda p, d: 2 * loss(p, d), gradient=lambda p, d: {k: 2 * g for k, g in gradient(p, d).items()}
        ),
    }
    report = gw.verify(candidates, PARAMS, BATCH)
    assert rows_of(report, "nan", "w") == rows_of(report, "double", "w") == {"different-loss"}
    assert rows_of(report, "right", "w") == {"agree"}


def test_half_a_precision_in_a_backward_is_seen_in_a_sum_of_many() -> None:
    """The errors of a thousand terms average out; float64 shows them all the same."""
    draw = np.random.default_rng(1).standard_normal
    params, batch = {"w": draw((6, 4))}, {"x": draw((1000, 4)), "y": draw((1000, 6))}

    def squares(p: Any, d: Any) -> Any:
        return np.mean((np.tanh(d["x"] @ p["w"].T) - d["y"]) ** 2)

    def backward(inner: Any) -> Any:
        def by(p: Any, d: Any) -> Gradient:
            h = np.tanh(d["x"] @ p["w"].T)
            g = (2 / h.size * (h - d["y"]) * (1 - h * h)).astype(h.dtype)
            return {"w": g.astype(inner or g.dtype).astype(g.dtype).T @ d["x"]}

        return by

    for dtype in ("float64", "float32"):
        assert one(squares, backward(None), params, batch, dtypes=dtype) == {"agree"}
        assert one(squares, backward(np.float16), params, batch, dtypes=dtype) == {"disagree"}


def test_more_gradients_than_asked_for_are_left_alone() -> None:
    assert verify(wrt="w")


def test_a_complex_loss_is_refused() -> None:
    report = verify(loss=lambda p, d: loss(p, d) + 0j)
    assert verdicts(report) == {"error"}
    assert "one real number" in repr(report)
