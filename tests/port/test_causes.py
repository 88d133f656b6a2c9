"""A port that differs: the first value that does is named, and the cause, if it is one of those known."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gradwitness.port import PortReport
from tests.port.models import (
    CONVOLUTION,
    IMAGES,
    LSTM,
    PERCEPTRON,
    ROWS,
    SERIES,
    STATISTICS,
    Recurrent,
    convolution,
    convolution_in_jax,
    lstm_in_jax,
    perceptron,
    perceptron_in_jax,
    port,
    seeded,
)

RNG = np.random.default_rng(1)

pytestmark = pytest.mark.usefixtures("values_alone")


def quick_gelu(x: jax.Array) -> jax.Array:
    return x * jax.nn.sigmoid(1.702 * x)


# By fault: what is planted in jax, the first torch layer that shows it, and the cause.
PLANTED: dict[str, tuple[dict[str, Any], str, str]] = {
    "eps of flax": ({"eps": 1e-6}, "1", "layer_norm eps: 1e-05 in torch, 1e-06 in jax"),
    "eps of BERT": ({"eps": 1e-12}, "1", "layer_norm eps: 1e-05 in torch, 1e-12 in jax"),
    "ddof": ({"ddof": 1}, "1", "layer_norm ddof: 0 in torch, 1 in jax"),
    "gelu": ({"gelu": jax.nn.gelu}, "3", "gelu: erf in torch, tanh in jax"),
    "quick gelu": ({"gelu": quick_gelu}, "3", "gelu: erf in torch, x sigmoid(1.702 x) in jax"),
    "layout": ({"transposed": True}, "3", "3.weight is as it is in jax's Dense_1.kernel, not transposed"),
    "sum": ({"sums": True}, "loss", "reduction of the loss: mean in torch, sum in jax"),
}


def first(report: PortReport) -> str:
    """The first of torch's values that differs."""
    explained = report.explained
    return explained.causes[0][1].torch if explained.causes else explained.rest.torch if explained.rest else ""


@pytest.mark.parametrize("shown", [True, False], ids=["activations", "loss alone"])
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_named(fault: str, shown: bool) -> None:
    planted, where, cause = PLANTED[fault]
    report = port(seeded(perceptron), perceptron_in_jax(shown=shown, **planted), PERCEPTRON, ROWS)
    assert not report
    assert report.causes == (cause,)
    assert first(report) == (where if shown else "loss")
    assert report.explained.rest is None
    assert report.gradients is None
    assert f"cause: {cause}" in repr(report)


def test_faults_at_two_places_are_both_named() -> None:
    loss = perceptron_in_jax(eps=1e-6, transposed=True)
    report = port(seeded(perceptron), loss, PERCEPTRON, ROWS)
    assert report.causes == (PLANTED["eps of flax"][2], PLANTED["layout"][2])
    assert [at.torch for _, at in report.explained.causes] == ["1", "3"]


def test_two_faults_that_show_in_the_loss_alone_are_named_together() -> None:
    loss = perceptron_in_jax(eps=1e-6, gelu=jax.nn.gelu, shown=False)
    report = port(seeded(perceptron), loss, PERCEPTRON, ROWS)
    assert set(report.causes) == {PLANTED["eps of flax"][2], PLANTED["gelu"][2]}
    assert "with all of these changed, loss agrees" in repr(report)


def test_two_faults_of_a_deep_network_are_found_among_many_single_calls() -> None:
    def deep(gelu: Any, norm: Any) -> Any:
        def loss(params: Any, batch: Any) -> Any:
            x = batch["x"] @ params["w"]
            for _ in range(8):
                x = gelu(norm(x)) @ params["v"]
            return (x**2).mean()

        return loss

    def norm(x: Any) -> Any:
        return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)

    params = {"w": RNG.normal(size=(3, 6)), "v": RNG.normal(size=(6, 6))}
    in_torch = deep(F.gelu, lambda x: F.layer_norm(x, (6,)))
    report = port(in_torch, deep(jax.nn.gelu, norm), params, ROWS, torch_params=params)
    assert set(report.causes) == {PLANTED["eps of flax"][2], PLANTED["gelu"][2]}


def test_what_no_cause_explains_says_what_was_tried() -> None:
    report = port(seeded(perceptron), perceptron_in_jax(gelu=jnp.tanh), PERCEPTRON, ROWS)
    assert not report
    assert report.causes == ()
    assert first(report) == "3"
    assert report.explained.nearest is None
    assert "none of the known causes explains it; tried: " in repr(report)
    assert {"gelu": 2, "layer_norm eps": 4, "layer_norm ddof": 1}.items() <= report.explained.tried.items()
    assert report.explained.tried["layout of a parameter"] == 1


def test_the_first_of_two_is_named_where_the_second_has_no_cause() -> None:
    report = port(seeded(perceptron), perceptron_in_jax(eps=1e-6, gelu=jnp.tanh), PERCEPTRON, ROWS)
    assert report.causes == (PLANTED["eps of flax"][2],)
    assert report.explained.rest is not None
    assert report.explained.rest.torch == "3"


def test_a_cause_beside_a_computation_in_float32_is_the_nearest() -> None:
    """jax computes gelu in float32: a difference of 1e-8 stays, which no convention explains."""
    loss = perceptron_in_jax(gelu=lambda x: jax.nn.gelu(x.astype(jnp.float32)))
    report = port(seeded(perceptron), loss, PERCEPTRON, ROWS)
    assert report.causes == ()
    assert report.explained.nearest is not None
    assert report.explained.nearest[0].text == "gelu: erf in torch, tanh in jax"
    assert "nearest: gelu: erf in torch, tanh in jax; it leaves a relative error of" in repr(report)


