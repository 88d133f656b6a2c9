"""softmax and its logarithms, in jax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
    "logsumexp": jax.nn.logsumexp,
}
