"""Losses and gradients in the arrays of torch and jax: wrong ones are at fault by their label, right ones agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import gradwitness as gw

RNG = np.random.default_rng(0)
PARAMS = {"layer": {"w": RNG.standard_normal((4, 3)), "b": RNG.standard_normal(4)}}
BATCH = {"x": RNG.standard_normal((8, 3)), "y": RNG.standard_normal((8, 4)), "label": RNG.integers(0, 4, 8)}
SPACES: dict[str, Any] = {"numpy": np, "torch": torch, "jax": jnp}
Gradient = Callable[[Any, Any], Any]


def loss_in(framework: str) -> Callable[[Any, Any], Any]:
    """Mean squared error of a tanh layer, in a framework's arrays."""
    tanh = SPACES[framework].tanh

    def loss(params: Any, batch: Any) -> Any:
        hidden = tanh(batch["x"] @ params["layer"]["w"].T + params["layer"]["b"])
        return ((hidden - batch["y"]) ** 2).mean()

    return loss


def gradient_in(framework: str, factor: float = 1.0) -> Gradient:
    """Its gradient by hand; `factor` is the fault, on b."""
    tanh = SPACES[framework].tanh

    def gradient(params: Any, batch: Any) -> Any:
        hidden = tanh(batch["x"] @ params["layer"]["w"].T + params["layer"]["b"])
        g = (hidden - batch["y"]) * (1 - hidden * hidden) * (2 / (8 * 4))
        return {"layer": {"w": g.T @ batch["x"], "b": g.sum(0) * factor}}

    return gradient


def verify(candidates: Any, params: Any = None, batch: Any = None, **options: Any) -> gw.Report:
    return gw.verify(candidates, PARAMS if params is None else params, BATCH if batch is None else batch, **options)


def verdicts(report: gw.Report, label: str) -> set[str]:
    return {str(row.verdict) for row in report.rows if row.candidate == label}


def by_hand(framework: str, factor: float = 1.0) -> gw.Candidate:
    return gw.Candidate(framework, loss_in(framework), gradient=gradient_in(framework, factor))


def test_losses_of_three_frameworks_agree() -> None:
    report = verify(
        {"torch": loss_in("torch"), "jax": loss_in("jax"), "mine": by_hand("numpy")}, dtypes=("float64", "float32")
    )
    assert report, repr(report)
    assert len(report.rows) == 12
    against = {(row.dtype, row.against) for row in report.rows if row.candidate == "mine"}
    assert against == {("float64", "torch"), ("float32", "itself in float64")}
    assert all(row.captured and row.against is None for row in report.rows if row.candidate != "mine")


