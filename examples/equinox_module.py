"""An equinox module: the gradient that JAX finds of its arrays, held against differences of its loss."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import gradwitness as gw
from gradwitness_jax import from_pytree


class Classifier(eqx.Module):
    """A perceptron behind a layer norm. Its arrays are leaves of it, as are numbers and functions."""

    norm: eqx.nn.LayerNorm
    layers: list[eqx.nn.Linear]
    temperature: jax.Array
    activation: Any

    def __init__(self, key: jax.Array) -> None:
        first, second = jax.random.split(key)
        self.norm = eqx.nn.LayerNorm(5)
        self.layers = [eqx.nn.Linear(5, 6, key=first), eqx.nn.Linear(6, 3, key=second)]
        self.temperature = jnp.array(2.0)
        self.activation = jax.nn.silu

    def __call__(self, x: jax.Array) -> jax.Array:
        """The logarithm of each class's probability, of one example."""
        hidden = self.activation(self.layers[0](self.norm(x)))
        return jax.nn.log_softmax(self.layers[1](hidden) / self.temperature)


def loss(module: Any, batch: Any) -> jax.Array:
    """The module is called as ever: its arrays are those on trial."""
    scores = jax.vmap(module)(batch["x"])
    return -jnp.take_along_axis(scores, batch["label"][:, None], axis=1).mean()


def run() -> gw.Report:
    """In float64 and in the module's own float32."""
    of_arrays, params = from_pytree(Classifier(jax.random.key(0)), loss)
    rng = np.random.default_rng(0)
    batch = {"x": rng.standard_normal((8, 5)), "label": rng.integers(3, size=8)}
    return gw.verify({"jax": of_arrays}, params, batch, dtypes=("float64", "float32"), name="classifier")


if __name__ == "__main__":
    report = run()
    print(report.table())
    raise SystemExit(not report)
