"""What is public is documented: every name, every method, and every parameter by its name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

import gradwitness as gw
from gradwitness.protocol import Backend, Capabilities, Prepared
from gradwitness.testing import BackendConformance
from gradwitness_pytest.verifier import VerifyGradients
from tests.project.prose import TURNS, sentences

NAMES = [name for name in gw.__all__ if name not in ("__version__", "ops")]
PUBLIC = {name: getattr(gw, name) for name in NAMES} | {
    c.__name__: c for c in (Backend, Capabilities, Prepared, BackendConformance, VerifyGradients)
}
FUNCTIONS = {name: what for name, what in PUBLIC.items() if inspect.isfunction(what)}
RECORDS = {name: what for name, what in PUBLIC.items() if inspect.isclass(what) and is_dataclass(what)}
OLD = {"reference_seconds", "unknown"}  # parameters that only raise


def methods(cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class defines; the name of a test says what it tests."""
    for name, member in vars(cls).items():
        if not name.startswith(("_", "test_")) and (callable(member) or isinstance(member, property | classmethod)):
            yield name, member


def unsaid(doc: str, names: list[str]) -> list[str]:
    """Those of the names that begin no entry such as `name:` or `name, other:`, nor stand in the text as code does."""
    said = {name for entry in re.findall(r"([\w, ]+):\s", doc) for name in re.findall(r"\w+", entry)}
    return [name for name in names if name not in said and name not in OLD and f"`{name}" not in doc]


@pytest.mark.parametrize("name", PUBLIC)
def test_it_has_a_docstring_that_reads_well(name: str) -> None:
    doc = inspect.getdoc(PUBLIC[name]) or ""
    assert doc
    assert not doc.startswith(f"{name}("), "a dataclass without one gets its signature"
    assert [s for s in sentences(doc) if any(re.search(turn, s) for turn in TURNS)] == []


@pytest.mark.parametrize("name", [n for n, what in PUBLIC.items() if inspect.isclass(what) and what is not Prepared])
def test_its_methods_have_docstrings(name: str) -> None:
    assert [method for method, member in methods(PUBLIC[name]) if not inspect.getdoc(member)] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_each_parameter_is(name: str) -> None:
    doc = inspect.getdoc(FUNCTIONS[name]) or ""
    assert unsaid(doc, list(inspect.signature(FUNCTIONS[name]).parameters)) == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_it_raises(name: str) -> None:
    assert "Raise" in (inspect.getdoc(FUNCTIONS[name]) or "")


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_says_what_each_field_is(name: str) -> None:
    documented = " ".join(c.__doc__ or "" for c in inspect.getmro(RECORDS[name]) if is_dataclass(c))
    assert unsaid(documented, [field.name for field in fields(RECORDS[name])]) == []


def test_a_parameter_that_is_not_documented_is_seen() -> None:
    def planted(x: Any, y: Any, z: Any) -> None:
        """Add. x, y: numbers."""

    assert unsaid(inspect.getdoc(planted) or "", list(inspect.signature(planted).parameters)) == ["z"]


def test_a_method_without_a_docstring_is_seen() -> None:
    class Planted:
        said: Callable[[], None]

        def unsaid(self) -> None: ...

    assert [name for name, member in methods(Planted) if not inspect.getdoc(member)] == ["unsaid"]
