"""The example of docs/repro.md: `python -m tests.repro.page` writes its script and its output into the page afresh."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.project.readme import README, blocks

__all__ = ["PAGE", "exported", "shown"]

PAGE = README.parent / "docs" / "repro.md"


def exported(folder: Path) -> Path:
    """The script that the page's example writes, run in this folder as a file."""
    example = folder / "example.py"
    example.write_text(blocks(PAGE)[0])
    subprocess.run([sys.executable, str(example)], check=True, cwd=folder)
    return folder / "bug.py"


def shown(name: str) -> str:
    """What stands in the block after `<!-- name -->`."""
    found = re.search(rf"<!-- {name} -->\n```\w*\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    return found[1]


def _write(name: str, text: str) -> None:
    page = PAGE.read_text()
    block = f"<!-- {name} -->\n```\n{text.rstrip()}\n```"
    PAGE.write_text(re.sub(rf"<!-- {name} -->\n```\n.*?```", lambda _: block, page, flags=re.DOTALL))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        bug = exported(Path(made))
        output = subprocess.run([sys.executable, str(bug)], capture_output=True, text=True, check=False).stdout
        _write("script", bug.read_text())
        _write("output", output)
