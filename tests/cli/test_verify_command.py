"""The command: exit statuses, bad input, and candidates that fail in every way without costing the others."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner, Result

from gradwitness import registry
from gradwitness.cli import cli
from gradwitness.report.document import schema
from gradwitness_numpy.rules import RULES
from gradwitness_torch.prepared import TorchPrepared


def verify(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["verify", *arguments])


def article(*arguments: str) -> Result:
    return verify("article", "--backend", "numpy,torch", *arguments)


def test_agreement_exits_with_0_and_shows_a_row_per_cell() -> None:
    result = article()
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines() if line.startswith("article")]
    assert [(r[1], r[2], r[-1]) for r in rows] == [
        ("float64", "numpy", "agree"),
        ("float64", "torch", "agree"),
        ("float32", "numpy", "agree"),
        ("float32", "torch", "agree"),
    ]
    assert "reference" not in rows[0]
    judged = [line.split() for line in article("--reference", "differences").output.splitlines()]
    assert [cells[4] for cells in judged if cells[:3] == ["article", "float64", "numpy"]] == ["reference"]
    assert "16 gradients: 16 agree" in result.output


def test_with_a_timeout_candidates_run_in_subprocesses(tmp_path: Path) -> None:
    assert verify("article", "--backend", "numpy", "--timeout", "60", "--json", str(tmp_path / "r.json")).exit_code == 0
    document = json.loads((tmp_path / "r.json").read_text())
    jsonschema.validate(document, schema())
    assert document["environment"]["timeout"] == 60


def test_each_backend_is_tried_along_the_paths_that_it_has() -> None:
    result = verify("article", "--backend", "numpy,jax", "--dtype", "float64", "--paths", "eager,vmap")
    assert result.exit_code == 0, result.output
    cells = [re.split(r"  +", line) for line in result.output.splitlines() if line.startswith("article ")]
    assert [cell[2] for cell in cells if len(cell) > 2] == ["numpy", "jax [eager]", "jax [vmap]"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "unknown network 'nonsense'; there is: article, batchnorm_mlp"),
        (["article", "--backend", "tensorflow"], "unknown backend 'tensorflow'; there is: jax, numpy, torch"),
        (
            ["article", "--dtype", "float8"],
            "'float8'; did you mean 'float64'? There is: bfloat16, float16, float32, float64",
        ),
        (["article", "--dtype", "bf16"], "unknown dtype 'bf16'; did you mean 'bfloat16'?"),
        (["lmtx"], "unknown network 'lmtx'; there is"),
        (["ltsm"], "unknown network 'ltsm'; did you mean 'lstm'?"),
        (["article", "--device", "tpu"], "unknown device 'tpu'; there is: cpu"),
        (["article", "--require", "tensorflow"], "unknown backend 'tensorflow'"),
        (["article", "--allow", "everything"], "unknown verdict 'everything'; there is: agree"),
        (["article", "--paths", "jit"], "unknown path 'jit'; there is: all, backward, channels-last"),
        (["article", "--backend", "numpy", "--paths", "vmap"], "'vmap' is for no candidate here"),
        (["article", "--timeout", "0"], "timeout must be a positive number of seconds"),
        (["article", "--seed", "soon"], "expected a whole number or 'random'"),
        (["article", "--json", "no/such/folder/report.json"], "the folder no/such/folder does not exist"),
    ],
)
def test_wrong_usage_exits_with_2_and_names_what_there_is(arguments: list[str], says: str) -> None:
    result = verify(*arguments)
    assert result.exit_code == 2
    assert says in result.output
    assert "Traceback" not in result.output


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = registry.missing_modules
    monkeypatch.setattr(
        registry, "missing_modules", lambda name: ("torch",) if name.startswith("torch") else installed(name)
    )
    monkeypatch.setitem(sys.modules, "torch", None)  # so that importing it raises


@pytest.mark.usefixtures("without_torch")
def test_a_framework_that_is_not_installed() -> None:
    everything = verify("article", "--dtype", "float64")
    assert everything.exit_code == 0
    assert (
        'torch: unsupported: torch needs torch, which is not installed: pip install "gradwitness[torch]"'
        in everything.output
    )
    assert verify("article", "--backend", "numpy,torch").exit_code == 2
    required = verify("article", "--dtype", "float64", "--require", "torch")
    assert required.exit_code == 1
    assert "torch is required, and did not agree everywhere" in required.output


def test_what_was_not_run_cannot_be_required_into_green() -> None:
    assert verify("article", "--backend", "numpy", "--require", "numpy").exit_code == 0
    assert verify("article", "--backend", "numpy", "--require", "torch").exit_code == 1


def test_a_run_in_which_nothing_agreed_is_not_green() -> None:
    result = verify("article", "--backend", "numpy", "--dtype", "bfloat16")
    assert "numpy does not run in bfloat16" in result.output
    assert "nothing agreed" in result.output
    assert result.exit_code == 1


Tamper = Callable[[float, dict[str, Any]], tuple[float, dict[str, Any]]]


@pytest.fixture
def tamper(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tamper], None]:
    """Plant a fault in what torch hands back."""
    honest = TorchPrepared.value_and_gradient

    def plant(change: Tamper) -> None:
        monkeypatch.setattr(TorchPrepared, "value_and_gradient", lambda self, params: change(*honest(self, params)))

    return plant


def doubled(loss: float, gradients: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    return loss, {**gradients, "hidden.weight": 2 * gradients["hidden.weight"]}


def raising(loss: float, gradients: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    raise RuntimeError("the kernel gave up\nwith details")


FAULTS: dict[str, tuple[Tamper, str]] = {
    "disagree": (doubled, "torch hidden.weight: disagree: off by 1 of its norm"),
    "misshapen": (
        lambda v, g: (v, {**g, "hidden.weight": g["hidden.weight"][:1]}),
        "torch hidden.weight: error: the gradient has shape (1, 2), its parameter (2, 2)",
    ),
    "missing": (lambda v, g: (v, {**g, "hidden.bias": None}), "torch hidden.bias: missing: None, though a path leads"),
    "nonfinite": (
        lambda v, g: (v, {**g, "output.bias": g["output.bias"] * np.nan}),
        "torch output.bias: nonfinite: 1 of 1 elements are NaN or infinite",
    ),
    "different-loss": (
        lambda v, g: (v * 1.001, g),
        "torch: different-loss: the losses differ at the given",
    ),
    "error": (raising, "torch: error: RuntimeError: the kernel gave up / with details"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_and_the_others_complete(fault: str, tamper: Callable[[Tamper], None]) -> None:
    change, says = FAULTS[fault]
    tamper(change)
    result = article("--dtype", "float64")
    assert result.exit_code == 1
    assert f"article float64 {says}" in result.output
    assert "Traceback" not in result.output
    numpy_row = next(line for line in result.output.splitlines() if line.split()[:3] == ["article", "float64", "numpy"])
    assert numpy_row.split()[-1] == "agree"
    verdict = "error" if fault == "misshapen" else fault
    assert article("--dtype", "float64", "--allow", verdict).exit_code == 0


def test_a_loss_that_differs_only_nearby_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal at the given point, with an equal gradient there: only the neighbours tell."""
    monkeypatch.setattr(TorchPrepared, "value", lambda self, params: 0.123)
    result = article("--dtype", "float64")
    assert "different-loss: the losses differ at seeded neighbour 2 (not at the given point)" in result.output
    assert result.exit_code == 1


