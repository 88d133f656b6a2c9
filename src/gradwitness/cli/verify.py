"""`gradwitness verify`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gradwitness import registry
from gradwitness.advice import expect_loss
from gradwitness.cli.files import expect_files, goes_aside
from gradwitness.cli.group import cli
from gradwitness.cli.options import FILE, HTML, NAMES, SHARD, settings
from gradwitness.cli.reports import finish, show_report
from gradwitness.errors import GradwitnessError
from gradwitness.settings import OPTIONS, Settings
from gradwitness.shards import Part, Shard
from gradwitness.targets import is_target, load

if TYPE_CHECKING:
    from gradwitness.problem import Problem
    from gradwitness.report import Case

__all__ = ["verify"]

FAST_NETWORKS = ("article", "mlp", "transformer")


def _renamed(context: click.Context, option: click.Parameter, value: Any) -> None:
    if value is not None:
        raise click.UsageError(f"--reference-seconds is now --seconds: give --seconds {value}")


@cli.command()
@click.argument("networks", nargs=-1, metavar="[NETWORK|FILE.py:NAME|MODULE:NAME]...")
@click.option("--ops", is_flag=True, help="Add one small problem per op and differentiable argument.")
@click.option(
    "--backend",
    "backends",
    **NAMES,
    help='Only these backends ("all": every one); a loss of your own runs on these as well.',
)
@click.option("--fast", is_flag=True, help=f"Only {', '.join(FAST_NETWORKS)}, and no compiling backend.")
@settings
@click.option("--reference-seconds", hidden=True, expose_value=False, callback=_renamed)
@click.option("--allow", **NAMES | {"metavar": "VERDICT,..."}, help="Verdicts that pass as well.")
@click.option("--require", **NAMES, help="Backends that must run and agree.")
@click.option("--json", "json_file", **FILE, help='Write the evidence here ("-": to standard output).')
@click.option("--junit", "junit_file", **FILE, help="Write the verdicts here in JUnit's XML, which CI systems show.")
@HTML
@click.option("--repro", "script", **FILE, help="Write a script that shows the first wrong gradient by itself.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help="Networks at a time, each in a process (default: the cores, at most 4).",
)
@SHARD
@click.option("--verbose", is_flag=True, help="A row per gradient, and every figure.")
def verify(
    networks: tuple[str, ...],
    ops: bool,
    backends: tuple[str, ...],
    fast: bool,
    allow: tuple[str, ...],
    require: tuple[str, ...],
    json_file: Path | None,
    junit_file: Path | None,
    html_file: Path | None,
    script: Path | None,
    jobs: int | None,
    shard: Shard | None,
    verbose: bool,
    **how: Any,
) -> None:
    """Judge each gradient of NETWORKs (default: all; an op's name stands for its small problems) on every backend.

    FILE.py:NAME or MODULE:NAME is your own: a gradwitness.Problem; or a function without arguments that returns
    (candidates, params, batch), and perhaps a dict of further options; or one that returns the report of
    gradwitness.verify, such as functools.partial(gradwitness.verify, ...), which gets the options that you give here.

    Exits with 0 if at least one gradient agreed and every other is accepted, 1 if not, 2 for wrong usage, and 130 after
    Ctrl-C.
    """
    from gradwitness.paths import expect_taken
    from gradwitness.problem import Candidate
    from gradwitness.report import joined
    from gradwitness.verdict import expect_verdicts
    from gradwitness.verification import expect_devices
    from gradwitness.work import Work, done

    named = registry.backend_names() if backends == ("all",) else backends
    chosen = _backends(named, fast)
    for name in (*named, *require):
        registry.backend(name)
    for name in () if backends == ("all",) else backends:
        registry.installed(name)  # whoever is named must be there
    expect_verdicts(allow)
    settings = Settings(**how)
    expect_devices(settings.devices, chosen)
    expect_taken({name: Candidate(name) for name in chosen}, settings.paths)
    files = {"--json": json_file, "--junit": junit_file, "--html": html_file, "--repro": script}
    expect_files(files)
    problems, runs = _targets(networks)
    known = tuple(name for name in dict.fromkeys(networks) if not is_target(name))
    zoo = known or ops or not networks
    cases = list(_cases(known or (FAST_NETWORKS if fast else None), ops, settings, chosen)) if zoo else []
    own = [_case(problem, chosen, settings) for problem in problems]
    work = Work(cases, own, runs, _given(settings, () if zoo or problems else backends), jobs)
    numbers: Sequence[int] = ()
    if shard is not None:
        work, numbers = work.shard(shard)
    reports, ended = done(work)
    report = joined(reports)
    report = replace(report, allow=allow, require=(*require, *report.require))
    if shard is not None:
        asked = {"networks": networks, "ops": ops, "fast": fast, "backends": backends, **vars(settings)}
        counts = (len(part.rows) for part in reports)
        report = replace(report, shard=Part(shard, asked, tuple(zip(numbers, counts, strict=False))))
    if ended is not None:
        show_report(report, verbose, goes_aside(files))
        raise ended
    finish(report, files, verbose)


def _backends(named: Sequence[str], fast: bool) -> tuple[str, ...]:
    if named:
        return tuple(named)
    names = registry.backend_names()
    return tuple(n for n in names if not (fast and registry.backend(n).capabilities.compiles))


def _targets(names: Sequence[str]) -> tuple[list[Problem], dict[str, Callable[..., Any]]]:
    """(the problems, the functions by what names them) among what was named."""
    problems: list[Problem] = []
    runs: dict[str, Callable[..., Any]] = {}
    for name in filter(is_target, dict.fromkeys(names)):
        found = load(name)
        if hasattr(found, "named_parameters"):
            expect_loss(found, None)  # a module, which is told the line to type
        if callable(found):
            _expect_to_run_alone(name, found)
            runs[name] = found
        else:
            problems.append(_problem(name, found))
    return problems, runs


def _expect_to_run_alone(name: str, function: Callable[..., Any]) -> None:
    """Raise GradwitnessError for a function that needs to be given something else than options: most likely a loss."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin may not say what it takes
        return
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in positional and p.name not in OPTIONS]
    if needed:
        own = name.rpartition(":")[2]
        raise GradwitnessError(
            f"{name} takes {', '.join(needed)}. If it is a loss, it needs a point: put "
            f'`def problem(): return {{"torch": {own}}}, params, batch` below it (or "jax", or "numpy"), and name '
            "`problem`. Else name a function of no arguments that returns what gradwitness.verify returns"
        )


