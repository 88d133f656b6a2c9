"""Nothing imports a framework before it is needed, and what is imported takes little time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import gradwitness

FRAMEWORKS = ("torch", "jax", "jaxlib")
LATER = ("scipy", "jinja2", "matplotlib")
LIMIT = 3.0  # times what `import numpy` takes
RUNS = 7

LOAD_EVERY_BACKEND = "from gradwitness import registry; [registry.backend(name) for name in registry.backend_names()]"
SHOW_HELP = "import sys; sys.argv = ['gradwitness', '--help']; from gradwitness.__main__ import main; main()"


def imported(code: str, *modules: str) -> set[str]:
    """Those of `modules` that a fresh interpreter has imported after running `code`."""
    known = repr(set(modules))
    report = f"import atexit, sys; atexit.register(lambda: print('imported', *({known} & sys.modules.keys())))"
    run = subprocess.run([sys.executable, "-c", f"{report}\n{code}"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    first, *found = run.stdout.splitlines()[-1].split()
    assert first == "imported"
    return set(found)


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import gradwitness", (*FRAMEWORKS, *LATER)),
        ("import gradwitness.cli", (*FRAMEWORKS, *LATER)),
        (SHOW_HELP, (*FRAMEWORKS, *LATER)),
        (LOAD_EVERY_BACKEND, FRAMEWORKS),
        ("import gradwitness_torch, gradwitness_jax", FRAMEWORKS),
    ],
    ids=["package", "command", "help", "backends", "adapters"],
)
def test_no_framework_is_imported(code: str, modules: tuple[str, ...]) -> None:
    assert imported(code, *modules) == set()


@pytest.mark.parametrize("code", ["import gradwitness", SHOW_HELP, LOAD_EVERY_BACKEND])
def test_an_import_would_be_seen(code: str) -> None:
    assert imported(f"import wave\n{code}", "wave", *FRAMEWORKS) == {"wave"}


def seconds(*commands: list[str]) -> list[float]:
    """The shortest time that each command takes, the commands run in turn so that a busy moment hits all."""
    taken: list[list[float]] = [[] for _ in commands]
    for _ in range(RUNS):
        for command, times in zip(commands, taken, strict=True):
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times.append(time.perf_counter() - started)
    return [min(times) for times in taken]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_startup_takes_at_most_three_times_numpys() -> None:
    script = str(Path(sys.executable).with_name("gradwitness"))
    numpy, package, help_text = seconds(python("import numpy"), python("import gradwitness"), [script, "--help"])
    print(f"of import numpy ({numpy:.3f} s): import gradwitness {package / numpy:.2f}, --help {help_text / numpy:.2f}")
    assert package <= LIMIT * numpy
    assert help_text <= LIMIT * numpy


def test_a_slow_start_would_be_seen() -> None:
    again = f"import subprocess\nfor _ in range({int(LIMIT) + 1}): subprocess.run({python('import numpy')})"
    numpy, started = seconds(python("import numpy"), python(again))  # both slow down together on a busy machine
    assert started > LIMIT * numpy


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("from gradwitness.verify import Settings", "Settings is in gradwitness.settings"),
        ("from gradwitness.verify.settings import Settings", "Settings is in gradwitness.settings"),
        ("import gradwitness.verify", "verify_problems in gradwitness.verification"),
    ],
)
def test_the_package_that_was_renamed_says_where_its_names_are(code: str, says: str) -> None:
    with pytest.raises(ImportError, match=says):
        exec(code)  # noqa: S102  # an import as a user writes it
    assert callable(gradwitness.verify)
