"""The backend "jax". jax is imported when it prepares."""

from gradwitness_jax.backend import JaxBackend

__all__ = ["JaxBackend"]
