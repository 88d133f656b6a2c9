"""What goes to another process, as bytes: functions of a script by their code, and what pickle cannot make."""

from __future__ import annotations

import inspect
import io
from collections.abc import Mapping
from typing import Any

__all__ = ["pickled"]

OWN_WAYS = {"__reduce__", "__reduce_ex__", "__getnewargs__", "__getnewargs_ex__"}  # of a class to say how it is pickled


def pickled(something: Any) -> bytes:
    """By cloudpickle, and a jax.custom_vjp too: a class whose `__new__` wants arguments is made without them.

    Raises what pickling raises.
    """
    import cloudpickle  # here, as few need it

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        def reducer_override(self, given: Any) -> Any:
            if _is_made_of_arguments(type(given)):
                return _remade, (type(given), vars(given))
            return super().reducer_override(given)

    stream = io.BytesIO()
    Pickler(stream).dump(something)
    return stream.getvalue()


def _is_made_of_arguments(kind: type) -> bool:
    """Whether pickle, which calls `__new__` with the class alone, cannot make one although it holds all in its dict."""
    made_by = getattr(vars(kind).get("__new__"), "__func__", None)
    known = any(vars(base).keys() & OWN_WAYS for base in kind.__mro__[:-1])
    if known or issubclass(kind, type) or not inspect.isfunction(made_by):
        return False
    return made_by.__code__.co_argcount - len(made_by.__defaults__ or ()) > 1


def _remade(kind: type, held: Mapping[str, Any]) -> Any:
    made: Any = object.__new__(kind)
    made.__dict__.update(held)
    return made
