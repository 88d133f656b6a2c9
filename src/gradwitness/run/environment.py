"""What a reader needs to run it again."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gradwitness import registry
from gradwitness.errors import GradwitnessError
from gradwitness.run.failing import first_lines
from gradwitness.settings import Settings

__all__ = ["environment", "expect_same_environment"]


def environment(backends: Iterable[str], settings: Settings) -> dict[str, Any]:
    """Versions, devices, precision settings, seed."""
    from importlib import metadata  # here, so that importing gradwitness is quick

    versions: dict[str, str] = {}
    held: dict[str, dict[str, str]] = {}
    for name in backends:
        if registry.missing_modules(name):
            continue
        versions |= registry.versions(name)
        backend = registry.backend(name)
        try:
            with backend.precision(settings.precision):
                held[name] = backend.settings(settings.precision)
        except Exception as error:  # noqa: BLE001  # nor does a failure to describe its backend
            held[name] = {"error": first_lines(error)}
    return {
        "gradwitness": metadata.version("gradwitness"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "devices": list(settings.devices),
        "precision": settings.precision,
        "settings": held,
        "seed": settings.seed,
        "timeout": settings.timeout,
        "paths": list(settings.paths),
    }


def expect_same_environment(one: Mapping[str, Any], other: Mapping[str, Any], where: str, elsewhere: str) -> None:
    """Raise GradwitnessError, by name, where two environments would give other rows: other versions, or other settings
    of the backends that both have.

    where, elsewhere: whose they are, for the message.
    """
    for name, value, there in _both(one, other):
        if value != there:
            raise GradwitnessError(f"{name} is {value} {where} and {there} {elsewhere}: let them be the same")


def _both(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(name, value of the one, value of the other) of what decides about rows."""
    for name in ("gradwitness", "python"):
        yield name, one[name], other[name]
    yield from ((name, value, other["versions"].get(name, value)) for name, value in one["versions"].items())
    for backend, settings in one["settings"].items():
        there = other["settings"].get(backend, settings)
        yield from ((f"{backend}'s {name}", value, there.get(name)) for name, value in settings.items())