@pytest.mark.parametrize("framework", SPACES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_wrong_gradient_is_at_fault_by_its_label(framework: str, dtype: str) -> None:
    candidates = {
        "wrong": by_hand(framework, 1.0001),
        "torch": loss_in("torch"),
        "jax": loss_in("jax"),
        "right": by_hand(framework),
    }
    report = verify(candidates, dtypes=dtype)
    assert not report
    found = {(row.candidate, row.parameter): str(row.verdict) for row in report.rows}
    assert found.pop(("wrong", "layer.b")) == "disagree"
    assert set(found.values()) == {"agree"}, repr(report)
    text = repr(report)
    assert len(text.splitlines()) <= 12
    assert f"loss {dtype} wrong layer.b: disagree: " in text
    assert ("finite differences refute it at [" if framework == "numpy" else "off by 0.0001 of its norm") in text


@pytest.mark.slow
def test_torch_compile_runs_a_native_loss() -> None:
    candidates = {
        "torch.compile": loss_in("torch"),
        "defaults": gw.Candidate("torch.compile", loss_in("torch"), options={"fullgraph": False, "dynamic": None}),
        "wrong": gw.Candidate("torch.compile", loss_in("torch"), gradient=gradient_in("torch", 0.999)),
    }
    report = verify(candidates)
    assert verdicts(report, "torch.compile") == verdicts(report, "defaults") == {"agree"}, repr(report)
    assert verdicts(report, "wrong") == {"agree", "disagree"}


@pytest.mark.slow
def test_a_graph_break_is_reported() -> None:
    def breaking(params: Any, batch: Any) -> Any:
        torch._dynamo.graph_break()
        return loss_in("torch")(params, batch)

    report = verify({"torch.compile": breaking})
    assert verdicts(report, "torch.compile") == {"error"}
    assert "graph_break" in report.rows[0].message


def test_bfloat16_and_float16_are_judged_or_said_to_be_beyond_it() -> None:
    report = verify({"torch": loss_in("torch"), "jax": loss_in("jax")}, dtypes=("bfloat16", "float16"))
    for label in ("torch", "jax"):
        assert verdicts(report, label) <= {"agree", "inconclusive"}, repr(report)
        assert "agree" in verdicts(report, label)
    wrong = verify({"torch": loss_in("torch"), "wrong": by_hand("jax", 3.0)}, dtypes="bfloat16")
    assert not wrong
    assert {str(r.verdict) for r in wrong.rows if (r.candidate, r.parameter) == ("wrong", "layer.b")} <= {
        "disagree",
        "inconclusive",
    }


def test_gelu_variants_are_different_losses() -> None:
    def torch_loss(params: Any, batch: Any) -> Any:
        return torch.nn.functional.gelu(batch["x"] @ params["layer"]["w"].T).mean()

    def jax_loss(params: Any, batch: Any) -> Any:
        return jax.nn.gelu(batch["x"] @ params["layer"]["w"].T).mean()

    report = verify({"torch": torch_loss, "jax": jax_loss})
    assert verdicts(report, "torch") == {"agree"}
    assert verdicts(report, "jax") == {"different-loss"}


def test_a_detached_path_is_missing_in_torch_and_wrong_in_jax() -> None:
    def torch_loss(params: Any, batch: Any) -> Any:
        detached = {"layer": {**params["layer"], "b": params["layer"]["b"].detach()}}
        return loss_in("torch")(detached, batch)

    def jax_loss(params: Any, batch: Any) -> Any:
        detached = {"layer": {**params["layer"], "b": jax.lax.stop_gradient(params["layer"]["b"])}}
        return loss_in("jax")(detached, batch)

    report = verify({"torch": torch_loss, "jax": jax_loss})
    found = {row.candidate: str(row.verdict) for row in report.rows if row.parameter == "layer.b"}
    assert found == {"torch": "missing", "jax": "disagree"}


def test_dropout_is_nondeterministic() -> None:
    def dropped(params: Any, batch: Any) -> Any:
        x = torch.nn.functional.dropout(batch["x"], 0.5)
        return loss_in("torch")(params, {**batch, "x": x})

    report = verify({"torch": dropped, "jax": loss_in("jax")})
    assert verdicts(report, "torch") == {"nondeterministic"}
    assert "seed all random numbers" in repr(report)
    assert verdicts(report, "jax") == {"agree"}, "what is the same from call to call is judged"


def test_a_torch_loss_of_one_element_counts_as_a_scalar() -> None:
    assert verify({"torch": lambda p, b: loss_in("torch")(p, b).reshape(1)})


def test_integer_leaves_pass_untouched() -> None:
    def torch_loss(params: Any, batch: Any) -> Any:
        logits = batch["x"] @ params["layer"]["w"].T + params["layer"]["b"]
        return torch.nn.functional.cross_entropy(logits, batch["label"])

    def jax_loss(params: Any, batch: Any) -> Any:
        logits = batch["x"] @ params["layer"]["w"].T + params["layer"]["b"]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), batch["label"][:, None], axis=1).mean()

    assert verify({"torch": torch_loss, "jax": jax_loss}, dtypes=("float64", "float32"))


def test_tensors_and_jax_arrays_may_be_given_as_params() -> None:
    params: dict[str, dict[str, Any]] = {
        "layer": {
            "w": torch.tensor(PARAMS["layer"]["w"], dtype=torch.float32, requires_grad=True),
            "b": jnp.asarray(PARAMS["layer"]["b"], dtype="float32"),
        }
    }
    batch = {**BATCH, "x": torch.tensor(BATCH["x"]).to(torch.bfloat16)}
    report = verify({"torch": loss_in("torch"), "jax": loss_in("jax")}, params, batch)
    assert report, repr(report)
    assert {row.dtype for row in report.rows} == {"float32"}
    assert params["layer"]["w"].grad is None


def test_python_control_flow_needs_jit_off_in_jax() -> None:
    def branching(params: Any, batch: Any) -> Any:
        value = loss_in("jax")(params, batch)
        return value if value > 0 else -value

    assert "TracerBoolConversionError" in verify({"jax": branching}).rows[0].message
    assert verify(gw.Candidate("jax", branching, options={"jit": False}))


@pytest.mark.parametrize(
    ("candidate", "says"),
    [
        (gw.Candidate("torch", lambda p, b: loss_in("torch")(p, b).item()), "must return a torch.Tensor"),
        (gw.Candidate("torch", lambda p, b: p["layer"]["b"]), "one number, got an array of shape (4,)"),
        (gw.Candidate("jax", lambda p, b: p["layer"]["b"]), "one number, got an array of shape (4,)"),
    ],
)
def test_what_cannot_run_says_why(candidate: gw.Candidate, says: str) -> None:
    (row,) = verify(candidate).rows
    assert says in row.message


