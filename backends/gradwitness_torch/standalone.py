"""What a script without gradwitness runs torch's candidates by: the source of these functions is written into it."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["by_hand", "compiled_gradient", "gradient", "value"]


def placed(tree: Any, dtype: str, device: str) -> Any:
    """The arrays as tensors: floats in this dtype, integers and booleans as they are."""
    if isinstance(tree, dict):
        return {key: placed(child, dtype, device) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        children = [placed(child, dtype, device) for child in tree]
        return type(tree)(*children) if hasattr(tree, "_fields") else type(tree)(children)
    tensor = torch.tensor(tree, device=device)
    return tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor


def on_host(tensor: Any) -> Any:
    return None if tensor is None else torch.as_tensor(tensor).detach().cpu().double().numpy()


def value(loss: Any, arguments: Any, dtype: str, device: str) -> float:
    return float(loss(*placed(arguments, dtype, device)).item())


def gradient(loss: Any, leaf: Any, arguments: Any, dtype: str, device: str) -> Any:
    arguments = placed(arguments, dtype, device)
    x = leaf(*arguments).requires_grad_()
    total = loss(*arguments)
    return on_host(torch.autograd.grad(total, x, allow_unused=True)[0]) if total.requires_grad else None


def compiled_gradient(loss: Any, leaf: Any, arguments: Any, dtype: str, device: str, **options: Any) -> Any:
    compiled = torch.compile(loss, **{"fullgraph": True, "dynamic": False, **options})
    return gradient(compiled, leaf, arguments, dtype, device)


def by_hand(function: Any, leaf: Any, arguments: Any, dtype: str, device: str) -> Any:
    return on_host(leaf(function(*placed(arguments, dtype, device))))
