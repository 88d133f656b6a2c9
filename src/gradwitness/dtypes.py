"""The floating dtypes that candidates run in, and rounding to them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.errors import GradwitnessError, UnknownName

__all__ = ["DTYPES", "OF_PARTS", "Array", "DType", "dtype_name", "find_dtype", "frozen", "round_to", "spacing"]

Array = np.ndarray[Any, Any]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class DType:
    """A binary floating-point format (IEEE 754-2019, table 3.5; bfloat16 is float32's upper half)."""

    name: str
    unit_roundoff: float
    smallest_normal: float
    smallest_subnormal: float

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return (2 - 2 * self.unit_roundoff) * (2 / self.smallest_normal)


DTYPES = {
    d.name: d
    for d in (
        DType("float64", 2.0**-53, 2.0**-1022, 2.0**-1074),
        DType("float32", 2.0**-24, 2.0**-126, 2.0**-149),
        DType("float16", 2.0**-11, 2.0**-14, 2.0**-24),
        DType("bfloat16", 2.0**-8, 2.0**-126, 2.0**-133),
    )
}


ELSEWHERE = {  # what others call them
    **dict.fromkeys(("fp64", "f64", "double"), "float64"),
    **dict.fromkeys(("fp32", "f32", "single"), "float32"),
    **dict.fromkeys(("fp16", "f16", "half"), "float16"),
    "bf16": "bfloat16",
}
OF_PARTS = {"complex128": "float64", "complex64": "float32"}  # the dtype of the parts of complex numbers


def find_dtype(name: str) -> DType:
    """The dtype of that name. Raises UnknownName, listing what there is."""
    try:
        return DTYPES[name]
    except KeyError:
        raise UnknownName("dtype", name, DTYPES, meant=ELSEWHERE.get(str(name))) from None


def dtype_name(given: Any) -> str:
    """The name of a dtype of NumPy, torch or jax. Raises GradwitnessError for what is none."""
    name = repr(given)
    if name.startswith("torch.") and name.removeprefix("torch.").isidentifier():
        return name.removeprefix("torch.")
    try:
        if given is not None:
            return str(np.dtype(given).name)
    except (TypeError, ValueError):
        pass
    raise GradwitnessError(f"expected a dtype, such as {', '.join(map(repr, DTYPES))}, got {given!r}")


def spacing(x: float, dtype: str) -> float:
    """The distance from x to the next number that `dtype` can hold: a unit in the last place."""
    found = find_dtype(dtype)
    return max(math.ldexp(found.unit_roundoff, math.frexp(x)[1]) if x else 0.0, found.smallest_subnormal)


def frozen(array: Array) -> Array:
    """The array, no longer to be written to: whoever modifies an input is found out, and spoils nothing."""
    array.flags.writeable = False
    return array


def round_to(array: FloatArray, dtype: str) -> FloatArray:
    """The array rounded to nearest even in `dtype`, as float64 holding exact values."""
    if dtype == "float64":
        return array
    if dtype == "bfloat16":
        import ml_dtypes

        narrow: Any = ml_dtypes.bfloat16
    else:
        narrow = np.dtype(find_dtype(dtype).name)
    with np.errstate(over="ignore"):
        return np.asarray(array).astype(narrow).astype(np.float64)