def test_a_single_native_loss_is_told_how_it_is_given() -> None:
    with pytest.raises(gw.GradwitnessError, match=r"gw.verify\(\{\"torch\": loss\}"):
        gw.verify(lambda p, b: torch.tanh(p["layer"]["w"]).sum(), PARAMS, BATCH)


def test_what_belongs_to_the_caller_is_as_it_was() -> None:
    def state() -> tuple[Any, ...]:
        return (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.get_rng_state().tolist(),
            torch.get_float32_matmul_precision(),
            jax.config.jax_enable_x64,  # type: ignore[attr-defined]  # added at run time
            np.random.get_state()[1].tolist(),  # type: ignore[index]  # the caller's
            {path: leaf.tobytes() for path, leaf in {**PARAMS["layer"], **BATCH}.items()},
        )

    before = state()
    with torch.no_grad():
        assert verify({"torch": loss_in("torch"), "jax": loss_in("jax"), "mine": by_hand("numpy")})
    assert state() == before


@pytest.mark.parametrize("framework", SPACES)
def test_a_stale_activation_is_found_in_any_framework(framework: str) -> None:
    """A cache that the first call of each dtype fills and that no later one renews."""
    cache: dict[str, Any] = {}

    def stale(params: Any, batch: Any) -> Any:
        first = cache.setdefault(str(params["layer"]["w"].dtype), params)
        return gradient_in(framework)(first, batch)

    report = verify(gw.Candidate(framework, loss_in(framework), gradient=stale))
    assert "disagree" in verdicts(report, framework)


def test_inputs_modified_in_place_are_an_error_in_torch() -> None:
    def normalising(params: Any, batch: Any) -> Any:
        batch["x"].sub_(batch["x"].mean())
        return loss_in("torch")(params, batch)

    report = verify({"torch": normalising})
    assert verdicts(report, "torch") == {"error"}
    assert "the function modifies x, which belongs to the caller" in repr(report)


def test_a_gradient_by_hand_may_use_autograd_whatever_the_callers_mode() -> None:
    def by_autograd(params: Any, batch: Any) -> Any:
        leaves = {name: p.detach().requires_grad_() for name, p in params["layer"].items()}
        found = torch.autograd.grad(loss_in("torch")({"layer": leaves}, batch), list(leaves.values()))
        return {"layer": dict(zip(leaves, found, strict=True))}

    candidates = {"mine": gw.Candidate("torch", loss_in("torch"), gradient=by_autograd), "torch": loss_in("torch")}
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert verify(candidates), mode


def test_names_of_parameters_with_dots_are_paths() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()

    def loss(params: Any, batch: Any) -> Any:
        return torch.func.functional_call(model, params, batch["x"]).square().mean()

    report = verify(gw.Candidate("torch", loss), dict(model.named_parameters()))
    assert report, repr(report)
    assert [row.parameter for row in report.rows] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert all(p.grad is None for p in model.parameters())


def test_a_loss_that_is_another_in_float64_is_not_held_against_it() -> None:
    """torch draws other numbers in another dtype."""

    def drawn(p: Any, d: Any) -> Any:
        torch.manual_seed(0)
        return (p["w"] * torch.rand_like(p["w"])).sum()

    report = gw.verify(gw.Candidate("torch", drawn), {"w": np.ones((4, 3))}, dtypes=("float64", "float32"))
    assert [str(row.verdict) for row in report.rows] == ["agree", "inconclusive"]
    assert "does it depend on the dtype, by a cast, autocast, an eps, a branch" in report.rows[1].message


def test_a_loss_that_computes_in_float32_inside_is_no_other_loss() -> None:
    """Beside one that is in float64 throughout: what differs is what float32 rounds."""

    def narrow(p: Any, d: Any) -> Any:
        return (torch.softmax((d["x"] @ p["w"]).float(), -1).to(p["w"].dtype) ** 2).sum()

    def wide(p: Any, d: Any) -> Any:
        return (torch.softmax(d["x"] @ p["w"], -1) ** 2).sum()

    draw = np.random.default_rng(0).standard_normal
    candidates = {"wide": gw.Candidate("torch", wide), "narrow": gw.Candidate("torch", narrow)}
    report = gw.verify(candidates, {"w": draw((4, 3))}, {"x": draw((5, 4))}, dtypes="float64")
    assert {str(row.verdict) for row in report.rows} <= {"agree", "inconclusive"}, repr(report)
    assert {str(row.verdict) for row in report.rows if row.candidate == "wide"} == {"agree"}, repr(report)
