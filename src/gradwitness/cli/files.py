"""The files that a command writes, each named by an option."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import click

from gradwitness.cli.group import TYPED
from gradwitness.errors import GradwitnessError
from gradwitness.page import expect_installed
from gradwitness.writing import expect_writable, is_standard_output, write_whole

__all__ = ["Files", "expect_files", "goes_aside", "made", "write", "write_all"]

Files = Mapping[str, Path | None]  # by the option that names it


def expect_files(files: Files) -> None:
    """Raise GradwitnessError where one of these cannot be made or written, or several would go to standard output:
    before there is anything to lose."""
    given = {option: file for option, file in files.items() if file is not None}
    if "--html" in given:
        expect_installed("--html")
    for option, file in given.items():
        expect_writable(option, file)
    if sum(map(is_standard_output, given.values())) > 1:
        raise GradwitnessError(f"{', '.join(files)}: only one of them can go to standard output")
    places = [file.resolve() for file in given.values() if file.is_file() or not file.exists()]
    for file in given.values():
        if places.count(file.resolve()) > 1:
            both = [option for option, other in given.items() if other.resolve() == file.resolve()]
            raise GradwitnessError(f"{' and '.join(both)} name one file, {file}: give each its own")


def goes_aside(files: Files) -> bool:
    """Whether one of these takes standard output, so that what is shown goes to standard error."""
    return any(file is not None and is_standard_output(file) for file in files.values())


def write_all(files: Files, texts: Mapping[str, Callable[[], str]]) -> None:
    """Each text into the file that its option names, if it names one."""
    for option, text in texts.items():
        if file := files[option]:
            write(option, file, text() + "\n")


def write(option: str, path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise GradwitnessError(f"{option} {path}: cannot be written: {error.strerror}") from None


def made() -> dict[str, str]:
    """How a page was made, for its reader."""
    now = datetime.now(UTC)
    return {"command": click.get_current_context().meta[TYPED], "date": f"{now:%Y-%m-%d %H:%M} UTC"}
