"""`python -m benchmarks.sensitivity`: runs the corpus through every checker and writes docs/sensitivity.md anew, and
the README's table `sensitivity`, where it has one."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from benchmarks.sensitivity.results import RESULTS, load, measure, save
from benchmarks.sensitivity.table import BLOCKS, README_BLOCKS, filled, has_blocks, short_table

ROOT = Path(__file__).parents[2]
PAGE, README = ROOT / "docs" / "sensitivity.md", ROOT / "README.md"


@click.command()
@click.option("--quick", is_flag=True, help="A sample, in a minute; say where to write it.")
@click.option("--tables", is_flag=True, help="Run nothing: write the page from the record that is there.")
@click.option("--results", type=click.Path(path_type=Path, dir_okay=False), default=RESULTS, help="The record.")
@click.option("--page", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=PAGE, help="The page.")
def main(quick: bool, tables: bool, results: Path, page: Path) -> None:
    """Show planted faults and correct layers to each checker; print the short table of the README."""
    if quick and not tables and RESULTS.resolve() == results.resolve():
        raise click.UsageError("--quick takes a sample, which is not published: give --results and --page")
    if not tables:
        started = time.monotonic()
        save(measure(quick=quick, progress=lambda text: click.echo(text, err=True)), results)
        click.echo(f"{time.monotonic() - started:.0f} s", err=True)
    record = load(results)
    page.write_text(filled(page.read_text(encoding="utf-8"), record, BLOCKS), encoding="utf-8")
    if page.resolve() == PAGE.resolve() and has_blocks(text := README.read_text(encoding="utf-8"), README_BLOCKS):
        README.write_text(filled(text, record, README_BLOCKS), encoding="utf-8")
    click.echo(short_table(record))


if __name__ == "__main__":
    sys.exit(main())
