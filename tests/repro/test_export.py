"""A planted fault becomes a script that shows it without gradwitness, and no longer once it is mended there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradwitness as gw
from gradwitness import ops
from gradwitness.errors import GradwitnessError
from gradwitness.networks import network
from gradwitness.own_ops import Spec, real, sample
from gradwitness_numpy.rules import RULES
from gradwitness_torch.functions import FUNCTIONS
from tests.repro import planted
from tests.repro.faulty_torch import WrongTanh
from tests.repro.running import Said, fixed, run

EXAMPLES = 64
Point = tuple[Any, Any]


@pytest.fixture
def point() -> Point:
    """params and batch."""
    draw = np.random.default_rng(0).normal
    return {"layer": {"w": draw(size=(5, 8))}, "b": draw(size=5)}, {"x": draw(size=(EXAMPLES, 8))}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "bug.py"


def exported(report: gw.Report, script: Path, **chosen: Any) -> str:
    assert not report
    report.export_repro(script, **chosen)
    return script.read_text()


def arrays(text: str) -> dict[str, Any]:
    """The arrays of the point that a script is about."""
    start, end = text.index("\nparams = "), text.index("\n\n\n# How its gradient")
    found: dict[str, Any] = {"np": np}
    exec(text[start:end], found)  # noqa: S102  # what has just been written
    return found


def shows(said: Said) -> None:
    assert said.status == 1, said.text
    assert said.text.endswith("\nreproduces\n")


def is_mended(said: Said) -> None:
    assert said.status == 0, said.text
    assert said.text.endswith("\ndoes not reproduce\n")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_torch_function(point: Point, script: Path, dtype: str) -> None:
    text = exported(gw.verify({"torch": planted.torch_loss}, *point, dtypes=dtype), script)
    said = run(script, beside=["torch"])
    shows(said)
    assert abs(said.number("gradient") - said.number("finite difference")) > 1e-3
    assert "def halved(x" in text
    assert "SCALE = 2.0" in text
    mended = run(fixed(script, " + 0.25 * (x > 1)", ""), beside=["torch"])
    is_mended(mended)
    assert mended.number("gradient") == pytest.approx(said.number("finite difference"), rel=1e-6)


def test_a_custom_vjp(point: Point, script: Path) -> None:
    text = exported(gw.verify({"jax": planted.jax_loss}, *point), script)
    shows(run(script, beside=["jax", "jaxlib", "scipy"]))
    assert "softsign.defvjp(softsign_forward, softsign_backward)" in text
    mended = fixed(script, "return (g / (1 + jnp.abs(x)),)", "return (g / (1 + jnp.abs(x)) ** 2,)")
    is_mended(run(mended, beside=["jax", "jaxlib", "scipy"]))


def test_a_gradient_by_hand(point: Point, script: Path) -> None:
    mine = gw.Candidate("numpy", planted.value, gradient=planted.gradient)
    text = exported(gw.verify({"mine": mine}, *point), script, parameter="b")
    said = run(script)
    shows(said)
    assert "finite difference" in said.text
    assert "def mean_square(x" in text
    is_mended(run(fixed(script, "g.mean(axis=0)", "g.sum(axis=0)")))


def test_value_and_gradient_in_one_call(point: Point, script: Path) -> None:
    mine = gw.Candidate("numpy", value_and_gradient=planted.value_and_gradient)
    exported(gw.verify({"mine": mine}, *point), script)
    shows(run(script))
    is_mended(run(fixed(script, "g.mean(axis=0)", "g.sum(axis=0)")))


@pytest.mark.parametrize(
    ("gradient", "parameter", "said"),
    [(planted.missing_gradient, "b", "None"), (planted.nonfinite_gradient, "layer.w", "nan")],
)
def test_none_and_nan(point: Point, script: Path, gradient: Any, parameter: str, said: str) -> None:
    mine = gw.Candidate("numpy", planted.value, gradient=gradient)
    exported(gw.verify({"mine": mine}, *point), script, parameter=parameter)
    found = run(script)
    shows(found)
    assert re.search(rf"^gradient by hand +{said} ", found.text, re.MULTILINE)


def test_lambdas_and_what_they_close_over(point: Point, script: Path) -> None:
    params = {"b": point[0]["b"] + 2}
    text = exported(gw.verify({"torch": planted.scaled(3.0)}, params), script)
    shows(run(script, beside=["torch"]))
    assert "scale = 3.0" in text
    is_mended(run(fixed(script, " + 0.25 * (x > 1)", ""), beside=["torch"]))


def test_a_lambda_of_the_call_itself(script: Path) -> None:
    wrong = gw.Candidate("torch", lambda p, b: (p["w"] ** 2).sum(), gradient=lambda p, b: {"w": p["w"]})
    exported(gw.verify({"mine": wrong}, {"w": np.ones((2, 3))}), script)
    said = run(script, beside=["torch"])
    shows(said)
    assert (said.number("gradient by hand"), said.number("by the framework")) == (1.0, 2.0)


def test_params_in_a_named_tuple(script: Path) -> None:
    mine = gw.Candidate("numpy", planted.line_loss, gradient=planted.line_gradient)
    params = planted.Line(np.array(0.5), np.array(-1.0))
    exported(gw.verify({"mine": mine}, params, {"x": np.linspace(-1, 2, 14).reshape(7, 2)}), script)
    shows(run(script))
    is_mended(run(fixed(script, "Line(np.sum(y), np", 'Line(np.sum(y * batch["x"][:, 0]), np')))


def test_an_array_valued_loss(point: Point, script: Path) -> None:
    params = {"layer": point[0]["layer"]}
    mine = gw.Candidate("numpy", planted.logits, gradient=planted.logits_gradient)
    exported(gw.verify({"mine": mine}, params, point[1], cotangent="random"), script)
    shows(run(script))
    is_mended(run(fixed(script, "(1 - logits(params, batch))", "(1 - logits(params, batch) ** 2)")))


def test_by_a_leaf_of_the_batch(point: Point, script: Path) -> None:
    mine = gw.Candidate("numpy", planted.value, gradient=planted.by_x)
    exported(gw.verify({"mine": mine}, *point, wrt="x"), script)
    said = run(script)
    shows(said)
    assert said.number("gradient by hand") == 0.0


def test_a_partial(point: Point, script: Path) -> None:
    mine = gw.Candidate("numpy", planted.partial_loss, gradient=planted.partial_gradient)
    exported(gw.verify({"mine": mine}, *point), script)
    shows(run(script))
    is_mended(run(fixed(script, '"b": params["b"]}', '"b": 2 * params["b"]}')))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_faulty_op_of_torch_is_all_that_is_left_of_a_network(
    script: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setitem(FUNCTIONS, "tanh", WrongTanh.apply)
    text = exported(gw.verify(network("mlp"), dtypes=dtype, backends="numpy,torch,jax"), script, candidate="torch")
    said = run(script, beside=["torch"])
    shows(said)
    assert said.number("jax gave") == pytest.approx(said.number("finite difference"), rel=1e-6)
    loss = re.search(r"def loss\(params, batch\):\n(.*?)\n\n", text, re.DOTALL)
    assert loss
    assert loss[1].splitlines() == [
        '    v0 = params["linear"]',
        "    v1 = WrongTanh.apply(v0)",
        "    return v1",
    ]
    assert arrays(text)["params"]["linear"].size == 1
    is_mended(run(fixed(script, "(1 - y)", "(1 - y * y)"), beside=["torch"]))


FAULTY = [
    ("mlp", "tanh", 1),
    ("siamese", "norm", 1),
    ("lstm", "lstm_cell", 2),
    ("mlp", "mse", 1),
    ("convnet", "max_pool2d", 1),
    ("softmax_classifier", "cross_entropy", 1),
    ("transformer", "layer_norm", 2),
]


@pytest.mark.parametrize(("problem", "op", "calls"), FAULTY)
def test_a_faulty_rule_of_numpy_is_all_that_is_left_of_a_network(
    script: Path, monkeypatch: pytest.MonkeyPatch, problem: str, op: str, calls: int
) -> None:
    rule = RULES[op]

    def vjp(g: Any, step: Any) -> list[Any]:
        first, *others = rule.vjp(g, step)
        return [-first, *others]

    monkeypatch.setitem(RULES, op, replace(rule, vjp=vjp))
    text = exported(gw.verify(network(problem), dtypes="float64", backends="numpy", reference="differences"), script)
    loss = re.search(r"def loss\(params, batch\):\n(.*?)\n\n", text, re.DOTALL)
    assert loss
    called = re.findall(r" = (\w+)\(", loss[1])
    assert called[0] == op
    assert len(called) <= calls  # the second is a sum
    shows(run(script, beside=["scipy"]))
    is_mended(run(fixed(script, "return [-first, *others]", "return [first, *others]"), beside=["scipy"]))


def test_what_is_left_is_small_and_short(point: Point, script: Path) -> None:
    mine = gw.Candidate("numpy", planted.value, gradient=planted.gradient)
    found = arrays(exported(gw.verify({"mine": mine}, *point), script))
    assert len(found["batch"]["x"]) <= 2
    assert found["params"]["layer"]["w"].size <= 2
    leaves = [found["params"]["layer"]["w"], found["params"]["b"], found["batch"]["x"]]
    assert all(len(f"{abs(x):g}") <= 6 for leaf in leaves for x in leaf.reshape(-1).tolist())


def test_without_time_nothing_is_left_out(point: Point, script: Path) -> None:
    mine = gw.Candidate("numpy", planted.value, gradient=planted.gradient)
    found = arrays(exported(gw.verify({"mine": mine}, *point), script, seconds=1e-9))
    assert found["batch"]["x"].shape == (EXAMPLES, 8)
    np.testing.assert_array_equal(found["batch"]["x"], point[1]["x"])
    shows(run(script))


def test_a_gradient_by_hand_of_a_traced_loss(point: Point, script: Path) -> None:
    def loss(params: Any, batch: Any) -> Any:
        hidden = ops.tanh(ops.linear(batch["x"], params["layer"]["w"], params["b"]))
        return (hidden * hidden).mean()

    mine = gw.Candidate("numpy", gradient=planted.gradient)
    report = gw.verify(loss, *point, backends="torch", candidates={"mine": mine}, dtypes="float64")
    exported(report, script, candidate="mine", parameter="b")
    shows(run(script, beside=["scipy"]))
    is_mended(run(fixed(script, "g.mean(axis=0)", "g.sum(axis=0)"), beside=["scipy"]))


@pytest.mark.usefixtures("vocabulary_restored")
def test_an_op_of_ones_own(script: Path) -> None:
    def cube(x: Spec) -> Spec:
        return x

    op = gw.define_op(
        cube,
        rounding="rounded",
        samples=[sample(real(2, 3))],
        numpy=(lambda x: x * x * x, lambda g, y, x: g * 3 * x * x),
        torch=lambda x: x * x * x.detach(),
    )
    exported(gw.verify_op(op, backends=["torch"], dtypes=["float64"]), script)
    said = run(script, beside=["torch"])
    shows(said)
    is_mended(run(fixed(script, "x.detach()", "x"), beside=["torch"]))


@pytest.mark.nightly
@pytest.mark.slow
def test_torch_compile(point: Point, script: Path) -> None:
    def loss(params: Any, batch: Any) -> Any:
        return (batch["x"] @ params["layer"]["w"].T * params["b"].detach()).sum() + params["b"].sum()

    exported(gw.verify({"torch.compile": loss}, *point, dtypes="float64"), script, parameter="b", seconds=10)
    shows(run(script, beside=["torch"]))


def right(params: Mapping[str, Any], batch: Any) -> Any:
    return {"w": 2 * params["w"]}


def loss_of_w(params: Mapping[str, Any], batch: Any) -> Any:
    return np.sum(params["w"] ** 2)


W = {"w": np.array([1.0, 2.0])}


def reported(gradient: Callable[..., Any], loss: Callable[..., Any] = loss_of_w) -> gw.Report:
    return gw.verify({"mine": gw.Candidate("numpy", loss, gradient=gradient)}, W)


def test_nothing_is_wrong(script: Path) -> None:
    with pytest.raises(GradwitnessError, match=r"nothing to reproduce.*here: agree"):
        reported(right).export_repro(script)
    assert not script.exists()


def test_the_row_asked_for_is_not_there(script: Path) -> None:
    with pytest.raises(GradwitnessError, match="here: no such gradient"):
        reported(lambda params, batch: {"w": params["w"]}).export_repro(script, parameter="v")


def test_a_report_without_its_candidates(script: Path) -> None:
    report = reported(lambda params, batch: {"w": params["w"]})
    with pytest.raises(GradwitnessError, match="this report has no candidates"):
        replace(report, cases=()).export_repro(script)


def test_a_gradient_of_another_shape(script: Path) -> None:
    with pytest.raises(GradwitnessError, match=r"nothing to reproduce.*here: error"):
        reported(lambda params, batch: {"w": params["w"][:1]}).export_repro(script)


def test_source_that_cannot_be_had(script: Path) -> None:
    made: dict[str, Any] = {}
    exec("def gradient(params, batch):\n    return {'w': params['w']}", made)  # noqa: S102  # the point of the test
    with pytest.raises(GradwitnessError, match=r"the source of 'gradient' cannot be had.*in a file"):
        reported(made["gradient"]).export_repro(script)


def test_an_object_that_no_text_makes(script: Path) -> None:
    class Held:
        factor = 3.0

    held = Held()
    with pytest.raises(GradwitnessError, match=r"'held' is a .*Held, which no source text makes"):
        reported(lambda params, batch: {"w": held.factor * params["w"]}).export_repro(script)


def test_a_script_that_shows_nothing_is_said_to(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "elsewhere_only_here", sys)
    wrong_here = lambda params, batch: {"w": (1 if "elsewhere_only_here" in sys.modules else 2) * params["w"]}  # noqa: E731
    with pytest.raises(GradwitnessError, match=r"does not reproduce the fault on its own:\n(.*\n)*does not reproduce"):
        reported(wrong_here).export_repro(script)


def test_importing_gradwitness_would_be_seen(tmp_path: Path) -> None:
    importing = tmp_path / "importing.py"
    importing.write_text("try:\n    import gradwitness\nexcept ImportError as error:\n    print(error)\n")
    assert "gradwitness is not there" in run(importing).text
