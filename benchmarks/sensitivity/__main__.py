"""`python -m benchmarks.sensitivity`: runs the corpus through every checker and writes docs/sensitivity.md anew."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from benchmarks.sensitivity.results import RESULTS, load, measure, save
from benchmarks.sensitivity.table import filled, readme

PAGE = Path(__file__).parents[2] / "docs" / "sensitivity.md"


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
    page.write_text(filled(page.read_text(encoding="utf-8"), record), encoding="utf-8")
    click.echo(readme(record))


if __name__ == "__main__":
    sys.exit(main())
