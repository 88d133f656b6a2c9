"""What pyproject.toml, constraints.txt and the folders say of each other is true."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest

from gradwitness import registry
from gradwitness.ops import OPS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CONSTRAINTS = (ROOT / "constraints.txt").read_text("utf-8")
DECLARED = PROJECT["project"]["entry-points"][registry.GROUP]
PACKAGES = [ROOT / folder for folder in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
ADAPTERS = [package for package in PACKAGES if package.parent.name == "backends"]
FAMILIES = sorted({op.rule.__module__.rsplit(".", 1)[1] for op in OPS.values()})


def requirements() -> list[str]:
    """Every requirement of the package, its extras, its groups and its build."""
    project = PROJECT["project"]
    lists = [project["dependencies"], PROJECT["build-system"]["requires"]]
    lists += [*project["optional-dependencies"].values(), *PROJECT["dependency-groups"].values()]
    return [requirement for each in lists for requirement in each]


def name(requirement: str) -> str:
    """The normalised name of a requirement (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def unpinned(requirements: Iterable[str], constraints: str) -> set[str]:
    """Those required that no line `name==version` of `constraints` pins."""
    pinned = {name(line) for line in constraints.splitlines() if re.fullmatch(r"[\w.-]+==[\w.]+", line)}
    return {name(requirement) for requirement in requirements} - pinned


def lacking_files(folders: Iterable[Path], names: Iterable[str]) -> list[str]:
    """The files `name.py` that a folder should have and has not."""
    wanted = [folder / f"{name}.py" for folder in folders for name in names]
    return [f"{file.parent.name}/{file.name}" for file in wanted if not file.is_file()]


def test_constraints_pin_every_requirement() -> None:
    assert unpinned(requirements(), CONSTRAINTS) == set()


@pytest.mark.parametrize("line", ["", "# torch==2.0", "torch>=2.0", "torch @ file:///t.whl", "torch-geometric==2.0"])
def test_a_requirement_without_a_pin_would_be_seen(line: str) -> None:
    assert unpinned(["torch>=2.7", "numpy"], f"{line}\nnumpy==2.0") == {"torch"}


def test_constraints_are_pins_and_nothing_else() -> None:
    """No index, no path, no option: whoever installs chooses where from."""
    lines = [line for line in CONSTRAINTS.splitlines() if not line.startswith("# ")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert len({name(line) for line in lines}) == len(lines)


def test_the_version_is_the_installed_one() -> None:
    assert metadata.version("gradwitness") == PROJECT["project"]["version"]


def test_the_installed_entry_points_are_the_declared_ones() -> None:
    assert {point.name: point.value for point in metadata.entry_points(group=registry.GROUP)} == DECLARED


def test_the_pytest_plugin_loads_from_its_entry_point() -> None:
    """By this name it is turned off: `-p no:gradwitness`."""
    declared = PROJECT["project"]["entry-points"]["pytest11"]
    assert list(declared) == ["gradwitness"]
    plugin = metadata.EntryPoint("gradwitness", declared["gradwitness"], "pytest11").load()
    assert Path(plugin.__file__).parent in PACKAGES
    assert hasattr(plugin, "verify_gradients")


@pytest.mark.parametrize("backend", DECLARED)
def test_a_backend_loads_under_its_own_name(backend: str) -> None:
    assert registry.backend(backend).name == backend


@pytest.mark.parametrize("backend", DECLARED)
def test_a_backends_modules_are_what_its_extra_installs(backend: str) -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    capabilities = registry.backend(backend).capabilities
    extra = re.search(r"gradwitness\[(\w+)\]", capabilities.install)
    installed = extras[extra[1]] if extra else PROJECT["project"]["dependencies"]
    assert set(capabilities.requires) <= {name(requirement) for requirement in installed}


def test_every_op_family_has_its_file_in_every_adapter() -> None:
    assert len(ADAPTERS) == 3
    assert lacking_files(ADAPTERS, FAMILIES) == []


def test_a_lacking_file_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "softmax.py").touch()
    assert lacking_files([tmp_path], ["losses", "softmax"]) == [f"{tmp_path.name}/losses.py"]


def test_every_package_is_typed() -> None:
    assert [package.name for package in PACKAGES if not (package / "py.typed").is_file()] == []
