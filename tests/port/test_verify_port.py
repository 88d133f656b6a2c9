"""Ports of whole models: right ones agree, wrong gradients and wrongly converted parameters are named."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradwitness as gw
from gradwitness.errors import GradwitnessError, UnknownName
from gradwitness.port import flattened
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
    squared,
)

values_alone = pytest.mark.usefixtures("values_alone")


def test_a_perceptron_agrees() -> None:
    report = port(seeded(perceptron), perceptron_in_jax(), PERCEPTRON, ROWS)
    assert report, repr(report)
    assert report.gradients is not None
    assert len(report.gradients.rows) == 16
    assert {row.parameter for row in report.gradients.rows} == {m.piece.label for m in report.matches}
    assert [value.torch for value in report.values] == ["0", "1", "3", "loss"]
    assert repr(report).startswith("gradwitness: port of 8 parameters: values agree")
    lines = [line.split() for line in report.table().splitlines()]
    assert ["3.weight", "(5,", "5)", "Dense_1.kernel", "(5,", "5)", "transposed", "name,", "in", "order"] in lines
    assert "3 other values compared" in report.table()
    assert report.table().splitlines()[-1] == "16 gradients: 16 agree"


@values_alone
def test_shapes_will_do_for_jaxs_parameters() -> None:
    shapes = jax.eval_shape(lambda: PERCEPTRON)
    assert port(seeded(perceptron), perceptron_in_jax(), shapes, ROWS)


MOVED: dict[str, Any] = {  # a matrix transposed, by NumPy and by jax
    "np.transpose": np.transpose,
    "np.asarray": lambda x: np.asarray(x).T,
    "np.concatenate": lambda x: np.concatenate([x[:, 1:], x[:, :1]], axis=1)[:, [-1, *range(x.shape[1] - 1)]].T,
    "np.einsum": lambda x: np.ascontiguousarray(np.einsum("ij->ji", x)),
    "jnp": lambda x: jnp.asarray(x).T,
    "jnp, by arithmetic": lambda x: 0.5 * (jnp.transpose(x) + jnp.transpose(x)),
}


def linear() -> nn.Module:
    return nn.Linear(3, 4)


def linear_in_jax(p: Any, b: Any) -> Any:
    return jnp.mean((b["x"] @ p["kernel"] + p["bias"] - b["y"]) ** 2)


LINEAR = {"kernel": np.zeros((3, 4)), "bias": np.zeros(4)}
PAIRS = {"x": np.random.default_rng(5).normal(size=(6, 3)), "y": np.random.default_rng(6).normal(size=(6, 4))}


@pytest.mark.parametrize(("how", "jit"), [*((how, False) for how in MOVED), ("np.transpose", True), ("jnp", True)])
def test_a_mapping_may_be_a_function_of_numpy_or_of_jax(how: str, jit: bool) -> None:
    report = port(seeded(linear), linear_in_jax, LINEAR, PAIRS, mapping={"weight": ("kernel", MOVED[how])}, jit=jit)
    assert report, repr(report)
    assert report.gradients is not None
    assert {str(row.verdict) for row in report.gradients.rows} == {"agree"}


def test_a_wrong_function_of_numpy_is_found_by_values() -> None:
    def reversed_too(x: Any) -> Any:
        return np.asarray(x).T[::-1]

    assert not port(seeded(linear), linear_in_jax, LINEAR, PAIRS, mapping={"weight": ("kernel", reversed_too)})


def test_a_function_of_numpy_that_computes_is_told_to_use_jax() -> None:
    def there_and_back(x: Any) -> Any:
        return np.log(np.exp(np.asarray(x))).T

    report = port(seeded(linear), linear_in_jax, LINEAR, PAIRS, mapping={"weight": ("kernel", there_and_back)})
    assert not report
    assert "there_and_back hands torch's array over to NumPy" in repr(report)
    assert "jax.numpy" in repr(report)


@pytest.mark.nightly
def test_a_convolution_in_train_mode_agrees_and_so_do_its_statistics() -> None:
    report = port(seeded(convolution), convolution_in_jax(), CONVOLUTION, IMAGES)
    assert report, repr(report)
    assert [v.torch for v in report.values] == ["loss", "1.running_mean", "1.running_var"]


@values_alone
def test_a_convolution_in_eval_mode_takes_torchs_statistics() -> None:
    module = seeded(convolution)
    with torch.no_grad():
        module(torch.tensor(IMAGES["x"], dtype=torch.float32))  # so that they are not 0 and 1
    params = {**CONVOLUTION, "bn": {**CONVOLUTION["bn"], **STATISTICS["bn"]}}
    report = port(module.eval(), convolution_in_jax(train=False), params, IMAGES)
    assert report, repr(report)
    assert {m.piece.label for m in report.matches} >= {"1.running_mean", "1.running_var"}


@values_alone
def test_a_kernel_may_be_converted_to_another_order_of_flattening() -> None:
    loss = convolution_in_jax(channels_first=False)
    assert port(seeded(convolution), loss, CONVOLUTION, IMAGES, mapping={"6.weight": ("fc.w", flattened(2, 3, 4))})


@pytest.mark.nightly
def test_both_biases_of_an_lstm_get_a_gradient_through_their_sum() -> None:
    report = port(seeded(lambda: Recurrent(nn.LSTM)), lstm_in_jax("ifgo"), LSTM, SERIES)
    assert report, repr(report)
    assert report.gradients is not None
    assert {"rnn.bias_ih_l0", "rnn.bias_hh_l0"} <= {row.parameter for row in report.gradients.rows}


@values_alone
@pytest.mark.parametrize("cell", ["LSTMCell", "OptimizedLSTMCell", "GRUCell"])
def test_flaxs_cells_hold_each_gate_by_itself(cell: str) -> None:
    linen = pytest.importorskip("flax.linen", reason="flax is not installed")

    class Network(linen.Module):  # type: ignore[misc, name-defined]  # flax may be missing
        @linen.compact  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            return linen.Dense(2, name="out")(linen.RNN(getattr(linen, cell)(4))(x))

    network = Network()
    params = network.init(jax.random.key(0), SERIES["x"].astype(np.float32))
    module = seeded(lambda: Recurrent(nn.GRU if cell == "GRUCell" else nn.LSTM))

    def loss(params: Any, batch: Any) -> Any:
        return jnp.mean((network.apply(params, batch["x"]) - batch["y"]) ** 2)

    with pytest.raises(GradwitnessError, match=r"(?s)raises, in float64.*param_dtype= of a flax cell"):
        port(module, loss, params, SERIES)
    report = port(module, loss, params, SERIES, dtypes="float32")
    assert report, repr(report)


@pytest.mark.nightly
@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell"])
def test_an_equinox_cell(cell: str) -> None:
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")
    key = jax.random.key(0)
    network = {"cell": getattr(eqx.nn, cell)(3, 4, key=key), "out": eqx.nn.Linear(4, 2, key=key)}

    def loss(network: Any, batch: Any) -> Any:
        def run(x: Any) -> Any:
            def step(state: Any, x: Any) -> Any:
                state = network["cell"](x, state)
                return state, state[0] if cell == "LSTMCell" else state

            h = jnp.zeros(4, x.dtype)
            return jax.vmap(network["out"])(jax.lax.scan(step, (h, h) if cell == "LSTMCell" else h, x)[1])

        return jnp.mean((jax.vmap(run)(batch["x"]) - batch["y"]) ** 2)

    report = port(seeded(lambda: Recurrent(nn.LSTM if cell == "LSTMCell" else nn.GRU)), loss, network, SERIES)
    assert report, repr(report)


@values_alone
def test_a_flax_nnx_module() -> None:
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")

    class Network(nnx.Module):  # type: ignore[misc, name-defined]  # flax may be missing
        def __init__(self, rngs: Any) -> None:
            self.first, self.last = nnx.Linear(3, 5, rngs=rngs), nnx.Linear(5, 2, rngs=rngs)
            self.norm = nnx.LayerNorm(5, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.last(nnx.gelu(self.norm(self.first(x))))

    graph, state = nnx.split(Network(nnx.Rngs(0)))
    module = seeded(lambda: nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 2)))

    def loss(state: Any, batch: Any) -> Any:
        return jnp.mean((nnx.merge(graph, state)(batch["x"]) - batch["y"]) ** 2)

    report = port(module, loss, state, ROWS)
    assert set(report.causes) == {"gelu: erf in torch, tanh in jax", "layer_norm eps: 1e-05 in torch, 1e-06 in jax"}


@pytest.mark.nightly
def test_an_attention_block_whose_projections_are_fused_in_torch() -> None:
    linen = pytest.importorskip("flax.linen", reason="flax is not installed")

    class Block(linen.Module):  # type: ignore[misc, name-defined]  # flax may be missing
        eps: float = 1e-5

        @linen.compact  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            attended = linen.MultiHeadDotProductAttention(2, name="self_attn")(x, x)
            x = linen.LayerNorm(self.eps, name="norm1")(x + attended)
            hidden = linen.gelu(linen.Dense(12, name="linear1")(x), approximate=False)
            return linen.LayerNorm(1e-5, name="norm2")(x + linen.Dense(8, name="linear2")(hidden))

    draw = np.random.default_rng(0).normal
    batch = {"x": draw(size=(2, 5, 8)), "y": draw(size=(2, 5, 8))}
    module = seeded(lambda: nn.TransformerEncoderLayer(8, 2, 12, 0.0, activation="gelu", batch_first=True))

    def verified(eps: float) -> Any:
        block = Block(eps)
        params = block.init(jax.random.key(0), batch["x"].astype(np.float32))
        return port(module, lambda p, b: jnp.mean((block.apply(p, b["x"]) - b["y"]) ** 2), params, batch)

    report = verified(1e-5)
    assert report, repr(report)
    assert {"self_attn.in_proj_weight[query]", "self_attn.in_proj_bias[value]"} <= {
        m.piece.label for m in report.matches
    }
    assert verified(1e-6).causes == ("layer_norm eps (call 1 of 2): 1e-05 in torch, 1e-06 in jax",)


def test_equal_losses_with_another_gradient_are_named_by_torchs_name() -> None:
    right = perceptron_in_jax()

    def stopped(params: Any, batch: Any) -> Any:
        norm = {**params["LayerNorm_0"], "scale": jax.lax.stop_gradient(params["LayerNorm_0"]["scale"])}
        return right({**params, "LayerNorm_0": norm}, batch)

    report = port(seeded(perceptron), stopped, PERCEPTRON, ROWS)
    assert not report
    assert report.explained.rest is None
    assert report.gradients is not None
    wrong = {(row.candidate, row.parameter) for row in report.gradients.rows if row.verdict != "agree"}
    assert wrong == {("jax", "1.weight")}


@values_alone
def test_a_bias_that_is_forgotten_shows_though_it_is_zero() -> None:
    module = seeded(perceptron)
    nn.init.zeros_(module[3].bias)
    right = perceptron_in_jax()

    def forgotten(params: Any, batch: Any) -> Any:
        return right({**params, "Dense_1": {**params["Dense_1"], "bias": 0.0}}, batch)

    assert port(module, right, PERCEPTRON, ROWS)
    report = port(module, forgotten, PERCEPTRON, ROWS)
    assert not report
    assert report.elsewhere
    assert report.explained.rest is not None
    assert report.explained.rest.torch == "3"
    assert "all agree at the given point" in repr(report)


def test_a_module_at_random_is_refused() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))

    def loss(params: Any, batch: Any) -> Any:
        return jnp.mean((batch["x"] @ params["kernel"] + params["bias"] - batch["y"]) ** 2)

    params = {"kernel": np.ones((3, 2)), "bias": np.ones(2)}
    with pytest.raises(GradwitnessError, match=r"two answers to equal calls.*module.eval\(\)"):
        port(module, loss, params, ROWS)
    assert port(module.eval(), loss, params, ROWS)


# Parameters that the caller has converted.


def converted(module: nn.Module, **faults: Any) -> dict[str, dict[str, Any]]:
    state = {name: np.asarray(x.detach()) for name, x in module.named_parameters()}
    dense = {
        f"Dense_{i}": {"kernel": state[f"{n}.weight"].T, "bias": state[f"{n}.bias"]} for i, n in enumerate((0, 3, 5))
    }
    params = {**dense, "LayerNorm_0": {"scale": state["1.weight"], "bias": state["1.bias"]}}
    for name, change in faults.items():
        params[name] = {**params[name], "kernel": change(params[name]["kernel"])}
    return params


@values_alone
def test_converted_parameters_hold_torchs_values() -> None:
    module = seeded(perceptron)
    assert port(module, perceptron_in_jax(), converted(module), ROWS, converted=True)


@values_alone
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (np.transpose, r"Dense_1.kernel does not hold 3.weight transposed; it holds it as it is"),
        (
            lambda w: w + 1e-3 * (w == w[2, 1]),
            r"Dense_1.kernel .* at \[2, 1\] it is .*, and torch's .*no known layout fits",
        ),
    ],
)
def test_a_parameter_converted_wrongly_is_named(change: Any, says: str) -> None:
    module = seeded(perceptron)
    params = converted(module, Dense_1=change)
    report = port(module, perceptron_in_jax(), params, ROWS, converted=True)
    assert not report
    assert len(report.misplaced) == 1
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(repr(report))
    assert port(module, perceptron_in_jax(), params, ROWS), "without converted=True its values do not count"


@values_alone
def test_a_kernel_of_a_convolution_converted_wrongly() -> None:
    module = seeded(convolution)
    state = {name: np.asarray(x.detach()) for name, x in module.named_parameters()}
    params = {
        "conv1": {"w": state["0.weight"].transpose(2, 3, 1, 0)[::-1], "b": state["0.bias"]},
        "bn": {"scale": state["1.weight"], "offset": state["1.bias"]},
        "conv2": {"w": state["3.weight"].transpose(2, 3, 1, 0), "b": state["3.bias"]},
        "fc": {"w": state["6.weight"].T, "b": state["6.bias"]},
    }
    report = port(module, convolution_in_jax(), params, IMAGES, converted=True)
    assert [line.partition(":")[0] for line in report.misplaced] == ["conv1.w does not hold 0.weight OIHW to HWIO"]


# Losses of params, activations of one's own, and what is refused.


def torch_loss(params: Any, batch: Any) -> Any:
    hidden = torch.tanh(batch["x"] @ params["layers"][0]["w"])
    return F.mse_loss(hidden @ params["layers"][1]["w"], batch["y"]), {"hidden": hidden}


def jax_loss(params: Any, batch: Any) -> Any:
    hidden = jnp.tanh(batch["x"] @ params["layers"][0]["w"])
    return jnp.mean((hidden @ params["layers"][1]["w"] - batch["y"]) ** 2), {"hidden": hidden}


LAYERS = {"layers": [{"w": np.linspace(-1, 1, 12).reshape(3, 4)}, {"w": np.linspace(0, 1, 8).reshape(4, 2)}]}


def test_losses_of_params_show_activations_too() -> None:
    report = port(torch_loss, jax_loss, LAYERS, ROWS, torch_params=LAYERS)
    assert report, repr(report)
    assert [value.torch for value in report.values] == ["hidden", "loss"]
    assert [m.why for m in report.matches] == ["name", "name"]


@values_alone
def test_an_activation_without_a_fellow_is_listed() -> None:
    def more(params: Any, batch: Any) -> Any:
        loss, seen = jax_loss(params, batch)
        return loss, {**seen, "logits": loss}

    assert "by these names: logits" in port(torch_loss, more, LAYERS, ROWS, torch_params=LAYERS).table()


@values_alone
def test_an_activation_of_another_shape_is_the_first_difference() -> None:
    def narrow(params: Any, batch: Any) -> Any:
        loss, seen = jax_loss(params, batch)
        return loss + 1, {"hidden": seen["hidden"][:, :3]}

    report = port(torch_loss, narrow, LAYERS, ROWS, torch_params=LAYERS)
    assert "first difference: hidden: shape (7, 4) in torch, (7, 3) in jax" in repr(report)


@values_alone
def test_python_control_flow_on_values_needs_jit_off() -> None:
    def branching(params: Any, batch: Any) -> Any:
        loss, seen = jax_loss(params, batch)
        return (loss, seen) if loss > 0 else (-loss, seen)

    with pytest.raises(GradwitnessError, match=r"the jax loss raises.*TracerBoolConversionError"):
        port(torch_loss, branching, LAYERS, ROWS, torch_params=LAYERS)
    assert port(torch_loss, branching, LAYERS, ROWS, torch_params=LAYERS, jit=False)


@values_alone
def test_dtypes_may_be_joined_and_must_be_known() -> None:
    assert port(torch_loss, jax_loss, LAYERS, ROWS, torch_params=LAYERS, dtypes="float32, float64")
    with pytest.raises(UnknownName, match="unknown dtype 'float65'"):
        port(torch_loss, jax_loss, LAYERS, ROWS, torch_params=LAYERS, dtypes="float65")


@pytest.mark.parametrize(
    ("model", "how", "says"),
    [
        (perceptron(), {"torch_loss": None}, "a torch module needs torch_loss="),
        (perceptron(), {"torch_loss": squared, "torch_params": {}}, "no torch_params=, as it has its own"),
        (torch_loss, {}, "or a loss.params, batch. with torch_params=, got function"),
        (3, {}, "expected a torch.nn.Module .* got int"),
        (lambda p, b: b["x"] @ p["w"], {"torch_params": {"w": np.ones((3, 2))}}, r"got a tensor of shape \(7, 2\)"),
    ],
)
def test_what_cannot_be_taken_says_why(model: Any, how: dict[str, Any], says: str) -> None:
    params = {"w": np.ones((3, 2))}
    with pytest.raises(GradwitnessError, match=says):
        gw.verify_port(model, jax_loss, jax_params=params, batch=ROWS, **how)


@values_alone
def test_the_module_is_left_as_it_was() -> None:
    module = seeded(convolution)
    before = {name: x.clone() for name, x in module.state_dict().items()}
    assert port(module, convolution_in_jax(), CONVOLUTION, IMAGES)
    assert all(torch.equal(x, before[name]) for name, x in module.state_dict().items())
    assert not any(layer._forward_hooks for layer in module.modules())