def test_a_wrong_forward_in_the_referee_is_seen_as_different_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RULES["mse"]

    def unhalved(*arrays: Any, **attributes: Any) -> Any:
        return rule.forward(*arrays, **{**attributes, "half": False})

    monkeypatch.setitem(RULES, "mse", replace(rule, forward=unhalved))
    result = article("--dtype", "float64")
    assert "different-loss" in result.output
    assert result.exit_code == 1


def test_json_follows_its_schema_and_has_every_row(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert article("--json", str(file), "--seed", "3").exit_code == 0
    document = json.loads(file.read_text())
    jsonschema.validate(document, schema())
    assert document["schema"] == 2
    assert document["ok"] is True
    assert len(document["rows"]) == 16
    assert document["environment"]["seed"] == 3
    assert {"torch", "numpy"} <= set(document["environment"]["versions"])
    assert document["environment"]["settings"]["torch"]
    first = document["rows"][0]
    assert (first["parameter"], first["shape"], first["referee"]) == ("hidden.weight", [2, 2], False)
    assert first["refused"] is None
    assert 0 < first["error"] < 1e-15
    assert 0 < first["ulps"] < 10
    assert first["fd_error"] <= first["fd_bound"]
    assert [call["missed"] for call in document["exercise"]["article"]] == [["below -3", "above 3"]]


def test_json_of_faults_follows_its_schema_too(tmp_path: Path, tamper: Callable[[Tamper], None]) -> None:
    for change, _ in FAULTS.values():
        tamper(change)
        file = tmp_path / "report.json"
        assert article("--json", str(file)).exit_code == 1
        document = json.loads(file.read_text())
        jsonschema.validate(document, schema())
        assert document["ok"] is False


def test_the_schema_refuses_what_is_not_a_report() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema": 1, "ok": True, "environment": {}, "rows": []}, schema())


def test_nothing_but_the_table_goes_to_standard_output_when_it_is_no_terminal() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gradwitness", "verify", "article", "--backend", "numpy"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "\033" not in done.stdout
    assert done.stderr == ""


def test_the_same_seed_gives_the_same_report() -> None:
    assert article("--seed", "7", "--verbose").output == article("--seed", "7", "--verbose").output


def test_fast_leaves_compiling_backends_out() -> None:
    result = verify("--fast", "--dtype", "float64")
    cells = {tuple(line.split()[:3:2]) for line in result.output.splitlines() if " float64 " in line}
    assert cells == {(n, b) for n in ("article", "mlp", "transformer") for b in ("numpy", "torch", "jax")}


@pytest.mark.parametrize(
    ("what", "says"),
    [("networks", "transformer"), ("backends", "torch 2"), ("ops", "scaled_dot_product_attention")],
)
def test_list_shows_what_there_is(what: str, says: str) -> None:
    result = CliRunner().invoke(cli, ["list", what])
    assert result.exit_code == 0
    assert says in result.output


def test_an_op_by_its_name() -> None:
    result = verify("layer_norm", "--backend", "numpy,torch", "--dtype", "float64")
    assert result.exit_code == 0
    assert {line.split()[0] for line in result.output.splitlines() if " float64 " in line} == {
        "layer_norm.x", "layer_norm.weight", "layer_norm.bias"
    }  # fmt: skip


def test_a_gradient_left_over_from_another_point_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale cache: whatever was computed first is handed back for ever."""
    honest = TorchPrepared.value_and_gradient
    kept: dict[int, dict[str, Any]] = {}

    def stale(self: TorchPrepared, params: Any) -> tuple[float, dict[str, Any]]:
        value, gradient = honest(self, params)
        return value, kept.setdefault(id(self), gradient)

    monkeypatch.setattr(TorchPrepared, "value_and_gradient", stale)
    result = article("--dtype", "float64")
    assert "torch hidden.weight: disagree" in result.output
    assert result.exit_code == 1


def test_a_candidate_that_modifies_its_inputs_is_named_and_spoils_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = TorchPrepared.value_and_gradient

    def modifying(self: TorchPrepared, params: Any) -> Any:
        found = honest(self, params)
        for array in params.values():
            array *= 1.5
        return found

    monkeypatch.setattr(TorchPrepared, "value_and_gradient", modifying)
    result = verify("article", "--backend", "torch,numpy,jax", "--dtype", "float64")
    assert "torch: error: ValueError: output array is read-only" in result.output
    assert "numpy" not in "".join(line for line in result.output.splitlines() if ": error:" in line)
    assert "different-loss" not in result.output


def test_ok_in_the_json_is_what_the_exit_status_says(tmp_path: Path, tamper: Callable[[Tamper], None]) -> None:
    tamper(doubled)
    file = tmp_path / "report.json"
    for options, code in ([], 1), (["--allow", "disagree"], 0), (["--allow", "disagree", "--require", "jax"], 1):
        assert article("--json", str(file), *options).exit_code == code
        assert json.loads(file.read_text())["ok"] is (code == 0)


def test_a_script_of_the_first_wrong_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RULES["tanh"]
    monkeypatch.setitem(RULES, "tanh", replace(rule, vjp=lambda g, step: [-g for g in rule.vjp(g, step)]))
    script = tmp_path / "bug.py"
    result = CliRunner().invoke(
        cli, ["verify", "mlp", "--backend", "numpy", "--dtype", "float64", "--repro", str(script)]
    )
    assert result.exit_code == 1
    assert f"{script} shows the first wrong gradient by itself" in result.output
    assert subprocess.run([sys.executable, str(script)], capture_output=True, check=False).returncode == 1


def test_no_script_where_nothing_is_wrong(tmp_path: Path) -> None:
    script = tmp_path / "bug.py"
    result = CliRunner().invoke(
        cli, ["verify", "article", "--backend", "numpy", "--dtype", "float64", "--repro", str(script)]
    )
    assert result.exit_code == 0
    assert not script.exists()
