"""What tensors hold, in host memory."""

from __future__ import annotations

import numpy as np
import torch

from gradwitness.dtypes import Array

__all__ = ["host_array"]


def host_array(tensor: torch.Tensor) -> Array:
    """A copy; floats as float64."""
    host = tensor.detach().cpu()
    return np.array((host.double() if host.dtype.is_floating_point else host).numpy())
