"""paths=: which candidates become several, what is refused, and what reports make of them."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest

import gradwitness as gw
from gradwitness import registry
from gradwitness.errors import GradwitnessError, UnknownName, UnsupportedError
from gradwitness.lowering import reduction_over_examples
from gradwitness.paths import along_paths
from gradwitness.problem import Candidate, Problem
from gradwitness.report.document import schema
from gradwitness.settings import Settings

PARAMS, BATCH = {"w": np.array([1.0, -2.0, 0.5])}, {"x": np.arange(12.0).reshape(4, 3) / 7}


def loss(p: Any, d: Any) -> Any:
    return ((d["x"] @ p["w"]) ** 2).mean()


def gradient(p: Any, d: Any) -> Any:
    return {"w": 2 * (d["x"] @ p["w"]) @ d["x"] / len(d["x"])}


BY_HAND = Candidate("numpy", loss, gradient=gradient)


def test_each_candidate_is_tried_along_the_paths_of_its_backend() -> None:
    given = {"t": Candidate("torch", loss), "j": Candidate("jax", loss), "mine": BY_HAND}
    found = along_paths(given, ["vmap", "torch.func.grad"])
    assert list(found) == ["t [torch.func.grad]", "t [vmap]", "j [vmap]", "mine"]
    assert [candidate.path for candidate in found.values()] == ["torch.func.grad", "vmap", "vmap", None]
    assert along_paths(given, []) == given
    many = along_paths(given, ["all"])
    backends = (registry.backend(name).capabilities.paths for name in ("torch", "jax"))
    assert len(many) == sum(map(len, backends)) + 1


def test_a_gradient_by_hand_and_a_path_already_chosen_stay() -> None:
    given = {
        "a": Candidate("torch", loss, gradient=gradient),
        "b": Candidate("torch", loss, path="vmap"),
        "c": Candidate("torch.compile", loss),
    }
    assert along_paths(given, ["all"]) == given


def test_an_unknown_path_is_refused_with_those_known() -> None:
    with pytest.raises(UnknownName, match=r"unknown path 'jit'; there is: all, backward, channels-last, checkpoint, "):
        gw.verify({"torch": loss}, PARAMS, BATCH, paths="jit")
    with pytest.raises(UnknownName, match="unknown path"):
        Settings(paths=("eagre",))


def test_a_path_that_no_candidate_can_take_is_refused() -> None:
    with pytest.raises(GradwitnessError, match=r"'torch\.func\.grad' is for no candidate here"):
        gw.verify({"jax": loss}, PARAMS, BATCH, paths=["vmap", "torch.func.grad"])
    with pytest.raises(GradwitnessError, match="'all' is for no candidate here"):
        gw.verify({"mine": BY_HAND}, PARAMS, BATCH, paths="all")


def test_a_candidate_may_name_its_path() -> None:
    named = {"a": Candidate("torch", loss, path="torch.func.grad"), "b": Candidate("jax", loss, path="vmap")}
    report = gw.verify(named, PARAMS, BATCH)
    assert report, repr(report)
    assert [row.path for row in report.rows] == ["torch.func.grad", "vmap"]
    with pytest.raises(UnknownName, match=r"unknown path of torch 'jax\.jit"):
        gw.verify(Candidate("torch", loss, path="jax.jit(grad)"), PARAMS, BATCH)
    with pytest.raises(UnsupportedError, match="a gradient written by hand is not differentiated"):
        gw.verify(Candidate("torch", loss, gradient=gradient, path="vmap"), PARAMS, BATCH)


def test_the_report_in_json_has_paths_and_rules() -> None:
    report = gw.verify({"t": Candidate("torch", loss)}, PARAMS, BATCH, paths=["eager", "channels-last"])
    document = json.loads(report.json())
    jsonschema.validate(document, schema())
    assert document["environment"]["paths"] == ["eager", "channels-last"]
    assert [(row["candidate"], row["path"], row["custom"]) for row in document["rows"]] == [
        ("t [eager]", "eager", {}),
        ("t [channels-last]", "channels-last", None),
    ]


@pytest.mark.parametrize("required", ["t", "torch", "t [eager]"])
def test_who_is_required_may_be_named_without_the_path(required: str) -> None:
    report = gw.verify({"t": Candidate("torch", loss)}, PARAMS, BATCH, paths=["eager", "channels-last"])
    rows, environment = report.rows, report.environment
    assert gw.Report(rows, environment, require=(required,)).ok
    assert not gw.Report(rows[1:], environment, require=(required,)).ok, "where it agreed on no path"


def test_what_a_loss_is_of_its_examples_is_found_by_its_values() -> None:
    problem = Problem("p", None, PARAMS, BATCH)

    def kind(value: Any) -> str:
        return reduction_over_examples(problem, lambda leaves: float(value(leaves["x"] @ leaves["w"])), 2.0**-53)

    assert kind(lambda z: (z**2).mean()) == "mean"
    assert kind(lambda z: (z**2).sum()) == "sum"
    for coupled in (lambda z: np.log(np.exp(z).sum()), lambda z: ((z - z.mean()) ** 2).sum()):
        with pytest.raises(UnsupportedError, match="neither the sum nor the mean of the losses of its 4 examples"):
            kind(coupled)
    with pytest.raises(UnsupportedError, match="takes no single example"):
        kind(lambda z: z[1] + z[0])
    with pytest.raises(UnsupportedError, match="no array of examples"):
        reduction_over_examples(Problem("p", None, PARAMS, {}), lambda leaves: 0.0, 2.0**-53)


def test_the_fixture_takes_paths(verify_gradients: Any) -> None:
    report = verify_gradients({"t": Candidate("torch", loss)}, PARAMS, BATCH, paths="eager,vmap", require="t")
    assert [row.candidate for row in report.rows] == ["t [eager]", "t [vmap]"]
    with pytest.raises(pytest.fail.Exception, match=r"t \[eager\]: error: the backward of Rule never"):
        verify_gradients({"t": Candidate("torch", loss, custom="Rule")}, PARAMS, BATCH, paths="eager")
