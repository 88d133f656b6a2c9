"""The 2-2-1 network of `gradwitness explain article`, as one writes it in JAX."""

from typing import Any

import jax
import jax.numpy as jnp

PARAMS = {
    "hidden": {"weight": [[0.3, 0.5], [-0.1, 0.2]], "bias": [0.1, -0.2]},  # a row per input
    "output": {"weight": [0.4, -0.3], "bias": 0.05},
}


def loss(params: Any, x: jax.Array, target: jax.Array) -> jax.Array:
    """Half the squared error of one example."""
    hidden = jax.nn.sigmoid(x @ params["hidden"]["weight"] + params["hidden"]["bias"])
    y = hidden @ params["output"]["weight"] + params["output"]["bias"]
    return 0.5 * jnp.square(y - target)


def run() -> tuple[jax.Array, Any]:
    """The loss, and the gradients in the shape of PARAMS."""
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, PARAMS, is_leaf=lambda node: not isinstance(node, dict))
        return jax.value_and_grad(loss)(params, jnp.array([0.5, 0.8]), jnp.array(1.0))


if __name__ == "__main__":
    total, gradients = run()
    print("loss", total.tolist())
    for path, gradient in jax.tree.leaves_with_path(gradients):
        print(jax.tree_util.keystr(path, simple=True, separator="."), gradient.tolist())
