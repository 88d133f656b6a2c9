"""Finds adapters through the entry-point group "gradwitness.backends", or takes them from users; the core reaches them
only here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import util
from typing import TYPE_CHECKING, Any

from gradwitness.errors import GradwitnessError, UnknownName, UnsupportedError
from gradwitness.protocol import Backend, Capabilities, Extensible, Interpreter

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "backend",
    "backend_names",
    "extend",
    "installed",
    "interpreter",
    "interpreter_name",
    "missing_modules",
    "register_backend",
    "unregister_backend",
    "versions",
]

GROUP = "gradwitness.backends"

_made: dict[str, Backend] = {}  # the backends in use, by name
_registered: dict[str, Backend] = {}  # those that no entry point names
_own_ops: dict[str, Mapping[str, Any]] = {}  # what users' own ops are run by: by op, by backend


@cache
def _entry_points() -> dict[str, EntryPoint]:
    from importlib import metadata  # here, so that importing gradwitness is quick

    found: dict[str, EntryPoint] = {}
    for point in metadata.entry_points(group=GROUP):
        if point.name in found and found[point.name].value != point.value:
            raise GradwitnessError(
                f"two installed packages provide backend {point.name!r}: "
                f"{found[point.name].value} and {point.value}; remove one"
            )
        found[point.name] = point
    return found


def backend_names() -> tuple[str, ...]:
    """Every declared backend, the interpreter's first, whether or not its framework is installed."""
    return tuple(sorted({**_entry_points(), **_registered}, key=lambda name: (name != "numpy", name)))


def backend(name: str) -> Backend:
    """The backend of that name. Loading it imports no framework. Raises UnknownName or GradwitnessError."""
    if name not in _made:
        made = _registered.get(name) or _loaded(name)
        _tell(made)
        _made[name] = made
    return _made[name]


def register_backend(backend: Backend) -> None:
    """Add a backend to this process that no installed package provides.

    backend: an instance of a class that follows `gradwitness.protocol.Backend`. A class of the same name and place
    replaces the one before.

    Raises GradwitnessError if it does not follow the protocol, or if its name is taken.
    """
    name = getattr(backend, "name", type(backend).__name__)
    if problem := _defect(backend, name):
        raise GradwitnessError(f"backend {name!r} ({_place(backend)}): {problem}")
    if name in _entry_points():
        raise GradwitnessError(f"backend {name!r} is that of an installed package ({_entry_points()[name].value})")
    if name in _registered and _place(_registered[name]) != _place(backend):
        raise GradwitnessError(
            f"backend {name!r} is that of {_place(_registered[name])}: take another name, or "
            f"registry.unregister_backend({name!r}) first"
        )
    _tell(backend)
    _registered[name] = _made[name] = backend


def unregister_backend(name: str) -> None:
    """Forget a backend that was registered. Raises UnknownName if none of that name was."""
    if name not in _registered:
        raise UnknownName("registered backend", name, _registered or ["none"])
    del _registered[name]
    _made.pop(name, None)


def _place(backend: object) -> str:
    return f"{type(backend).__module__}.{type(backend).__qualname__}"


def extend(op: str, implementations: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Have backends run a user's own op by these functions, by the backends' names: those in use and those to come.

    None: have none of them run it. Returns what was in force before. Raises UnknownName for a backend that is not
    there, GradwitnessError for one that takes no ops or not this implementation; then all is as before.
    """
    for name in implementations or ():
        if not isinstance(backend(name), Extensible):
            raise GradwitnessError(
                f"backend {name!r} takes no ops of your own: its class is no gradwitness.protocol.Extensible"
            )
    before = _own_ops.get(op)
    _set(op, implementations)
    try:
        _tell(*_made.values())
    except GradwitnessError:
        _set(op, before)
        _tell(*_made.values())
        raise
    return before


def _set(op: str, implementations: Mapping[str, Any] | None) -> None:
    if implementations is None:
        _own_ops.pop(op, None)
    else:
        _own_ops[op] = dict(implementations)


def _tell(*backends: Backend) -> None:
    """Each of these which of the users' own ops it has."""
    for made in backends:
        if isinstance(made, Extensible):
            shared, name = made.capabilities.shares, made.name
            given = {op: by.get(name, by.get(shared)) for op, by in _own_ops.items()}
            made.extend({op: function for op, function in given.items() if function is not None})


def _loaded(name: str) -> Backend:
    points = _entry_points()
    if name not in points:
        raise UnknownName("backend", name, backend_names())
    loaded = points[name].load()
    made = loaded() if isinstance(loaded, type) else loaded
    problem = _defect(made, name)
    if problem:
        raise GradwitnessError(f"backend {name!r} ({points[name].value}): {problem}")
    found: Backend = made
    return found


def _defect(made: object, name: str) -> str | None:
    if not isinstance(made, Backend):
        members = [
            m
            for m in ("name", "capabilities", "devices", "settings", "precision", "lower", "prepare")
            if not hasattr(made, m)
        ]
        return f"does not follow the Backend protocol; it lacks: {', '.join(members)}"
    if made.name != name:
        return f"its name is {made.name!r}, its entry point says {name!r}; make them equal"
    if not isinstance(made.capabilities, Capabilities):
        return f"capabilities must be a gradwitness.protocol.Capabilities, got {type(made.capabilities).__name__}"
    return None


def missing_modules(name: str) -> tuple[str, ...]:
    """Modules that the backend requires and that are not installed; none is imported."""
    return tuple(m for m in backend(name).capabilities.requires if util.find_spec(m) is None)


def installed(name: str) -> Backend:
    """The backend, its framework at hand. Raises UnsupportedError, with the install command, if that is missing."""
    missing = missing_modules(name)
    if missing:
        command = backend(name).capabilities.install
        raise UnsupportedError(f"{name} needs {', '.join(missing)}, which is not installed: {command}")
    return backend(name)


def versions(name: str) -> dict[str, str]:
    """Installed versions of what the backend requires, by module, without importing it."""
    return {m: _version(m) for m in backend(name).capabilities.requires if util.find_spec(m) is not None}


@cache
def _version(module: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:  # a module may be named otherwise than its distribution
        providers = metadata.packages_distributions().get(module, [])
        return metadata.version(providers[0]) if providers else "unknown"


def interpreter_name() -> str:
    """The name of a backend that can run graphs node by node. Raises GradwitnessError if none is installed."""
    for name in backend_names():
        found = backend(name)
        if found.capabilities.interpreter and isinstance(found, Interpreter):
            return name
    raise GradwitnessError("no installed backend can interpret graphs; reinstall gradwitness, whose NumPy backend does")


def interpreter() -> Interpreter:
    """That backend."""
    found = backend(interpreter_name())
    assert isinstance(found, Interpreter)
    return found
