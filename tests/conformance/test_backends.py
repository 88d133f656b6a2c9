"""The backends of this repository, held to what a third party's is held to.

Their 16-bit dtypes are in `test_ops`, where backends share one referee.
"""

from __future__ import annotations

import pytest

from gradwitness.testing import BackendConformance


class TestNumpy(BackendConformance):
    backend = "numpy"


class TestTorch(BackendConformance):
    backend = "torch"
    dtypes = ("float64", "float32")


class TestJax(BackendConformance):
    backend = "jax"
    dtypes = ("float64",)


@pytest.mark.nightly
class TestJaxInFloat32(BackendConformance):
    """A minute and a half of compiling; every run verifies the 14 networks in float32 instead."""

    backend = "jax"
    dtypes = ("float32",)


@pytest.mark.slow
class TestTorchCompile(BackendConformance):
    backend = "torch.compile"
    dtypes = ("float64",)

    @pytest.mark.nightly
    def test_ops(self, family: str, dtype: str) -> None:
        """Four minutes of g++; every run compiles the 14 networks, and random graphs."""
        super().test_ops(family, dtype)


@pytest.mark.nightly
class TestTorchCompileInFloat32(BackendConformance):
    """Four minutes of compiling; every run verifies the 14 networks in float32 instead."""

    backend = "torch.compile"
    dtypes = ("float32",)
