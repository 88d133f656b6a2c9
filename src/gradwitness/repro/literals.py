"""Values as Python text that a person can read."""

from __future__ import annotations

import base64
import math
import textwrap
from typing import Any

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError

__all__ = ["array_text", "framework_array", "literal", "printable", "quoted"]

MANY = 1000  # elements, beyond which nobody reads them
WIDE = 88  # columns of a line of values
SAME = 4  # elements, beyond which an array of one value is written by that value
PLAIN = (bool, int, str, bytes, type(None), type(Ellipsis))
FRAMEWORKS = {  # by the package of the type: what is imported, as what, and how an array is written
    "torch": ("torch", "torch", "torch.tensor({values}, dtype=torch.{dtype})"),
    "jaxlib": ("jax.numpy", "jnp", "jnp.array({values}, dtype={dtype!r})"),
}


def literal(value: Any) -> str | None:
    """The text of a constant or a container of constants; None for anything else. Arrays are of NumPy."""
    if isinstance(value, PLAIN) and type(value) in PLAIN:
        return repr(value)
    if type(value) in (float, complex):
        return _number(value)
    if isinstance(value, np.generic) and np.isfinite(value):
        return repr(value)  # np.float32(0.1)
    if isinstance(value, np.ndarray | np.generic):
        return array_text(np.asarray(value))
    if type(value) is slice:
        return _joined("slice({})", [value.start, value.stop, value.step])
    if type(value) in (list, tuple, set, frozenset):
        return _container(value)
    if type(value) is dict:
        parts = [(literal(k), literal(v)) for k, v in value.items()]
        return None if any(None in part for part in parts) else "{" + ", ".join(f"{k}: {v}" for k, v in parts) + "}"
    return None


def quoted(key: Any) -> str:
    """The text of a key, in double quotes where that is plain: as data, whatever stands in it.

    Raises GradwitnessError for one that no text makes.
    """
    if isinstance(key, str) and key.isprintable() and not set('"\\') & set(key):
        return f'"{key}"'
    text = literal(str(key)) if isinstance(key, str) else literal(key)
    if text is None:
        raise GradwitnessError(f"a key of type {type(key).__qualname__} has no text: use strings or numbers as keys")
    return text


def printable(text: str) -> str:
    """The text with what no encoding holds, surrogates by themselves, written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _number(value: complex) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def _container(value: Any) -> str | None:
    if not value:
        return f"{type(value).__name__}()"
    frames = {"list": "[{}]", "tuple": "({},)" if len(value) == 1 else "({})", "set": "{{{}}}"}
    return _joined(frames.get(type(value).__name__, "frozenset(({},))"), value)


def _joined(frame: str, values: Any) -> str | None:
    parts = [literal(v) for v in values]
    return None if None in parts else frame.format(", ".join(map(str, parts)))


def array_text(array: Array) -> str:
    """`np.array(...)`, with its dtype where the values do not say it."""
    said = {"f": np.float64, "i": np.int64, "b": np.bool_}.get(array.dtype.kind)
    dtype = "" if array.dtype == said else f', "{array.dtype}"'
    if array.size > SAME and len(np.unique(array)) == 1 and np.isfinite(array).all() and not dtype:
        return f"np.full({array.shape}, {array.reshape(-1)[0].item()!r})"
    if array.size > MANY:
        text = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        return f'np.frombuffer(base64.b64decode("{text}"), "{array.dtype}").reshape({array.shape}).copy()'
    if array.size == 0:
        return f'np.zeros({array.shape}, "{array.dtype}")'
    return f"np.array({_values(array)}{dtype})"


def _values(array: Array) -> str:
    """Nested lists: on one line if it is short, else a line for each row."""
    if not array.ndim:
        return str(_element(array))
    line = "[" + ", ".join(map(_values, array)) + "]"
    if len(line) <= WIDE:
        return line
    if array.ndim == 1:
        return "[\n" + textwrap.fill(line[1:-1], WIDE, initial_indent="    ", subsequent_indent="    ") + ",\n]"
    return "[\n" + "".join(textwrap.indent(_values(row), "    ") + ",\n" for row in array) + "]"


def _element(number: Any) -> str:
    """The shortest digits that give it in its own dtype."""
    if number.dtype.kind == "f" and np.isfinite(number):
        return (
            str(np.format_float_positional(number, trim="0"))
            if 1e-4 <= abs(number) < 1e6 or not number
            else f"{number}"
        )
    if number.dtype.kind != "f":
        return repr(number.item())
    return "-np.inf" if number < 0 else f"np.{number}"


def framework_array(value: Any) -> tuple[str, str, str] | None:
    """(what is imported, as what, the text) of an array of a framework; None for what is none."""
    found = FRAMEWORKS.get(type(value).__module__.partition(".")[0])
    if found is None or not hasattr(value, "dtype") or not hasattr(value, "shape"):
        return None
    dtype = str(value.dtype).rpartition(".")[2]
    host = value.detach().cpu() if hasattr(value, "detach") else value
    if dtype == "bfloat16":
        host = host.float() if hasattr(host, "float") else host.astype("float32")
    return *found[:2], found[2].format(values=_values(np.asarray(host)), dtype=dtype)
