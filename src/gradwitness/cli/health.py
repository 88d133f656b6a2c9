"""`gradwitness health`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from gradwitness.cli.files import Files, expect_files, goes_aside, made, write_all
from gradwitness.cli.group import cli
from gradwitness.cli.options import FILE, HTML, NAMES, option
from gradwitness.errors import GradwitnessError
from gradwitness.targets import expected_arguments, is_target, load
from gradwitness.terminal import progress, show

if TYPE_CHECKING:
    from gradwitness.diagnosis import Health

__all__ = ["health"]


@cli.command()
@click.argument("name", metavar="[NETWORK|FILE.py:NAME|MODULE:NAME]", required=False)
@click.option("--compare", is_flag=True, help="Remedies side by side, in networks of 10 and 50 layers (minutes).")
@click.option("--backend", "backends", **NAMES, help="Only these backends.")
@click.option("--dtype", default="float32", show_default=True, metavar="DTYPE", help="In which backends compute.")
@click.option("--device", default="cpu", show_default=True, metavar="DEVICE", help="On which.")
@click.option("--size", default="small", show_default=True, metavar="SIZE", help="Of networks: small, medium, large.")
@option("precision")
@option("seed")
@click.option("--json", "json_file", **FILE, help='Write everything here ("-": to standard output).')
@HTML
def health(
    name: str | None,
    compare: bool,
    backends: tuple[str, ...],
    json_file: Path | None,
    html_file: Path | None,
    size: str,
    **how: Any,
) -> None:
    """Follow activations and gradients through NETWORK, layer by layer, and say what is wrong with right gradients.

    FILE.py:NAME or MODULE:NAME is your own: a gradwitness.Problem, or a function without arguments that returns
    (candidates, params, batch).

    Exits with 0 if nothing was found, 1 if something was, and 2 for wrong usage.
    """
    files = {"--json": json_file, "--html": html_file}
    expect_files(files)
    if compare == (name is not None):
        raise GradwitnessError("name one network, or give --compare alone" if compare else "name a network")
    if compare:
        _finish_comparison(backends, files, **how)
    with progress(1) as shown:
        found = _health(str(name), size, progress=shown.step, backends=backends or None, **how)
    aside = goes_aside(files)
    write_all(files, {"--json": found.json, "--html": partial(found.html, made=made())})
    show(found.table(), err=aside)
    raise SystemExit(0 if found else 1)


def _health(name: str, size: str, **how: Any) -> Health:
    from gradwitness.diagnosis import health as measured
    from gradwitness.networks import sizes
    from gradwitness.problem import Problem

    if not is_target(name):
        return measured(sizes.sized(name, size, seed=how["seed"]), **how)
    found = load(name)
    if isinstance(found, Problem):
        return measured(found, **how)
    candidates, params, batch, further = expected_arguments(name, found, beside="a gradwitness.Problem, or ")
    if unknown := further.keys() - {"wrt"}:
        raise GradwitnessError(f"{name}: health takes no option {', '.join(sorted(unknown))}")
    return measured(candidates, params, batch, name=name.rpartition(":")[2], **further, **how)


def _finish_comparison(backends: Sequence[str], files: Files, *, dtype: str, device: str, **how: Any) -> NoReturn:
    """Exits with 0 if all backends give the same."""
    from gradwitness.diagnosis.comparison import comparison_json, comparison_page, comparison_table, is_apart
    from gradwitness.diagnosis.measuring import chosen_backends
    from gradwitness.diagnosis.remedies import REMEDIES, compared
    from gradwitness.run.environment import environment
    from gradwitness.settings import Settings

    settings = Settings(dtypes=(dtype,), devices=(device,), reference="differences", **how)
    chosen = chosen_backends(backends or None)
    with progress(sum(len(remedy.depths) for remedy in REMEDIES)) as shown:
        found = compared(settings, chosen, progress=shown.step)
    where = environment(chosen, settings)
    texts: dict[str, Callable[[], str]] = {"--json": partial(comparison_json, where, found)}
    aside = goes_aside(files)
    write_all(files, texts | {"--html": partial(comparison_page, found, where, made())})
    show(comparison_table(found), err=aside)
    raise SystemExit(1 if any(map(is_apart, found)) else 0)
