"""What people give first instead of a loss, and the line to type instead."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradwitness.errors import GradwitnessError

__all__ = ["expect_loss"]

PYTREES = ("equinox", "flax")  # libraries whose modules are pytrees of jax's arrays

WHOLE = ("p", "params", "parameters", "weights")  # names of all of params, where a function takes one argument


def expect_loss(given: Any, params: Any, batch: Any = None) -> None:
    """Raise GradwitnessError, with the line to type, for a module, a rule alone, and a function of other arguments."""
    for advice in (_of_module, _of_pytree, _of_function_of_torch, _of_rule_of_jax):
        if text := advice(given, params):
            raise GradwitnessError(text)
    if callable(given) and (takes := _other_arguments(given)) is not None:
        name = getattr(given, "__name__", "loss")
        name, called = (name, "") if name.isidentifier() else ("f", ", say f,")
        raise GradwitnessError(
            f"{name if not called else 'the loss'}{called} takes ({', '.join(takes)}), and a loss takes (params, "
            f"batch): give `lambda params, batch: {name}({_taken(takes, params, batch)})`"
        )


def _of_module(given: Any, params: Any) -> str:
    if not (hasattr(given, "named_parameters") and hasattr(given, "forward")):
        return ""
    if not isinstance(given, type) and not any(True for _ in given.named_parameters()):
        return ""
    return (
        "a torch module holds its parameters inside. Take them out by `loss, params = gradwitness_torch.from_module("
        'module, lambda module, batch: module(batch["x"]).mean())`, then `gw.verify({"torch": loss}, params, batch)`'
    )


def _of_pytree(given: Any, params: Any) -> str:
    if not (_is_pytree(given) or _is_pytree(params)):
        return ""
    return (
        "a module of jax holds its parameters inside. Take them out by `loss, params = gradwitness_jax.from_pytree("
        'module, lambda module, batch: module(batch["x"]).mean())`, then `gw.verify({"jax": loss}, params, batch)`'
    )


def _is_pytree(given: Any) -> bool:
    kind = given if isinstance(given, type) else type(given)
    if hasattr(given, "__wrapped__"):  # a function that such a library compiled
        return False
    return any(base.__module__.partition(".")[0] in PYTREES for base in kind.__mro__)


def _of_function_of_torch(given: Any, params: Any) -> str:
    """An autograd.Function, or its `apply`."""
    owner = given if isinstance(given, type) else getattr(given, "__self__", None)
    if not (isinstance(owner, type) and all(hasattr(owner, name) for name in ("apply", "forward", "backward"))):
        return ""
    return _by_itself("torch", owner.__name__, f"{owner.__name__}.apply", params)


def _of_rule_of_jax(given: Any, params: Any) -> str:
    if type(given).__name__ not in ("custom_vjp", "custom_jvp"):
        return ""
    name = getattr(given, "__name__", "f")
    return _by_itself("jax", name, name, params)


def _by_itself(backend: str, rule: str, call: str, params: Any) -> str:
    return (
        f"{rule} is a rule by itself; verify a loss that uses it: "
        f'`gw.verify(gw.Candidate("{backend}", lambda params, batch: {call}({_arguments(params)}), custom={rule}), '
        'params, cotangent="random")`'
    )


def _arguments(params: Any) -> str:
    """The text that takes every part of params."""
    return ", ".join(_parts("params", params))


def _parts(name: str, given: Any) -> list[str]:
    """The text of each part of params or batch."""
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [f"{name}[{key!r}]" for key in given]
    if isinstance(given, list | tuple):
        return [f"{name}[{i}]" for i in range(len(given))]
    return [name]


def _taken(takes: Sequence[str], params: Any, batch: Any) -> str:
    """The text of what a function takes, out of params and batch, as far as their number tells."""
    if len(takes) == 1 and takes[0] in WHOLE:
        return "params"
    if named := _by_name(takes, params, batch):
        return named
    of_params, of_batch = _parts("params", params), _parts("batch", batch)
    for parts in (of_params, of_params + of_batch, [*of_params, "batch"], ["params", *of_batch], ["params"]):
        if len(parts) == len(takes):
            return ", ".join(parts)
    return "..."


def _by_name(takes: Sequence[str], params: Any, batch: Any) -> str:
    """The same where the arguments are called as the parts are, the first perhaps as all of params; else empty."""
    known = {key: f"{name}[{key!r}]" for name, of in (("params", params), ("batch", batch)) for key in _keys(of)}
    whole = {takes[0]: "params"} if takes and takes[0] not in known else {}
    found = [{**known, **whole}.get(one) for one in takes]
    return ", ".join(one for one in found if one) if all(found) and len(whole) < len(takes) else ""


def _keys(given: Any) -> list[Any]:
    return list(given) if isinstance(given, Mapping) else []


def _other_arguments(function: Callable[..., Any]) -> list[str] | None:
    """What it takes, where that cannot be (params, batch)."""
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # a builtin may not say what it takes
        return None
    try:
        signature.bind(None, None)
    except TypeError:
        return list(signature.parameters)
    return None
