"""Finds adapters through the entry-point group "gradwitness.backends". The core reaches them only here."""

from __future__ import annotations

from functools import cache
from importlib import metadata, util

from gradwitness.errors import GradwitnessError, UnknownName, UnsupportedError
from gradwitness.protocol import Backend, Capabilities, Interpreter

__all__ = ["backend", "backend_names", "installed", "interpreter", "missing_modules", "versions"]

GROUP = "gradwitness.backends"


@cache
def _entry_points() -> dict[str, metadata.EntryPoint]:
    found: dict[str, metadata.EntryPoint] = {}
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
    return tuple(sorted(_entry_points(), key=lambda name: (name != "numpy", name)))


@cache
def backend(name: str) -> Backend:
    """The backend of that name. Loading it imports no framework. Raises UnknownName or GradwitnessError."""
    points = _entry_points()
    if name not in points:
        raise UnknownName("backend", name, points)
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
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:  # a module may be named otherwise than its distribution
        providers = metadata.packages_distributions().get(module, [])
        return metadata.version(providers[0]) if providers else "unknown"


@cache
def interpreter() -> Interpreter:
    """A backend that can run graphs node by node. Raises GradwitnessError if none is installed."""
    for name in backend_names():
        found = backend(name)
        if found.capabilities.interpreter and isinstance(found, Interpreter):
            return found
    raise GradwitnessError("no installed backend can interpret graphs; reinstall gradwitness, whose NumPy backend does")
