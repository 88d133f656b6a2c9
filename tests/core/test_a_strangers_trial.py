"""What a stranger found who tried it from the README: each went wrong until it was mended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import gradwitness as gw
from gradwitness.cli import cli
from gradwitness.run.progress import slow_steps_are_told
from gradwitness.run.sending import pickled

INSTALLED = (
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever runs in the background ignores it
    "from gradwitness.interrupts import install\ninstall()\n"
)


@pytest.mark.parametrize("seed", range(6))
def test_two_exchanged_elements_are_found(seed: int) -> None:
    def gradient(p: Any, b: Any) -> Any:
        g = p["w"].copy()
        g[0], g[1] = g[1], g[0]
        return {"w": g}

    mine = gw.Candidate("numpy", lambda p, b: (p["w"] ** 2).sum() / 2, gradient=gradient)
    (row,) = gw.verify(mine, {"w": np.random.default_rng(seed).normal(size=5)}, dtypes="float64").rows
    assert row.verdict == "disagree", row.message


@pytest.mark.parametrize(
    "wrong", [{1}, {2}, {4}, set(range(3, 100, 3))], ids=["first", "second", "fourth", "every third"]
)
@pytest.mark.parametrize("backend", ["torch", "numpy"])
def test_a_backward_that_is_wrong_at_some_calls_is_found(backend: str, wrong: set[int]) -> None:
    calls = 0

    def factor() -> float:
        nonlocal calls
        calls += 1
        return 1.1 if calls in wrong else 1.0

    class Sine(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx: Any, *g: Any) -> Any:
            return factor() * g[0] * ctx.saved_tensors[0].cos()

    by_hand = gw.Candidate(
        "numpy", lambda p, b: np.sin(p["x"]).sum(), gradient=lambda p, b: {"x": factor() * np.cos(p["x"])}
    )
    in_torch = gw.Candidate("torch", lambda p, b: Sine.apply(p["x"]).sum())  # type: ignore[no-untyped-call]
    candidate = by_hand if backend == "numpy" else in_torch
    (row,) = gw.verify(candidate, {"x": np.array([0.3, -1.2, 2.0])}, dtypes="float64").rows
    assert row.verdict == "nondeterministic", row.message


def test_close_gradients_of_a_linear_loss_are_told_apart() -> None:
    ones = {"w": torch.ones(3)}
    with pytest.raises(AssertionError, match="rounding explains none"):
        gw.assert_gradients_close(
            ones, {"w": ones["w"] * 1.001}, loss={"torch": lambda p, b: p["w"].sum()}, params=ones
        )


@jax.custom_vjp
def sine(x: Any) -> Any:
    return jnp.sin(x)


sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))


def test_a_custom_vjp_and_a_jitted_function_can_be_sent() -> None:
    assert pickled(sine)
    assert pickled(jax.jit(jnp.sin))


def test_a_custom_vjp_of_a_script_runs_in_a_subprocess(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import jax, jax.numpy as jnp, numpy as np, gradwitness as gw\n"
        "@jax.custom_vjp\ndef f(x): return jnp.sin(x)\n"
        "f.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))\n"
        'print(gw.verify({"jax": lambda p, b: f(p["x"]).sum()}, {"x": np.ones(3)}, timeout=100))\n'
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert "1 gradient: 1 agree" in done.stdout


def test_a_step_that_does_not_end_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with slow_steps_are_told(lambda text: None, after=0.05) as told:
        told("loss float64: jax, judged")
        time.sleep(0.3)
        told("the next")
    time.sleep(0.1)
    (record,) = caplog.records
    assert record.getMessage().startswith("loss float64: jax, judged has taken")
    assert "timeout=S" in record.getMessage()


def test_an_interrupt_that_is_swallowed_comes_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import os, signal, time\n{INSTALLED}"
        "class Swallowing:\n    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n        time.sleep(0.01)\n"
        "try:\n    Swallowing()\n    time.sleep(30)\nexcept KeyboardInterrupt:\n    print('came')\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=25, check=True)
    assert (done.stdout, done.stderr) == ("came\n", "")


def test_three_interrupts_end_what_never_looks_for_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import signal\nimport numpy as np\n{INSTALLED}print('ready', flush=True)\n"
        "np.linalg.svd(np.random.rand(6000, 6000))\n"  # minutes in one call of LAPACK
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        time.sleep(2)
        for _ in range(3):
            run.send_signal(signal.SIGINT)
            time.sleep(0.2)
        assert run.wait(timeout=20) == 130


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def x(:\n", "cannot be imported: SyntaxError: "),
        ("import there_is_none\n", "cannot be imported: ModuleNotFoundError: No module named 'there_is_none' ("),
        ("\n1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero ("),
    ],
)
@pytest.mark.parametrize("command", ["verify", "bench", "health", "explain"])
def test_a_file_that_cannot_be_imported_is_wrong_usage(tmp_path: Path, command: str, text: str, said: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(text)
    found = CliRunner().invoke(cli, [command, f"{file}:x"])
    assert found.exit_code == 2, found.output
    assert said in found.output
    assert "Traceback" not in found.output


def test_devices_are_no_files_that_would_be_lost() -> None:
    arguments = ["verify", "article", "--backend", "numpy", "--json", "/dev/null", "--junit", "/dev/null"]
    assert CliRunner().invoke(cli, arguments).exit_code == 0


def test_an_interrupt_of_a_child_is_not_counted_here(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import os, signal, time\n{INSTALLED}"
        "for _ in range(4):\n"
        "    if (child := os.fork()) == 0:\n"
        "        signal.signal(signal.SIGINT, lambda *_: os._exit(0))\n        time.sleep(30)\n"
        "    time.sleep(0.2)\n    os.kill(child, signal.SIGINT)\n    os.waitpid(child, 0)\n"
        "print('lives')\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "lives\n"


def test_one_file_for_two_options_is_refused(tmp_path: Path) -> None:
    file = str(tmp_path / "same")
    found = CliRunner().invoke(cli, ["verify", "article", "--json", file, "--junit", file])
    assert found.exit_code == 2
    assert f"--json and --junit name one file, {file}" in found.output


def test_a_script_of_nothing_wrong_is_not_written_and_that_is_said(tmp_path: Path) -> None:
    script = tmp_path / "bug.py"
    arguments = ["verify", "article", "--backend", "numpy", "--repro", str(script)]
    found = CliRunner().invoke(cli, arguments)
    assert found.exit_code == 0
    assert "nothing to reproduce" in found.output
    assert not script.exists()


def test_a_misspelt_verdict_is_named_as_it_is_typed() -> None:
    found = CliRunner().invoke(cli, ["verify", "article", "--allow", "disagre"])
    assert "did you mean 'disagree'?" in found.output


def test_columns_say_how_wide_a_table_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("80", "120"):
        monkeypatch.setenv("COLUMNS", columns)
        found = CliRunner().invoke(cli, ["verify", "mlp", "--backend", "numpy,jax", "--dtype", "float64"])
        assert all(len(line) <= int(columns) for line in found.output.splitlines() if "│" in line or "floors" in line)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (({"torch": lambda p, b: p["w"]}, torch.nn.Linear(2, 2)), "from_module"),
        (({"torch": lambda p, b: (p["w"] ** 2).sum()}, {"w": [1.5, 2.5]}), "give np.array"),
        (({"torch": lambda p, b: (p["weight"] ** 2).sum()}, {"w": np.ones(3)}), "params has w"),
        ((gw.Candidate("numpy", gradient=lambda p, b: {"w": p["w"]}), {"w": np.ones(3)}), "loss, gradient=...)"),
    ],
)
def test_an_error_has_the_line_to_type(given: Any, said: str) -> None:
    try:
        text = "\n".join(row.message for row in gw.verify(*given, dtypes="float64").rows)
    except gw.GradwitnessError as error:
        text = str(error)
    assert said in text


def test_health_of_a_module_says_how_to_take_it() -> None:
    with pytest.raises(gw.GradwitnessError, match="from_module"):
        gw.health(torch.nn.Linear(3, 2), torch.randn(4, 3))


def test_a_loss_that_is_constant_by_itself_is_told_of_cotangents() -> None:
    x = {"x": np.random.default_rng(0).normal(size=(4, 5))}
    report = gw.verify({"torch": lambda p, b: p["x"].softmax(-1).sum()}, x, dtypes="float64", capture="never")
    assert all('cotangent="random"' in row.message for row in report.rows if row.verdict == "inconclusive")


# A second trial


X, W = np.random.default_rng(0).normal(size=(8, 3)), np.random.default_rng(1).normal(size=(4, 3))


def in_torch(p: Any, b: Any) -> Any:
    return torch.tanh(b["x"] @ p["w"].T).mean()


def in_jax(p: Any, b: Any) -> Any:
    return jnp.tanh(b["x"] @ p["w"].T).mean()


def by_hand(p: Any, b: Any) -> Any:
    y = np.tanh(b["x"] @ p["w"].T)
    return {"w": ((1 - y**2) / y.size).T @ b["x"]}


def test_a_gradient_in_float32_of_params_in_float64_is_compared_in_float32() -> None:
    params, batch = {"w": W}, {"x": X}
    with jax.enable_x64(False):
        theirs = jax.grad(in_jax)(params, batch)
    gw.assert_gradients_close(by_hand(params, batch), theirs, loss={"jax": in_jax}, params=params, batch=batch)
    off = {"w": theirs["w"] * np.float32(1 + 1e-4)}
    with pytest.raises(AssertionError, match="theirs is off from the derivative"):
        gw.assert_gradients_close(by_hand(params, batch), off, loss={"jax": in_jax}, params=params, batch=batch)


@pytest.mark.parametrize(
    ("several", "line"),
    [
        (lambda p, b: (in_torch(p, b), p["w"]), "lambda params, batch: loss(params, batch)[0]"),
        (lambda p, b: {"loss": in_torch(p, b), "aux": p["w"]}, 'lambda params, batch: loss(params, batch)["loss"]'),
    ],
    ids=["a pair", "a dict"],
)
def test_a_loss_beside_something_else_is_told_how_to_give_it_alone(several: Any, line: str) -> None:
    (row,) = gw.verify({"torch": several}, {"w": W}, {"x": X}, dtypes="float64").rows
    assert line in row.message


def test_a_loss_in_numpy_is_told_where_its_gradient_goes() -> None:
    candidate = 'gw.Candidate("numpy", loss, gradient=gradient)'
    hows: list[dict[str, Any]] = [{}, {"gradient": by_hand}]
    for how in hows:
        with pytest.raises(gw.GradwitnessError) as raised:
            gw.verify(lambda p, b: np.tanh(b["x"] @ p["w"].T).mean(), {"w": W}, {"x": X}, **how)
        assert candidate in str(raised.value)


def test_arguments_that_are_called_as_the_parts_of_the_batch_are_given_those() -> None:
    loss: Any = lambda p, x, y: ((x @ p["w"].T - y) ** 2).mean()  # noqa: E731
    with pytest.raises(gw.GradwitnessError) as raised:
        gw.verify({"torch": loss}, {"w": W, "b": W[0]}, {"x": X, "y": X})
    assert "lambda params, batch: f(params, batch['x'], batch['y'])" in str(raised.value)


def test_a_nan_in_the_batch_is_named() -> None:
    x = X.copy()
    x[2, 1] = np.nan
    (row,) = gw.verify({"torch": in_torch}, {"w": W}, {"x": x}, dtypes="float64").rows
    assert str(row.verdict) == "nonfinite"
    assert "x has 1 of 24 numbers that are NaN or infinite, the first at [2, 1]" in row.message


def test_a_detach_of_all_of_a_leaf_is_named_where_its_gradient_is_missing() -> None:
    loss = lambda p, b: (b["x"] @ p["w"].T).mean() + (p["v"].detach() ** 2).sum()  # noqa: E731
    rows = {row.parameter: row for row in gw.verify({"torch": loss}, {"w": W, "v": W}, {"x": X}).rows}
    assert str(rows["v"].verdict) == "missing"
    assert "it stops where the loss detaches" in rows["v"].message
    assert 'intended={"v": "detached"}' in rows["v"].message


def test_bench_times_a_problem_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import numpy as np\nimport gradwitness as gw\nfrom gradwitness import ops\n"
        "net = gw.Problem('net', lambda p, b: ops.sum(ops.tanh(p['w'])), {'w': np.ones(3)}, {})\n"
    )
    arguments = ["--backend", "numpy", "--processes", "1", "--budget", "0.05"]
    result = CliRunner().invoke(cli, ["bench", f"{tmp_path}/net.py:net", *arguments])
    assert result.exit_code == 0, result.output
    assert "numpy" in result.output


STEEP = (
    "differences tell nothing; log(1 - sigmoid(x)) does so where x is large",
    np.array([[36.0, 0, 0], [0.3, -1.2, 0.4], [1.0, 0.2, -0.5]]),
    np.array([0.0, 1.0, 0.0]),
)


@pytest.mark.parametrize("who", ["torch", "numpy"])
def test_a_right_gradient_of_a_loss_that_rounds_to_a_staircase_is_not_accused(who: str) -> None:
    says, x, y = STEEP

    def of_torch(p: Any, b: Any) -> Any:
        s = torch.sigmoid(b["x"] @ p["w"])
        return -(b["y"] * torch.log(s) + (1 - b["y"]) * torch.log(1 - s)).mean()

    def of_numpy(p: Any, b: Any) -> Any:
        s = 1 / (1 + np.exp(-(b["x"] @ p["w"])))
        return -(b["y"] * np.log(s) + (1 - b["y"]) * np.log(1 - s)).mean()

    def gradient(p: Any, b: Any) -> Any:
        return {"w": b["x"].T @ (1 / (1 + np.exp(-(b["x"] @ p["w"]))) - b["y"]) / len(b["y"])}

    candidates: dict[str, Any] = {
        "torch": {"torch": of_torch},
        "numpy": gw.Candidate("numpy", of_numpy, gradient=gradient),
    }
    params, batch = {"w": np.array([1.0, 2.0, -1.0])}, {"x": x, "y": y}
    (row,) = gw.verify(candidates[who], params, batch, dtypes="float64").rows
    assert str(row.verdict) == "inconclusive"
    assert says in row.message


@pytest.mark.parametrize("what", ["params", "batch"])
def test_lists_of_numbers_are_told_to_be_arrays(what: str) -> None:
    params, batch = {"w": W.tolist() if what == "params" else W}, {"x": X.tolist() if what == "batch" else X}
    (row,) = gw.verify({"torch": in_torch}, params, batch, dtypes="float64").rows
    assert str(row.verdict) == "error"
    assert (
        f"{'w' if what == 'params' else 'x'}: a list holds leaves, each an array: give np.array([...])" in row.message
    )
