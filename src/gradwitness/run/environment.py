"""What a reader needs to run it again."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import Any

from gradwitness import registry
from gradwitness.run.failing import first_lines
from gradwitness.settings import Settings

__all__ = ["environment"]


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
