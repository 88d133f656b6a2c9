"""torch's precision settings: held at the highest, put back, and read for the record.

torch has two families of them, the older `allow_tf32` and `set_float32_matmul_precision`, and since
2.9 `fp32_precision`. The older setters write both, the newer only their own, and a getter of the
older raises where the two disagree. So the older are set first, then the newer to the same effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

__all__ = ["highest", "settings"]

T = TypeVar("T")

# The newer family: a setting at "none" inherits, so parents come first.
_PARENTS = (("generic", "all"), ("cuda", "all"), ("mkldnn", "all"))
_OPS = tuple((library, op) for library in ("cuda", "mkldnn") for op in ("matmul", "conv", "rnn"))
_HAS_FP32_PRECISION = hasattr(torch._C, "_get_fp32_precision_getter")

_REDUCTIONS = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")


@contextmanager
def highest() -> Iterator[None]:
    """float32 products in float32 and low-precision sums in float32, on the CPU and on CUDA."""
    matmul = torch.backends.cuda.matmul
    precision = _read(torch.get_float32_matmul_precision, "highest")
    cudnn = _read(lambda: torch.backends.cudnn.allow_tf32, True)
    reductions = {name: _reduction(name) for name in _REDUCTIONS}
    accumulation = matmul.allow_fp16_accumulation
    fp32 = _fp32_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        _set_fp32_precision(dict.fromkeys(_OPS, "ieee"))
        for name in _REDUCTIONS:
            setattr(matmul, name, False)
        matmul.allow_fp16_accumulation = False
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = cudnn
        _set_fp32_precision(fp32)
        for name, value in reductions.items():
            setattr(matmul, name, value)
        matmul.allow_fp16_accumulation = accumulation


def settings() -> dict[str, str]:
    """The precision settings in force now."""
    matmul = torch.backends.cuda.matmul
    older = {
        "float32_matmul_precision": _read(torch.get_float32_matmul_precision, "mixed"),
        "cudnn.allow_tf32": _read(lambda: str(torch.backends.cudnn.allow_tf32), "mixed"),
        **{f"cuda.matmul.{name}": getattr(matmul, name) for name in (*_REDUCTIONS, "allow_fp16_accumulation")},
    }
    newer = {f"{library}.{op}.fp32_precision": _get(library, op) for library, op in _OPS if _HAS_FP32_PRECISION}
    return {name: str(value) for name, value in (older | newer).items()}


def _read(getter: Callable[[], T], otherwise: T) -> T:
    """What the getter gives; `otherwise`, torch's own default, where the caller has used the newer family."""
    try:
        return getter()
    except RuntimeError:
        return otherwise


def _reduction(name: str) -> Any:
    """The setting, together with that for split-k sums where torch has it: setting the one resets the other."""
    matmul = torch.backends.cuda.matmul
    split = f"{name}_split_k"
    try:
        return getattr(matmul, name), getattr(matmul, split)
    except AttributeError:
        return getattr(matmul, name)


def _fp32_precision() -> dict[tuple[str, str], str]:
    """The newer family as set. A getter resolves "none" through its parents, so these are put aside meanwhile."""
    if not _HAS_FP32_PRECISION:
        return {}
    found: dict[tuple[str, str], str] = {}
    for parent in _PARENTS:
        found[parent] = _get(*parent)
        _set_fp32_precision({parent: "none"})
    found |= {op: _get(*op) for op in _OPS}
    _set_fp32_precision(found)
    return found


def _get(library: str, op: str) -> str:
    return str(torch._C._get_fp32_precision_getter(library, op))


def _set_fp32_precision(values: dict[tuple[str, str], str]) -> None:
    if _HAS_FP32_PRECISION:
        for (library, op), value in values.items():
            torch._C._set_fp32_precision_setter(library, op, value)
