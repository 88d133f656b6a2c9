"""A module as text: what makes it again in a script that has torch, and the source of what is a user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from keyword import iskeyword
from typing import Any, Protocol

import torch
from torch import nn

from gradwitness.errors import GradwitnessError

__all__ = ["Writing", "write_loss"]

FRESH = frozenset(vars(nn.Module()))  # the attributes that every module has
HOOKS = tuple(name for name in FRESH if name.endswith("hooks"))
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
LOSS = """def {name}(params, batch):
    like = next(iter(params.values()))
    others = {{n: x.detach() for n, x in (*{whole}.named_parameters(), *{whole}.named_buffers())}}
    dtypes = {{n: like.dtype if x.is_floating_point() else x.dtype for n, x in others.items()}}
    given = {{n: x.to(like.device, dtypes[n], copy=True) for n, x in others.items()}}
    given |= {{"module." + n: x for n, x in params.items()}}{seeded}
    return torch.func.functional_call({whole}, given, (batch,))"""
WHOLE = '''class {name}(torch.nn.Module):
    """The loss as the module around that which it calls, so that this one has the parameters of the call."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, batch):
        return {loss}(self.module, batch)'''
BARE = '''def {name}(kind):
    """A module without what its own __init__ makes."""
    module = kind.__new__(kind)
    torch.nn.Module.__init__(module)
    return module'''


class Writing(Protocol):
    """A script as it grows: `gradwitness.repro.source.Sources`."""

    definitions: list[str]

    def expression(self, thing: Any, hint: str) -> str: ...

    def reserve(self, name: str, thing: Any) -> str: ...


def write_loss(script: Writing, hint: str, module: nn.Module, loss: Callable[..., Any], seed: int | None) -> str:
    """The name of `loss(params, batch)` of a module, as `from_module` gives it, defined in the script.

    Raises GradwitnessError for a module that no text makes: with hooks, or attributes that are no values.
    """
    script.expression(torch, "torch")
    made, of_module = _made(script, module), script.expression(loss, "loss_of_module")
    kind, whole, name = (script.reserve(n, object()) for n in ("Whole", "whole", f"{hint}_of_params"))
    script.definitions += [
        WHOLE.format(name=kind, loss=of_module),
        f"{whole} = {kind}({made}())",
        LOSS.format(name=name, whole=whole, seeded="" if seed is None else f"\n    torch.manual_seed({seed})"),
    ]
    return name


def _made(script: Writing, module: nn.Module) -> str:
    """The name of a function that makes the module."""
    bare = script.reserve("bare", object())
    lines = [f"module = {_call(script, module, bare)}", *_parts(script, module, "module", bare)]
    lines += _shared(module)
    lines += _state(script, module)
    lines += _modes(module)
    name = script.reserve("make_module", object())
    script.definitions.append(BARE.format(name=bare))
    script.definitions.append("\n    ".join([f"def {name}():", *lines, "return module"]))
    return name


def _call(script: Writing, module: nn.Module, bare: str) -> str:
    """The call that makes it, by its class's own constructor where that is known to give the same."""
    kind = type(module)
    name = script.expression(kind, kind.__name__)
    if isinstance(module, CONTAINERS) and kind in CONTAINERS:
        return f"{name}()"
    arguments = _arguments(module)
    if arguments is None:
        return f"{bare}({name})"
    return f"{name}({', '.join(f'{key}={script.expression(value, key)}' for key, value in arguments.items())})"


def _arguments(module: nn.Module) -> dict[str, Any] | None:
    """Those of the constructor of one of torch's own layers, read from its attributes; None where they do not make it
    again."""
    kind = type(module)
    if not kind.__module__.startswith("torch.nn.modules"):
        return None
    found: dict[str, Any] = {}
    for parameter in _parameters(kind):
        value = getattr(module, parameter.name, parameter.default)
        if parameter.name == "bias" and not isinstance(value, bool):
            value = any(name.endswith("bias") for name, _ in module.named_parameters())
        if value is not parameter.default and value != parameter.default:
            found[parameter.name] = value
    try:
        with torch.random.fork_rng(devices=[]):
            again = kind(**found)
    except Exception:  # noqa: BLE001  # a layer may keep its arguments under other names
        return None
    return found if _looks(again) == _looks(module) else None


def _parameters(kind: type[nn.Module]) -> list[inspect.Parameter]:
    """Of the first constructor that names its arguments: that of an LSTM passes them on."""
    for base in kind.__mro__:
        own = vars(base).get("__init__")
        parameters = [] if own is None else list(inspect.signature(own).parameters.values())[1:]
        if own is not None and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return [p for p in parameters if p.name not in ("device", "dtype", "mode") and p.kind is not p.VAR_KEYWORD]
    return []


def _looks(module: nn.Module) -> tuple[Any, ...]:
    tensors = (*module.named_parameters(), *module.named_buffers())
    return repr(module), [(name, x.shape) for name, x in tensors]


def _parts(script: Writing, module: nn.Module, name: str, bare: str) -> Iterator[str]:
    """The statements that give it what its call has not: submodules, tensors, attributes."""
    if hooked := [hook for hook in HOOKS if getattr(module, hook)]:
        raise GradwitnessError(f"the module has {', '.join(hooked)}, which no text makes: remove them for the script")
    if _arguments(module) is not None:
        return
    for key, value in vars(module).items():
        if key not in FRESH:
            is_name = key.isidentifier() and not iskeyword(key)
            text = script.expression(value, key if is_name else "value")
            yield f"{name}.{key} = {text}" if is_name else f"setattr({name}, {key!r}, {text})"
    for key, tensor in module._parameters.items():
        made = "None" if tensor is None else f"torch.nn.Parameter(torch.empty({tuple(tensor.shape)}))"
        yield f"{name}.register_parameter({key!r}, {made})"
    for key, buffer in module._buffers.items():
        made = "None" if buffer is None else f"torch.empty({tuple(buffer.shape)}, dtype={buffer.dtype})"
        yield f"{name}.register_buffer({key!r}, {made})"
    for key, child in module._modules.items():
        if child is None:
            yield f"{name}.register_module({key!r}, None)"
            continue
        if (known := next(k for k, x in module._modules.items() if x is child)) != key:
            yield f"{name}.add_module({key!r}, {name}.get_submodule({known!r}))"
            continue
        yield f"{name}.add_module({key!r}, {_call(script, child, bare)})"
        yield from _parts(script, child, f"{name}.get_submodule({key!r})", bare)


def _shared(module: nn.Module) -> Iterator[str]:
    """Parameters under two names are one."""
    first: dict[int, str] = {}
    for name, tensor in module.named_parameters(remove_duplicate=False):
        owner, _, own = name.rpartition(".")
        known = first.setdefault(id(tensor), name)
        if known != name:
            yield f"module{_access(owner)}.register_parameter({own!r}, module.get_parameter({known!r}))"


def _state(script: Writing, module: nn.Module) -> Iterator[str]:
    """The values of what the loss does not get as params: buffers, and frozen parameters."""
    frozen = [(name, p) for name, p in module.named_parameters() if not p.requires_grad]
    tensors: list[tuple[str, torch.Tensor, str]] = [(name, p, "get_parameter") for name, p in frozen]
    tensors += [(name, buffer, "get_buffer") for name, buffer in module.named_buffers()]
    for name, tensor, how in tensors:
        values = script.expression(tensor.detach(), "values")
        yield f"module.{how}({name!r}).data.copy_({values})"
        if how == "get_parameter":
            yield f"module.get_parameter({name!r}).requires_grad_(False)"


def _modes(module: nn.Module) -> Iterator[str]:
    """Train or eval, of each submodule that is not in the mode of the one that it is part of."""
    modes = {name: part.training for name, part in module.named_modules()}
    for name, mode in modes.items():
        if mode is not (modes[name.rpartition(".")[0]] if name else True):
            yield f"module{_access(name)}.train({mode})"


def _access(name: str) -> str:
    return f".get_submodule({name!r})" if name else ""
