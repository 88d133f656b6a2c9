"""What every test shares: Hypothesis without deadlines, and `gpu` tests skipped where there is no GPU."""

from __future__ import annotations

import pytest
from hypothesis import settings

from gradwitness import registry

# a framework's first call takes seconds, the next a millisecond
settings.register_profile("gradwitness", deadline=None)
settings.load_profile("gradwitness")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not _has_gpu():
        pytest.skip("no backend has a GPU here")


def _has_gpu() -> bool:
    installed = (name for name in registry.backend_names() if not registry.missing_modules(name))
    return any("cuda" in registry.backend(name).devices() for name in installed)
