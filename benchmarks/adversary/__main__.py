"""`python -m benchmarks.adversary`: every gradient of the corpus before the judge; writes docs/adversary.md anew."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.adversary.kinds import KINDS, corpus
from benchmarks.adversary.measure import Finding, measured
from benchmarks.adversary.page import BLOCKS, counts, totals
from benchmarks.adversary.results import NOW, RESULTS, load, recorded, save
from benchmarks.sensitivity.table import filled

PAGE = Path(__file__).parents[2] / "docs" / "adversary.md"
SAMPLE = 12  # every so many cases, with --quick


@click.command()
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Only these; others stay on record."
)
@click.option("--quick", is_flag=True, help="A sample, in two minutes; say where to write it.")
@click.option("--tables", is_flag=True, help="Run nothing: write the page from the record that is there.")
@click.option("--label", default=NOW, show_default=True, help="The state of the judge, on record.")
@click.option("--results", type=click.Path(path_type=Path, dir_okay=False), default=RESULTS, help="The record.")
@click.option("--page", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=PAGE, help="The page.")
def main(kinds: Sequence[str], quick: bool, tables: bool, label: str, results: Path, page: Path) -> None:
    """Show wrong and right gradients to the judge; print what it accepts and whom it accuses."""
    if quick and not tables and RESULTS.resolve() == results.resolve():
        raise click.UsageError("--quick takes a sample, which is not published: give --results and --page")
    if not tables:
        for kind in kinds or KINDS:  # each is on record before the next begins
            _measure(kind, quick, label, results)
    records = load(results)
    page.write_text(filled(page.read_text(encoding="utf-8"), records, BLOCKS), encoding="utf-8")
    click.echo(counts(records))
    if label in records:
        click.echo(f"\n{totals(records[label])}")


def _measure(kind: str, quick: bool, label: str, results: Path) -> None:
    started = time.monotonic()
    findings = measured(corpus(kind)[:: SAMPLE if quick else 1], progress=_tell)
    save(recorded(findings, quick=quick), label, results, KINDS)
    click.echo(f"{kind}: {len(findings)} gradients, {time.monotonic() - started:.0f} s", err=True)


def _tell(finding: Finding) -> None:
    """What is not as expected, by name, when it is found."""
    for what, is_so in (
        ("FALSE GREEN", finding.is_false_green),
        ("FALSE ALARM", finding.is_false_alarm),
        ("TIMEOUT", finding.counts_as == "timeout"),
        ("CRASH", finding.counts_as == "crashed" and not finding.is_right),
        ("not agreed", finding.demanded and finding.counts_as == "inconclusive"),
    ):
        if is_so:
            click.echo(f"{what}: {finding.case}: {', '.join(finding.verdicts)} {finding.message}")


if __name__ == "__main__":
    sys.exit(main())
