"""Recurrent cells, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "lstm_cell": lambda x, h, c, *weights_and_biases: torch.lstm_cell(x, (h, c), *weights_and_biases),
    "gru_cell": torch.gru_cell,
}
