"""`gradwitness bench`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from gradwitness import registry
from gradwitness.cli.files import Files, expect_files, goes_aside, made, write_all
from gradwitness.cli.group import cli
from gradwitness.cli.options import FILE, HTML, NAMES, SHARD, option
from gradwitness.errors import GradwitnessError
from gradwitness.settings import Settings
from gradwitness.shards import Shard
from gradwitness.terminal import show

if TYPE_CHECKING:
    from gradwitness.timing import Benchmark

__all__ = ["bench", "finish_bench"]


@cli.command()
@click.argument("networks", nargs=-1, metavar="[NETWORK|FILE.py:NAME|MODULE:NAME]...")
@click.option("--backend", "backends", **NAMES, help="Only these backends.")
@click.option("--size", "sizes", **NAMES | {"default": ("small",)}, help="Of networks: small, medium, large.")
@click.option(
    "--grow",
    "along",
    metavar="AXIS",
    help="At growing width, depth, batch or sequence, from the first --size on: exponents, and when a setup has paid.",
)
@click.option(
    "--claims", is_flag=True, help="Measure what the literature says of gradients' cost, at medium size (minutes)."
)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Of each candidate (default: the cores).")
@click.option("--budget", type=float, default=1.0, show_default=True, metavar="S", help="Seconds for each time.")
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    metavar="N",
    help="In which each is timed, one after another.",
)
@option("dtypes")
@option("devices")
@option("precision")
@option("seed")
@click.option("--json", "json_file", **FILE, help='Write the times here ("-": to standard output).')
@HTML
@SHARD
def bench(
    networks: tuple[str, ...],
    backends: tuple[str, ...],
    sizes: tuple[str, ...],
    along: str | None,
    claims: bool,
    threads: int | None,
    budget: float,
    processes: int,
    json_file: Path | None,
    html_file: Path | None,
    shard: Shard | None,
    **how: Any,
) -> None:
    """Time forward, backward alone, and both, of NETWORKs (default: mlp, convnet, lstm, transformer) on every backend.

    FILE.py:NAME or MODULE:NAME is your own: a gradwitness.Problem, or a function without arguments that returns
    (candidates, params, batch). Each gradient is verified first, and what does not agree is not timed.

    Exits with 0 if everything was timed, 1 if not, and 2 for wrong usage.
    """
    from gradwitness.bench import grown, timed

    files = {"--json": json_file, "--html": html_file}
    expect_files(files)
    context = click.get_current_context()
    if context.get_parameter_source("dtypes") is not ParameterSource.COMMANDLINE:
        how["dtypes"] = ("float32",)
    settings = Settings(**how, reference="differences")
    measured: dict[str, Any] = {"threads": threads, "budget": budget, "processes": processes}
    if shard is not None and (claims or along is not None):
        raise GradwitnessError("--grow and --claims run as a whole: leave --shard out")
    if claims:
        if networks or along is not None:
            raise GradwitnessError("--claims chooses what it times: leave NETWORKs and --grow out")
        if context.get_parameter_source("sizes") is not ParameterSource.COMMANDLINE:
            sizes = ("medium",)
        _finish_claims(settings, files, backends=backends, sizes=sizes, **measured)
    if along is not None:
        found = grown(networks, along, sizes[0], backends, settings, **measured)
    else:
        found = timed(networks, sizes, backends, settings, **measured, shard=shard)
    finish_bench(found, files)


def finish_bench(found: Benchmark, files: Files) -> NoReturn:
    aside = goes_aside(files)
    write_all(files, {"--json": found.json, "--html": partial(found.html, made=made())})
    show(found.table(), err=aside)
    raise SystemExit(0 if found.ok else 1)


def _finish_claims(
    settings: Settings, files: Files, *, backends: Sequence[str], sizes: Sequence[str], **how: Any
) -> NoReturn:
    """Exits with 0 whatever was found: a claim is no test of the machine."""
    from gradwitness.claims import CLAIMS, claims_json, claims_page, claims_table, put_to_test
    from gradwitness.run.environment import environment

    aside = goes_aside(files)
    found = put_to_test(CLAIMS, settings, backends=backends, sizes=sizes, **how)
    where = environment(backends or registry.backend_names(), settings)
    texts: dict[str, Callable[[], str]] = {"--json": partial(claims_json, where, found)}
    write_all(files, texts | {"--html": partial(claims_page, found, where, made())})
    show(claims_table(found), err=aside)
    raise SystemExit(0)
