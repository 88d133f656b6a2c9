"""A jax.custom_vjp, jitted and not, held against what jax derives by itself."""

from typing import Any

import jax
import jax.numpy as jnp

import gradwitness as gw


@jax.custom_vjp
def norm(x: jax.Array) -> jax.Array:
    """The length of each row."""
    return jnp.sqrt(jnp.sum(x * x, axis=-1))


def _forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = jnp.sqrt(jnp.sum(x * x, axis=-1))
    return y, (x, y)


def _backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array]:
    x, y = saved
    return ((g / y)[:, None] * x,)


norm.defvjp(_forward, _backward)


def loss(params: Any, batch: Any) -> jax.Array:
    """How far the rows are from the lengths that they should have."""
    return jnp.mean((norm(batch["x"] @ params["w"]) - batch["length"]) ** 2)


def plain(params: Any, batch: Any) -> jax.Array:
    """The same, differentiated by jax alone."""
    return jnp.mean((jnp.linalg.norm(batch["x"] @ params["w"], axis=-1) - batch["length"]) ** 2)


def run() -> gw.Report:
    """With and without jit, beside jax's own derivative."""
    keys = jax.random.split(jax.random.key(0), 3)
    w, x, length = (jax.random.normal(key, shape) for key, shape in zip(keys, SHAPES, strict=True))
    candidates = {
        "jitted": gw.Candidate("jax", loss),
        "eager": gw.Candidate("jax", loss, options={"jit": False}),
        "plain": gw.Candidate("jax", plain),
    }
    return gw.verify(candidates, {"w": w}, {"x": x, "length": length}, dtypes=("float64", "float32"), name="norm")


SHAPES = ((4, 3), (10, 4), (10,))

if __name__ == "__main__":
    report = run()
    print(report.table())
    raise SystemExit(not report)
