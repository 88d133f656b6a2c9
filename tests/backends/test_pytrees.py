"""jax's pytrees as losses of their arrays: right ones agree, wrong ones are at fault by their paths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradwitness as gw
from gradwitness.errors import GradwitnessError
from gradwitness_jax import from_pytree

RNG = np.random.default_rng(0)
BATCH = {"x": RNG.standard_normal((6, 3)), "y": RNG.standard_normal((6, 2))}


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.standard_normal(shape), dtype=jnp.float32)


@partial(jax.tree_util.register_dataclass, data_fields=["weight", "bias", "order"], meta_fields=["activation"])
@dataclass
class Layer:
    """A pytree as a module's library makes them: floats, whole numbers, and a function that is no leaf."""

    weight: jax.Array
    bias: jax.Array
    order: jax.Array = field(default_factory=lambda: jnp.array([1, 0]))
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.activation(x @ self.weight.T + self.bias)[:, self.order]


def network(activation: Callable[[jax.Array], jax.Array] = jnp.tanh) -> dict[str, Any]:
    layers = [Layer(normal(2, 3), normal(2)), Layer(normal(2, 2), normal(2), activation=activation)]
    return {"layers": layers, "scale": np.array([0.5], dtype=np.float32), "power": 2, "unused": None}


def squared(tree: Any, batch: Any) -> Any:
    x = batch["x"]
    for layer in tree["layers"]:
        x = layer(x)
    return jnp.mean((tree["scale"] * x - batch["y"]) ** tree["power"])


def test_a_pytree_agrees() -> None:
    loss, params = from_pytree(network(), squared)
    assert list(params) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias", "scale"]
    report = gw.verify({"jax": loss}, params, BATCH, dtypes=("float64", "float32"))
    assert report, repr(report)
    assert len(report.rows) == 10
    assert all(row.reference and row.reference > 1e-3 for row in report.rows)


def test_loss_and_gradients_are_those_of_the_tree_itself() -> None:
    tree = network()
    loss, params = from_pytree(tree, squared)
    value, gradients = jax.value_and_grad(loss)(params, BATCH)
    assert value == squared(tree, BATCH)
    of_layers = jax.grad(lambda layers: squared({**tree, "layers": layers}, BATCH), allow_int=True)(tree["layers"])
    np.testing.assert_array_equal(gradients["layers.1.weight"], of_layers[1].weight)


def test_a_wrong_rule_is_at_fault_by_its_path() -> None:
    @jax.custom_jvp
    def tanh(x: jax.Array) -> jax.Array:
        return jnp.tanh(x)

    tanh.defjvp(lambda primals, tangents: (jnp.tanh(primals[0]), tangents[0]))
    loss, params = from_pytree(network(tanh), squared)
    report = gw.verify({"jax": loss}, params, BATCH)
    found = {row.parameter: str(row.verdict) for row in report.rows}
    assert found.pop("scale") == "agree"
    assert set(found.values()) == {"disagree"}


def test_an_array_alone_is_a_tree() -> None:
    loss, params = from_pytree(normal(3), lambda w, batch: jnp.sum(jnp.tanh(batch["x"] @ w)))
    assert list(params) == ["params"]
    assert gw.verify({"jax": loss}, params, BATCH)


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"n": jnp.arange(3), "f": jnp.tanh}, "no array of floats"),
        ({"a.b": normal(2), "a": {"b": normal(2)}}, "two arrays of the tree have the path 'a.b'"),
    ],
)
def test_what_cannot_be_verified_says_why(tree: Any, says: str) -> None:
    with pytest.raises(GradwitnessError, match=says):
        from_pytree(tree, squared)
