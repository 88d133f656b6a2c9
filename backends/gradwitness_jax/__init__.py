"""The backend "jax", and `from_pytree`, which makes of a pytree, such as a module, a loss of its arrays. jax is
imported when one of them is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradwitness_jax.backend import JaxBackend

if TYPE_CHECKING:
    from gradwitness_jax.pytrees import from_pytree

__all__ = ["JaxBackend", "from_pytree"]


def __getattr__(name: str) -> Any:
    """`from_pytree`, whose own module imports jax."""
    if name != "from_pytree":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gradwitness_jax.pytrees import from_pytree

    return from_pytree
