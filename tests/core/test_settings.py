"""Options are declared once: what Python takes is what the command line takes, with the same defaults."""

import argparse
import inspect
import json
from dataclasses import fields
from typing import Any

import click
import jsonschema
import numpy as np
import pytest

import gradwitness as gw
import gradwitness_pytest
from gradwitness.cli import cli
from gradwitness.errors import GradwitnessError, UnknownName
from gradwitness.report.document import schema
from gradwitness.settings import OPTIONS, Settings, names, seed_from

SETTINGS = [f.name for f in fields(Settings)]


def test_each_of_the_settings_has_an_option() -> None:
    assert list(OPTIONS) == SETTINGS


@pytest.mark.parametrize("name", SETTINGS)
def test_python_and_the_command_line_take_it_with_one_default(name: str) -> None:
    assert isinstance(cli, click.Group)
    default, option = getattr(Settings, name), OPTIONS[name]
    in_python = inspect.signature(gw.verify).parameters[name]
    assert in_python.default == (None if name == "dtypes" else default)  # those of the leaves
    (shown,) = [p for p in cli.commands["verify"].params if p.name == name]
    assert (shown.opts, shown.default) == ([option.flag], default)
    assert getattr(shown, "help", None) == option.help


WRONG: list[dict[str, Any]] = [
    *({"seed": seed} for seed in (True, 1.5, None, "0", -1, np.bool_(True))),
    *({"timeout": timeout} for timeout in (True, "3", 0, -1.0, float("nan"), float("inf"))),
    *({"seconds": seconds} for seconds in (True, "3", 0, None)),
    *({"name": name} for name in (None, 5, "")),
    *({option: 5} for option in ("dtypes", "devices", "paths", "wrt", "allow", "require", "backends")),
    *({option: [5]} for option in ("dtypes", "devices", "paths", "wrt", "allow", "require")),
    *({option: ""} for option in ("dtypes", "devices", "paths", "wrt", "allow", "require")),
    *({option: "nonsense"} for option in ("dtypes", "devices", "paths", "wrt", "allow", "require", "precision")),
    *({"intended": intended} for intended in (["w"], {5: "x"}, "w", {"w": 5})),
    {"wrt": []},
    {"reference": None},
    {"cotangent": "random "},
]


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_a_setting_of_the_wrong_kind_is_an_error_before_the_run(options: dict[str, Any]) -> None:
    def never(params: Any, batch: Any) -> Any:
        raise AssertionError("it ran")

    candidate = gw.Candidate("numpy", never, gradient=never)
    with pytest.raises(GradwitnessError) as raised:
        gw.verify({"m": candidate}, {"w": np.ones(2)}, {}, **options)
    assert len(str(raised.value).splitlines()) == 1
    assert "it ran" not in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {"seed": np.int64(3)},
        {"seed": np.uint8(3)},
        {"seconds": np.float32(3)},
        {"seconds": np.int64(3)},
        {"timeout": np.float64(60)},
        {"dtypes": np.float64},
        {"wrt": ["w"]},
        {"allow": {"inconclusive"}},
    ],
    ids=str,
)
def test_the_json_of_any_run_fits_its_schema(options: dict[str, Any]) -> None:
    candidate = gw.Candidate("numpy", _square, gradient=_by_square)
    report = gw.verify({"m": candidate}, {"w": np.ones(2)}, {}, **options)
    jsonschema.validate(json.loads(report.json()), schema())
    assert report


def _square(params: Any, batch: Any) -> float:
    return float(np.sum(params["w"] ** 2))


def _by_square(params: Any, batch: Any) -> Any:
    return {"w": 2 * params["w"]}


@pytest.mark.parametrize("name", ["precision", "reference"])
def test_a_choice_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(
        UnknownName, match=f"unknown {name} 'best'; there is: {', '.join(sorted(OPTIONS[name].choices))}"
    ):
        Settings(**{name: "best"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "found"), [("a,b", ("a", "b")), (" a, b,,a", ("a", "b")), (["b", "a", "b"], ("b", "a")), ((), ())]
)
def test_names_may_be_joined_by_commas(given: str, found: tuple[str, ...]) -> None:
    assert names(given) == found


def test_no_name_and_no_number_are_refused() -> None:
    with pytest.raises(GradwitnessError, match="expected a name, or several joined by commas, got ','"):
        names(",")
    with pytest.raises(GradwitnessError, match="expected a whole number or 'random', got '-1'"):
        seed_from("-1")
    assert seed_from("7") == 7
    assert seed_from("random") != seed_from("random")


def test_the_pytest_plugin_reads_a_seed_alike_though_it_imports_nothing() -> None:
    assert gradwitness_pytest._seed("7") == seed_from("7")
    for text in ("soon", "-1", ""):
        with pytest.raises(GradwitnessError) as refused:
            seed_from(text)
        with pytest.raises(argparse.ArgumentTypeError) as alike:
            gradwitness_pytest._seed(text)
        assert str(alike.value) == str(refused.value)
