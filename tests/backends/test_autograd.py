"""A fifth backend, installed from elsewhere: HIPS autograd, written from the guide in CONTRIBUTING.md."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradwitness import networks, registry
from gradwitness.networks.single_ops import op_problems
from gradwitness.ops import OPS
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict
from gradwitness.verification import verify, verify_problems

autograd = pytest.importorskip("autograd")

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "tests/fixtures/gradwitness_autograd"
NETWORKS = ("article", "mlp", "transformer")
SUITE = """
from gradwitness.testing import BackendConformance

class TestAutograd(BackendConformance):
    backend = "autograd"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the metadata that an installation of the project would leave."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    info = tmp_path / f"gradwitness_autograd-{project['version']}.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    info.joinpath("entry_points.txt").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The backend as one that the registry finds, for one test."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.syspath_prepend(PROJECT)
    _forget()
    yield
    monkeypatch.undo()
    sys.modules.pop("gradwitness_autograd", None)
    _forget()


def _forget() -> None:
    registry._entry_points.cache_clear()
    registry._made.clear()


def conformance(site: Path, folder: Path, *before: str, keyword: str = "") -> subprocess.CompletedProcess[str]:
    """The suite, as its author would run it; `before` are lines that come first, `keyword` pytest's -k."""
    suite = folder / "test_mine.py"
    suite.write_text("\n".join([*before, SUITE]))
    paths = os.pathsep.join([str(PROJECT), str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", keyword, str(suite)]
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("network", NETWORKS)
def test_it_verifies(network: str) -> None:
    report = verify(networks.network(network), backends=("numpy", "autograd"), dtypes=("float64", "float32"))
    assert report
    agreed = {(row.backend, row.dtype) for row in report.rows if row.verdict is Verdict.AGREE}
    assert agreed == {(backend, dtype) for backend in ("numpy", "autograd") for dtype in ("float64", "float32")}


@pytest.mark.usefixtures("installed")
def test_a_network_whose_ops_it_lacks_is_unsupported_and_says_which() -> None:
    (row,) = verify(networks.network("siamese"), backends="autograd", dtypes="float64").rows
    assert row.verdict is Verdict.UNSUPPORTED
    assert "softplus" in row.message


@pytest.mark.usefixtures("installed")
def test_it_has_the_ops_that_these_networks_need() -> None:
    needed = {op for network in NETWORKS for op in networks.network(network).graph.op_names}
    assert registry.backend("autograd").capabilities.ops == needed


def test_it_passes_the_conformance_suite(site: Path, tmp_path: Path) -> None:
    run = conformance(site, tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_suite_names_an_op_with_a_wrong_vjp(site: Path, tmp_path: Path) -> None:
    run = conformance(
        site,
        tmp_path,
        "import autograd.numpy as np",
        "from autograd.extend import defvjp",
        "defvjp(np.tanh, lambda y, x: lambda g: g * (1 - y))",
        keyword="float64 and elementwise",
    )
    assert run.returncode == 1
    assert "tanh.x float64 autograd sample0.x: disagree" in run.stdout
    assert "sigmoid.x" not in run.stdout  # of the same family, and right


@pytest.mark.usefixtures("installed")
def test_a_wrong_vjp_is_found_and_named() -> None:
    import autograd.numpy as np
    from autograd.core import primitive_vjps
    from autograd.extend import defvjp

    right = primitive_vjps[np.tanh]
    try:
        defvjp(np.tanh, lambda y, x: lambda g: g * (1 - y))  # 1 - y**2 it should be
        report = verify(networks.network("mlp"), backends=("numpy", "autograd"), dtypes="float64")
    finally:
        primitive_vjps[np.tanh] = right
    assert not report
    wrong = {(row.backend, row.parameter) for row in report.rows if row.verdict is Verdict.DISAGREE}
    assert ("autograd", "layers.0.weight") in wrong
    assert {backend for backend, _ in wrong} == {"autograd"}


def test_it_is_not_left_behind() -> None:
    assert "autograd" not in registry.backend_names()


def test_it_takes_less_than_a_hundred_lines() -> None:
    files = [f for f in PROJECT.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    assert all(len(f.read_text().splitlines()) < 100 for f in files)
    assert sum(bool(line.strip()) for f in files for line in f.read_text().splitlines()) < 100


@pytest.mark.parametrize("vocabulary", [frozenset({"add", "mse", "tanh"}), frozenset(OPS)], ids=["three ops", "all"])
def test_problems_use_only_the_vocabulary(vocabulary: frozenset[str]) -> None:
    for problem in op_problems(vocabulary=vocabulary):
        assert set(problem.graph.op_names) <= vocabulary


def test_problems_of_a_small_vocabulary_agree() -> None:
    problems = op_problems(vocabulary={"add", "mse", "tanh"})
    assert verify_problems([(p, ["numpy"]) for p in problems], Settings(dtypes=("float64",)))
