"""The same on every backend, or it is said who differs; and the sizes are those of the arrays."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import gradwitness as gw
from gradwitness.cli import cli
from gradwitness.diagnosis import flow
from gradwitness.networks import NETWORKS, network
from tests.page.checked import checked, text_of


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["health", *arguments])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_flows_alike_on_every_backend(name: str) -> None:
    report = gw.health(network(name), backends=["numpy", "torch", "jax"])
    assert {one.why for one in report.flows.values()} == {""}
    assert all(one.used <= 1 for one in report.flows.values()), repr(report)
    assert len(report.stages) == len(report.passing) == len(report.bounds)
    for one in report.flows.values():
        for mine, theirs in zip(one.passing, report.passing, strict=True):
            assert mine.signal == pytest.approx(theirs.signal, rel=1e-3)
            assert mine.cotangent == pytest.approx(theirs.cotangent, rel=1e-3, abs=1e-7)


@pytest.mark.slow
def test_torch_compile_flows_alike() -> None:
    report = gw.health(network("article"), backends="torch.compile")
    assert report.flows["torch.compile"].used <= 1


def test_no_cotangent_exceeds_its_bound() -> None:
    for name in ("mlp", "deep_sigmoid", "deep_relu", "layernorm_mlp"):
        report = gw.health(network(name), backends="numpy")
        bounded = [(a, b) for a, b in zip(report.attenuation, report.bounds, strict=True) if b is not None]
        assert len(bounded) >= 3
        assert all(a is not None and a <= b * 1.000001 for a, b in bounded)


def test_a_backend_that_differs_is_said_to_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    right = vars(flow)["prepare"]

    class Wrong:
        def __init__(self, prepared: Any) -> None:
            self.prepared = prepared

        def value_and_gradient(self, primals: Any) -> Any:
            loss, given = self.prepared.value_and_gradient(primals)
            return loss, {path: None if g is None else g * 1.001 for path, g in given.items()}

    def prepare(candidate: Any, *rest: Any) -> Any:
        found = right(candidate, *rest)
        return Wrong(found) if candidate.backend == "torch" else found

    monkeypatch.setattr(flow, "prepare", prepare)
    report = gw.health(network("mlp"), backends=["numpy", "torch"])
    assert report.flows["numpy"].used <= 1 < report.flows["torch"].used
    assert "torch: NOT the same" in report.table()
    assert "numpy: the same within rounding" in report.table()


def test_a_backend_that_cannot_run_costs_the_others_nothing() -> None:
    report = gw.health(network("article"), backends=["numpy", "torch"], dtype="bfloat16")
    assert "bfloat16" in report.flows["numpy"].why
    assert not report.flows["torch"].why
    assert "numpy: " in report.table()


def test_a_native_loss_is_read_into_a_graph() -> None:
    import torch

    def loss(p: Any, b: Any) -> Any:
        return (torch.tanh(b["x"] @ p["w"]) ** 2).mean()

    params, batch = {"w": np.ones((3, 2)) / 4}, {"x": np.random.default_rng(0).normal(size=(5, 3))}
    report = gw.health({"torch": loss}, params, batch)
    assert [(stage.layer, stage.activation) for stage in report.stages] == [("w", "tanh")]
    assert set(report.flows) >= {"numpy", "torch", "jax"}
    assert report


def test_the_command_prints_the_table_and_exits_by_what_it_found(tmp_path: Any) -> None:
    healthy, ill = run("mlp", "--backend", "numpy"), run("batchnorm_mlp", "--backend", "numpy")
    assert (healthy.exit_code, ill.exit_code) == (0, 1)
    assert healthy.output.splitlines()[0] == "mlp-small, 879 parameters, float32"
    assert healthy.output.rstrip().endswith("nothing found")
    assert "! zero but for rounding: leave it out" in ill.output
    assert "    layers.0.linear.bias: its gradient has a norm of" in ill.output


def test_files_hold_everything(tmp_path: Any) -> None:
    found = run("lstm", "--json", str(tmp_path / "f.json"), "--html", str(tmp_path / "f.html"), "--backend", "numpy")
    assert found.exit_code == 0, found.output
    document = json.loads((tmp_path / "f.json").read_text())
    assert [stage["layer"] for stage in document["stages"]].count("cell") == 6
    assert "... 4 more" in found.output
    page = checked((tmp_path / "f.html").read_text())
    assert "gradwitness health: lstm-small" in text_of(page)
    assert len(page.findall(".//{http://www.w3.org/2000/svg}svg")) == 1


def test_a_file_names_a_problem_or_a_function(tmp_path: Any) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np, torch\n"
        "from gradwitness.networks import network\n"
        "problem = network('article')\n"
        "def net():\n"
        "    def loss(p, b): return torch.sigmoid(b['x'] @ p['w']).sum()\n"
        "    return {'torch': loss}, {'w': np.ones((2, 2))}, {'x': np.ones((3, 2))}\n"
        "number = 3\n"
    )
    file = str(tmp_path / "mine.py")
    assert run(f"{file}:problem", "--backend", "numpy").output.startswith("article, 9 parameters")
    assert run(f"{file}:net", "--backend", "numpy").output.startswith("net, 4 parameters")
    wrong = run(f"{file}:number")
    assert wrong.exit_code == 2
    assert "a function without arguments that returns (candidates, params, batch), got int" in wrong.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a network"),
        (("mlp", "--compare"), "name one network, or give --compare alone"),
        (("nope",), "nope"),
        (("mlp", "--backend", "nope"), "nope"),
        (("mlp", "--dtype", "float7"), "float7"),
        (("mlp", "--size", "huge"), "huge"),
        (("mlp", "--device", "tpu9"), "tpu9"),
    ],
)
def test_what_is_not_there_is_one_error(arguments: tuple[str, ...], said: str) -> None:
    found = run(*arguments)
    assert found.exit_code == 2
    assert said in found.output
    assert "Traceback" not in found.output


def test_without_params_the_line_to_type_is_said() -> None:
    with pytest.raises(gw.GradwitnessError, match=r"call gw.health\(loss, params, batch\)"):
        gw.health(lambda p, b: p)
