"""`gradwitness diff` and `gradwitness merge`, of files that were written before."""

from __future__ import annotations

from pathlib import Path

import click

from gradwitness.cli.bench import finish_bench
from gradwitness.cli.files import expect_files
from gradwitness.cli.group import cli
from gradwitness.cli.options import FILE, HTML
from gradwitness.cli.reports import finish
from gradwitness.errors import GradwitnessError
from gradwitness.terminal import show

__all__ = ["diff", "merge"]


@cli.command()
@click.argument("old", type=click.Path(path_type=Path), metavar="OLD.json")
@click.argument("new", type=click.Path(path_type=Path), metavar="NEW.json")
def diff(old: Path, new: Path) -> None:
    """Say what changed between two files that verify --json, or bench --json, wrote: verdicts, errors beyond their
    noise floor, times beyond the spreads of both.

    Exits with 1 if something got worse, 0 if not, and 2 for wrong usage.
    """
    from gradwitness.changes import changes, read

    every = changes(read(old), read(new))
    for change in every:
        show(str(change))
    found = [change for change in every if change.worse is not None]
    worse = sum(change.worse is True for change in found)
    show(f"{worse} worse, {len(found) - worse} otherwise changed" if found else "nothing changed")
    raise SystemExit(1 if worse else 0)


@cli.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SHARD.json...")
@click.option("--json", "json_file", **FILE, help='Write what all found here ("-": to standard output).')
@click.option("--junit", "junit_file", **FILE, help="Write the verdicts here in JUnit's XML, which CI systems show.")
@HTML
@click.option("--verbose", is_flag=True, help="A row per gradient, and every figure.")
def merge(
    shards: tuple[Path, ...], json_file: Path | None, junit_file: Path | None, html_file: Path | None, verbose: bool
) -> None:
    """Join what all shards of a run wrote by --json: show its table, and exit, as the whole run would have.

    Exits with 2 for files that are not all shards of one run.
    """
    from gradwitness.changes import read
    from gradwitness.merging import merged
    from gradwitness.report import report_of
    from gradwitness.timing.reading import benchmark_of

    files = {"--json": json_file, "--junit": junit_file, "--html": html_file}
    expect_files(files)
    found = merged({str(file): read(file) for file in shards})
    if "timings" not in found:
        finish(report_of(found), files, verbose)
    if junit_file is not None:
        raise GradwitnessError("--junit: these files are of bench, and JUnit's XML has verdicts")
    finish_bench(benchmark_of(found), files)
