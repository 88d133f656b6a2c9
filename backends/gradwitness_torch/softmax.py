"""softmax and its logarithms, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "softmax": lambda x, *, axis: torch.softmax(x, dim=axis),
    "log_softmax": lambda x, *, axis: torch.log_softmax(x, dim=axis),
    "logsumexp": lambda x, *, axis, keepdims: torch.logsumexp(x, dim=axis, keepdim=keepdims),
}
