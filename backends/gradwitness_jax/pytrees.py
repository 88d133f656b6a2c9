"""A pytree and a loss of it, as `gradwitness.verify` takes them: a function of its arrays by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradwitness.errors import GradwitnessError

__all__ = ["from_pytree"]

Arrays = dict[str, jax.Array]
LossOfTree = Callable[[Any, Any], Any]
LossOfParams = Callable[[Arrays, Any], Any]


def from_pytree(tree: Any, loss: LossOfTree) -> tuple[LossOfParams, Arrays]:
    """Turn a pytree into a `loss(params, batch)` and its `params`, for a candidate of jax in `gradwitness.verify`.

    tree: an equinox module, the state of a flax nnx module, or any other pytree.
    loss: `loss(tree, batch)`, which returns one number, or arrays beside `cotangent=`.

    Returns (loss, params). params are the tree's floating arrays by their paths, such as "layers.0.weight" (complex
    ones too, which `verify` refuses). Each call has the given params instead of them; every other leaf, such as an
    integer or a function, stays as it is.

    Raises GradwitnessError for a tree without floating arrays, and for two of them with one path.
    """
    found, structure = jax.tree_util.tree_flatten_with_path(tree)
    paths = [_name(path) if _is_floating(leaf) else None for path, leaf in found]
    params = {path: leaf for path, (_, leaf) in zip(paths, found, strict=True) if path is not None}
    _expect_distinct([path for path in paths if path is not None])

    def loss_of_params(params: Arrays, batch: Any) -> Any:
        leaves = [leaf if path is None else params[path] for path, (_, leaf) in zip(paths, found, strict=True)]
        return loss(jax.tree.unflatten(structure, leaves), batch)

    return loss_of_params, params


def _name(path: Any) -> str:
    """As `gradwitness` writes paths; the tree itself, if it is an array, is "params"."""
    return jax.tree_util.keystr(path, simple=True, separator=".") or "params"


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def _expect_distinct(paths: list[str]) -> None:
    if not paths:
        raise GradwitnessError("the tree has no array of floats: there is nothing to differentiate")
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        raise GradwitnessError(f"two arrays of the tree have the path {twice[0]!r}; rename one of the keys")
