"""The zoo on a GPU, held against the same referee on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradwitness import registry
from gradwitness.networks import NETWORKS, network
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict
from gradwitness.verification import verify_problems


def backends_on_gpu() -> list[str]:
    names = [n for n in registry.backend_names() if not registry.missing_modules(n)]
    return [n for n in names if "cuda" in registry.backend(n).devices()]


@pytest.mark.gpu
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["highest", "default"])
def test_a_network_on_the_gpu(name: str, precision: str) -> None:
    settings = Settings(devices=("cuda",), precision=precision)
    report = verify_problems([(network(name), backends_on_gpu())], settings)
    # in default precision TF32 may take part in float32, which is no agreement and is said; it must not crash
    allow = (Verdict.DISAGREE, Verdict.DIFFERENT_LOSS) if precision == "default" else ()
    assert replace(report, allow=allow).ok, repr(report)
    assert {row.device for row in report.rows} == {"cuda"}
