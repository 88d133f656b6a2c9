"""Labels, and keys of params, come from checkpoints and other people: in a script they are data, whatever they say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradwitness as gw

CALL = 'open("PWNED","w").write("x")'
TEXTS = [
    f'"""\n{CALL}\n"""',
    f"'''\n{CALL}\n'''",
    f'"); {CALL}; print("',
    f"'); {CALL}; print('",
    f'a" if {CALL} else "b',
    f"a' if {CALL} else 'b",
    f"{{{CALL}}}",
    f"\\\n{CALL}\n#",
    f"x\r{CALL}\r",
    f"x\x0c\n{CALL}",
    "{imports}",
    "{0}",
    'v2 "fast"',
    "v2 'fast'",
    "\\",
    "ends in \\",
    "\n",
    "tab\there",
    "größe",
    "\ud800",
    "\u2028x = 1",
    "\x00",
]


def loss(p: Any, b: Any) -> float:
    return float(sum(np.sum(v**2) for v in p.values()))


def wrong(p: Any, b: Any) -> Any:
    return {k: -2 * v for k, v in p.items()}


def right(p: Any, b: Any) -> Any:
    return {k: 2 * v for k, v in p.items()}


def export(folder: Path, label: str = "m", other: str = "other", key: str = "w") -> str:
    by = {label: wrong, other: right}
    candidates = {name: gw.Candidate("numpy", loss, gradient=gradient) for name, gradient in by.items()}
    script = folder / "bug.py"
    gw.verify(candidates, {key: np.array([1.0, 2.0])}, {}).export_repro(script, seconds=0.1)
    return script.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
@pytest.mark.parametrize("where", ["label", "other", "key"])
def test_whatever_a_name_says_it_is_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    script = export(tmp_path, **{where: text})  # which runs it
    assert not (tmp_path / "PWNED").exists()
    assert compile(script, "bug.py", "exec")


def test_an_earlier_script_survives_one_that_does_not_reproduce(tmp_path: Path) -> None:
    script = tmp_path / "bug.py"
    script.write_text("KEEP = 1\n")

    def wrong_here(p: Any, b: Any) -> Any:
        return {k: (-2 if "pytest" in sys.modules else 2) * v for k, v in p.items()}

    report = gw.verify({"m": gw.Candidate("numpy", loss, gradient=wrong_here)}, {"w": np.array([1.0, 2.0])}, {})
    with pytest.raises(gw.GradwitnessError, match="the script was not written, as it does not reproduce the fault"):
        report.export_repro(script)
    assert script.read_text() == "KEEP = 1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["bug.py"]


@pytest.mark.parametrize("place", ["missing/bug.py", ".", "x" * 300, "/proc/bug.py"])
def test_a_place_that_cannot_be_written_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    report = gw.verify({"m": gw.Candidate("numpy", loss, gradient=wrong)}, {"w": np.array([1.0, 2.0])}, {})
    with pytest.raises(gw.GradwitnessError, match="cannot be written"):
        report.export_repro(place)
