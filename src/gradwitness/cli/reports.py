"""A report on its way out: into files, to the terminal, and as the exit status."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from gradwitness.cli.files import Files, goes_aside, made, write
from gradwitness.errors import GradwitnessError
from gradwitness.terminal import show

if TYPE_CHECKING:
    from gradwitness.report import Report

__all__ = ["finish", "show_report"]

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"  # names the file that GitHub Actions shows as a page, in Markdown


def finish(report: Report, files: Files, verbose: bool) -> NoReturn:
    """Write what is asked for, show the table, and exit."""
    aside, script = goes_aside(files), files.get("--repro")
    failed = _kept(report, files)
    show_report(report, verbose, aside)
    if failed is not None:
        raise failed
    if script is not None:
        show(_exported(report, script), err=aside)
    raise SystemExit(0 if report.ok else 1)


def show_report(report: Report, verbose: bool, aside: bool) -> None:
    show(_table(report, verbose, sys.stderr if aside else sys.stdout), err=aside)
    for reason in report.shortfalls():
        show(reason, err=aside)


def _kept(report: Report, files: Files) -> GradwitnessError | None:
    """Write what is asked for, before anything is shown, as whoever reads the table may go away. What failed, if
    anything did, is for after it."""
    failed = None
    texts: dict[str, Callable[[], str]] = {"--json": report.json, "--junit": report.junit}
    texts["--html"] = partial(report.html, made=made())
    for option, text in texts.items():
        try:
            if file := files[option]:
                write(option, file, text() + "\n")
        except GradwitnessError as error:
            failed = failed or error
    if page := os.environ.get(STEP_SUMMARY):
        try:
            _add(Path(page), report.markdown())
        except OSError as error:  # nobody asked for it by an option
            show(f"{STEP_SUMMARY} {page}: cannot be written: {error.strerror}", err=True)
    return failed


def _table(report: Report, verbose: bool, stream: TextIO | None) -> str:
    """As wide as the terminal, and in color, if it goes to one; COLUMNS says how wide anything else is."""
    is_terminal = stream is not None and stream.isatty()
    width = shutil.get_terminal_size().columns if is_terminal or "COLUMNS" in os.environ else None
    return report.table(verbose=verbose, color=is_terminal and "NO_COLOR" not in os.environ, width=width)


def _add(path: Path, text: str) -> None:
    """At the end of what others have written there."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text + "\n")


def _exported(report: Report, script: Path) -> str:
    """What became of the script; that there is none is no reason to exit otherwise."""
    try:
        report.export_repro(script)
    except GradwitnessError as error:
        return f"--repro {script}: {error}"
    return f"{script} shows the first wrong gradient by itself"
