"""softmax and its logarithms, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gradwitness_torch.reductions import over_axes

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "softmax": lambda x, *, axis: torch.softmax(x, dim=axis),
    "log_softmax": lambda x, *, axis: torch.log_softmax(x, dim=axis),
    "logsumexp": over_axes(torch.logsumexp),
}