def test_float32_alone_is_suspected() -> None:
    loss = perceptron_in_jax(gelu=lambda x: jax.nn.gelu(x.astype(jnp.float32), approximate=False))
    assert "so little may be a computation in float32" in repr(port(seeded(perceptron), loss, PERCEPTRON, ROWS))


def test_one_of_two_calls_is_named() -> None:
    def torch_loss(params: Any, batch: Any) -> Any:
        hidden = F.gelu(batch["x"] @ params["a"])
        return (F.gelu(hidden @ params["b"]) ** 2).mean()

    def jax_loss(params: Any, batch: Any) -> Any:
        hidden = jax.nn.gelu(batch["x"] @ params["a"], approximate=False)
        return jnp.mean(jax.nn.gelu(hidden @ params["b"]) ** 2)

    params = {"a": np.ones((3, 4)), "b": np.linspace(-1, 1, 8).reshape(4, 2)}
    report = port(torch_loss, jax_loss, params, ROWS, torch_params=params)
    assert report.causes == ("gelu (call 2 of 2): erf in torch, tanh in jax",)


@pytest.mark.parametrize(
    "variance",
    [lambda x: x.var(0), lambda x: torch.var(x, dim=0), lambda x: torch.var(x, 0, True), lambda x: x.std(0) ** 2],
)
def test_torchs_variance_has_ddof_one_by_default(variance: Any) -> None:
    params = {"w": np.linspace(-1, 2, 12).reshape(3, 4)}
    report = port(
        lambda p, b: variance(b["x"] @ p["w"]).sum(),
        lambda p, b: (b["x"] @ p["w"]).var(0).sum(),
        params,
        ROWS,
        torch_params=params,
    )
    assert report.causes == ("ddof of the variance: 1 in torch, 0 in jax",)


def test_two_parameters_in_each_others_place() -> None:
    def loss(params: Any, batch: Any) -> Any:
        return ((batch["x"] @ params["a"] * params["b"]) ** 2).sum()

    def exchanged(params: Any, batch: Any) -> Any:
        return ((batch["x"] @ params["b"] * params["a"]) ** 2).sum()

    params = {"a": RNG.normal(size=(3, 3)), "b": RNG.normal(size=(3, 3))}
    batch = {"x": RNG.normal(size=(3, 3))}
    assert port(loss, loss, params, batch, torch_params=params)
    report = port(loss, exchanged, params, batch, torch_params=params)
    assert report.causes == ("a and b are in each other's place: b and a in jax",)


def test_flattening_in_another_order() -> None:
    report = port(seeded(convolution), convolution_in_jax(channels_first=False), CONVOLUTION, IMAGES)
    assert report.causes[0] == "order of flattening: channels first in torch, channels last in jax"
    assert "gradwitness.port.flattened(2, 3, 4)" in repr(report)


@pytest.mark.parametrize(
    ("planted", "value", "cause"),
    [
        ({"new": 0.9}, "1.running_mean", "batch_norm momentum: 0.1 of the new in torch, 0.9 of the new in jax"),
        ({"new": 0.01}, "1.running_mean", "batch_norm momentum: 0.1 of the new in torch, 0.01 of the new in jax"),
        ({"ddof": 0}, "1.running_var", "batch_norm running variance: ddof=1 in torch, ddof=0 in jax"),
    ],
)
def test_running_statistics_by_another_convention(planted: dict[str, Any], value: str, cause: str) -> None:
    """The loss and its gradient do not show it."""
    module = seeded(convolution)
    report = port(module, convolution_in_jax(**planted), CONVOLUTION, IMAGES)
    assert not report
    assert (first(report), report.causes) == (value, (cause,))
    assert report.gradients
    family = cause.partition(":")[0]
    assert port(module, convolution_in_jax(**planted), CONVOLUTION, IMAGES, allow=family)


def test_momentum_and_variance_both() -> None:
    report = port(seeded(convolution), convolution_in_jax(new=0.9, ddof=0), CONVOLUTION, IMAGES)
    assert [cause.partition(":")[0] for cause in report.causes] == [
        "batch_norm momentum",
        "batch_norm running variance",
    ]


def test_the_epsilon_of_a_batch_norm() -> None:
    module = seeded(convolution).eval()
    params = {**CONVOLUTION, "batch_stats": STATISTICS}

    def loss(params: Any, batch: Any) -> Any:
        both = {**params, "bn": {**params["bn"], **params["batch_stats"]["bn"]}}
        return convolution_in_jax(train=False, eps=1e-3)(both, batch)

    report = port(module, loss, params, IMAGES)
    assert report.causes == ("batch_norm eps: 1e-05 in torch, 0.001 in jax",)


@pytest.mark.parametrize("order", ["igfo", "fiog"])
def test_gates_in_another_order(order: str) -> None:
    module = seeded(lambda: Recurrent(torch.nn.LSTM))
    assert port(module, lstm_in_jax("ifgo"), LSTM, SERIES)
    report = port(module, lstm_in_jax(order), LSTM, SERIES)
    assert report.causes == (f"rnn.*_l0: gates i, f, g, o in torch, {', '.join(order)} in jax",)
    mapping = {m.piece.label: (m.target, m.how) for m in report.explained.causes[0][0].matches.values()}
    assert port(module, lstm_in_jax(order), LSTM, SERIES, mapping=mapping), "as its remedy says"