def _problem(name: str, found: Any) -> Problem:
    from gradwitness.problem import Problem

    if not isinstance(found, Problem):
        raise GradwitnessError(
            f"{name}: expected a gradwitness.Problem, or a function that returns the report of gradwitness.verify, got "
            f"{type(found).__name__}"
        )
    if found.loss is None:
        raise GradwitnessError(f"{name}: this Problem has no loss; name a function that verifies its candidates")
    return found


def _given(settings: Settings, backends: tuple[str, ...]) -> dict[str, Any]:
    """What the command line said of how to verify, as keywords of gradwitness.verify; nothing of what it left open."""
    context = click.get_current_context()
    options = vars(settings)
    said = {name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    given = {name: value for name, value in options.items() if name in said}
    return given | ({"backends": "all" if backends == ("all",) else backends} if backends else {})


def _case(problem: Problem, backends: Sequence[str], settings: Settings) -> Case:
    from gradwitness.problem import Candidate
    from gradwitness.report import Case

    return Case(problem, {name: Candidate(name) for name in backends}, settings)


def _cases(networks: Sequence[str] | None, ops: bool, settings: Settings, backends: Sequence[str]) -> Iterator[Case]:
    """The problems, each with the backends that take part in it."""
    from gradwitness.networks import NETWORKS, network
    from gradwitness.networks.single_ops import op_bundles, op_problems

    compiling = tuple(n for n in backends if registry.backend(n).capabilities.compiles)
    direct = tuple(n for n in backends if n not in compiling)
    if networks is None:
        networks = tuple(NETWORKS)
    seed = settings.seed
    for name in networks:
        single = [] if name in NETWORKS else [p for p in op_problems(seed) if p.name.split(".")[0] == name]
        yield from (_case(problem, backends, settings) for problem in single or [network(name, seed=seed)])
    if ops:
        if direct:
            yield from (_case(problem, direct, settings) for problem in op_problems(seed))
        if compiling:  # a compilation takes seconds: one per family instead of one per op
            yield from (_case(problem, compiling, settings) for problem in op_bundles(seed))
