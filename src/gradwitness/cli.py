"""The `gradwitness` command."""

from __future__ import annotations

import inspect
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click
from click.core import ParameterSource

from gradwitness import __name__ as package
from gradwitness import registry
from gradwitness.advice import expect_loss
from gradwitness.errors import GradwitnessError
from gradwitness.page import expect_installed
from gradwitness.settings import OPTIONS, Settings, names
from gradwitness.shards import Part, Shard, shard_from
from gradwitness.targets import is_target, load
from gradwitness.terminal import INTERRUPTED, show
from gradwitness.writing import expect_writable, is_standard_output, write_whole

if TYPE_CHECKING:
    from gradwitness.problem import Problem
    from gradwitness.report import Case, Report
    from gradwitness.timing import Benchmark

__all__ = ["cli"]

Command = Callable[..., Any]
Files = Mapping[str, Path | None]  # by the option that names it

FAST_NETWORKS = ("article", "mlp", "transformer")
NARROWEST = 20  # columns of text
TYPED = f"{package}.typed"  # what the command line was, for whoever reads a page
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"  # names the file that GitHub Actions shows as a page, in Markdown


class _Failure(click.ClickException):
    """An error of ours as one message and exit status 2."""

    exit_code = 2


class _Commands(click.Group):
    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        context.meta[TYPED] = shlex.join((package, *args))
        return super().parse_args(context, args)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except GradwitnessError as error:
            raise _Failure(str(error)) from None
        except KeyboardInterrupt:  # click would say that it was aborted, and exit with 1
            click.echo("interrupted", err=True)
            raise SystemExit(INTERRUPTED) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=package)
def cli() -> None:
    """Is this gradient right, and if not, who is wrong, where, and why?"""


def _read_by(reads: Callable[[str], Any]) -> dict[str, Any]:
    """What click is told of an option whose text this function reads, or refuses."""

    def read(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        try:
            return reads(value) if isinstance(value, str) else value
        except GradwitnessError as error:
            raise click.BadParameter(str(error)) from None

    return {"type": click.UNPROCESSED, "callback": read}


FILE: dict[str, Any] = {"type": click.Path(path_type=Path), "metavar": "FILE"}
HTML = click.option("--html", "html_file", **FILE, help="Write everything as a page here (needs gradwitness[html]).")
NAMES = {"default": (), "metavar": "A,B", **_read_by(names)}


_shard = click.option(
    "--shard",
    metavar="i/n",
    default=None,
    help="Only the i-th of n shares, for n machines; gradwitness merge joins what they write by --json.",
    **_read_by(shard_from),
)


def _option(name: str) -> Callable[[Command], Command]:
    """The option that gives one of the Settings, with the default that it has there."""
    option = OPTIONS[name]
    known: dict[Any, dict[str, Any]] = {str: {"type": click.Choice(option.choices)}, float: {"type": float}}
    how = known.get(option.reads) or _read_by(option.reads)
    shown: dict[str, Any] = {"metavar": option.metavar, "help": option.help, "show_default": True}
    return click.option(option.flag, name, default=getattr(Settings, name), **shown, **how)


def _settings(command: Command) -> Command:
    """With an option for each of the Settings."""
    for name in reversed(OPTIONS):
        command = _option(name)(command)
    return command


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
@_settings
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
@_shard
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
    _expect_files(files)
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
        _show_report(report, verbose, _goes_aside(files))
        raise ended
    _finish(report, files, verbose)


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
@_option("dtypes")
@_option("devices")
@_option("precision")
@_option("seed")
@click.option("--json", "json_file", **FILE, help='Write the times here ("-": to standard output).')
@HTML
@_shard
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

    FILE.py:NAME or MODULE:NAME is your own: a function without arguments that returns (candidates, params, batch). Each
    gradient is verified first, and what does not agree is not timed.

    Exits with 0 if everything was timed, 1 if not, and 2 for wrong usage.
    """
    from gradwitness.bench import grown, timed

    files = {"--json": json_file, "--html": html_file}
    _expect_files(files)
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
    _finish_bench(found, files)


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
    _expect_files(files)
    found = merged({str(file): read(file) for file in shards})
    if "timings" not in found:
        _finish(report_of(found), files, verbose)
    if junit_file is not None:
        raise GradwitnessError("--junit: these files are of bench, and JUnit's XML has verdicts")
    _finish_bench(benchmark_of(found), files)


def _expect_files(files: Files) -> None:
    """Raise GradwitnessError where one of these cannot be made or written, or several would go to standard output:
    before there is anything to lose."""
    given = {option: file for option, file in files.items() if file is not None}
    if "--html" in given:
        expect_installed("--html")
    for option, file in given.items():
        expect_writable(option, file)
    if sum(map(is_standard_output, given.values())) > 1:
        raise GradwitnessError(f"{', '.join(files)}: only one of them can go to standard output")


def _goes_aside(files: Files) -> bool:
    """Whether one of these takes standard output, so that what is shown goes to standard error."""
    return any(file is not None and is_standard_output(file) for file in files.values())


def _finish(report: Report, files: Files, verbose: bool) -> NoReturn:
    """Write what is asked for, show the table, and exit."""
    aside, script = _goes_aside(files), files.get("--repro")
    failed = _kept(report, files)
    _show_report(report, verbose, aside)
    if failed is not None:
        raise failed
    if script is not None and not report.ok:
        show(_exported(report, script), err=aside)
    raise SystemExit(0 if report.ok else 1)


def _show_report(report: Report, verbose: bool, aside: bool) -> None:
    show(_table(report, verbose, sys.stderr if aside else sys.stdout), err=aside)
    for reason in report.shortfalls():
        show(reason, err=aside)


def _finish_bench(found: Benchmark, files: Files) -> NoReturn:
    aside = _goes_aside(files)
    _write_all(files, {"--json": found.json, "--html": partial(found.html, made=_made())})
    show(found.table(), err=aside)
    raise SystemExit(1 if any(timing.why for timing in found) else 0)


def _finish_claims(
    settings: Settings, files: Files, *, backends: Sequence[str], sizes: Sequence[str], **how: Any
) -> NoReturn:
    """Exits with 0 whatever was found: a claim is no test of the machine."""
    from gradwitness.claims import CLAIMS, claims_json, claims_page, claims_table, put_to_test
    from gradwitness.run.environment import environment

    aside = _goes_aside(files)
    found = put_to_test(CLAIMS, settings, backends=backends, sizes=sizes, **how)
    where = environment(backends or registry.backend_names(), settings)
    texts: dict[str, Callable[[], str]] = {"--json": partial(claims_json, where, found)}
    _write_all(files, texts | {"--html": partial(claims_page, found, where, _made())})
    show(claims_table(found), err=aside)
    raise SystemExit(0)


def _write_all(files: Files, texts: Mapping[str, Callable[[], str]]) -> None:
    """Each text into the file that its option names, if it names one."""
    for option, text in texts.items():
        if file := files[option]:
            _write(option, file, text() + "\n")


def _made() -> dict[str, str]:
    """How a page was made, for its reader."""
    now = datetime.now(UTC)
    return {"command": click.get_current_context().meta[TYPED], "date": f"{now:%Y-%m-%d %H:%M} UTC"}


def _kept(report: Report, files: Files) -> GradwitnessError | None:
    """Write what is asked for, before anything is shown, as whoever reads the table may go away. What failed, if
    anything did, is for after it."""
    failed = None
    texts: dict[str, Callable[[], str]] = {"--json": report.json, "--junit": report.junit}
    texts["--html"] = partial(report.html, made=_made())
    for option, text in texts.items():
        try:
            if file := files[option]:
                _write(option, file, text() + "\n")
        except GradwitnessError as error:
            failed = failed or error
    if page := os.environ.get(STEP_SUMMARY):
        try:
            _add(Path(page), report.markdown())
        except OSError as error:  # nobody asked for it by an option
            show(f"{STEP_SUMMARY} {page}: cannot be written: {error.strerror}", err=True)
    return failed


def _table(report: Report, verbose: bool, stream: TextIO | None) -> str:
    """As wide as the terminal, and in color, if it goes to one."""
    is_terminal = stream is not None and stream.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else None
    return report.table(verbose=verbose, color=is_terminal and "NO_COLOR" not in os.environ, width=width)


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


def _exported(report: Report, script: Path) -> str:
    """What became of the script; that there is none is no reason to exit otherwise."""
    try:
        report.export_repro(script)
    except GradwitnessError as error:
        return f"--repro {script}: {error}"
    return f"{script} shows the first wrong gradient by itself"


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


def _write(option: str, path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise GradwitnessError(f"{option} {path}: cannot be written: {error.strerror}") from None


def _add(path: Path, text: str) -> None:
    """At the end of what others have written there."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text + "\n")


def _rate(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise click.BadParameter(f"the rate must be positive and finite, got {value:g}")
    return value


def _problem_to_explain(name: str) -> Problem:
    """The Problem that was named. Raises GradwitnessError for what is none, or has no loss of the vocabulary."""
    from gradwitness.problem import Problem

    found = load(name)
    if isinstance(found, Problem) and found.loss is not None:
        return found
    what = "a Problem without a loss" if isinstance(found, Problem) else type(found).__name__
    raise GradwitnessError(
        "explain takes a network (`gradwitness list networks`), or a gradwitness.Problem whose loss is written over "
        f"gradwitness.ops; {name} is {what}"
    )


@cli.command()
@click.argument("name", metavar="NETWORK")
@click.option("--step", "rate", type=float, callback=_rate, metavar="RATE", help="Take a step of gradient descent.")
@click.option("--svg", "svg_file", **FILE, help="Draw the graph into a file.")
@_option("seed")
def explain(name: str, rate: float | None, svg_file: Path | None, seed: int) -> None:
    """Print the whole pass of NETWORK as on paper: every value, local derivative, cotangent and gradient.

    NETWORK is a name of `gradwitness list networks`, or FILE:NAME of a gradwitness.Problem.
    """
    from gradwitness.explain import explain as explained
    from gradwitness.networks import NETWORKS, PUBLISHED, network
    from gradwitness.report.explanation import text

    if svg_file is not None:
        expect_writable("--svg", svg_file)
    problem = _problem_to_explain(name) if is_target(name) else network(name, seed=seed)
    explanation = explained(problem, rate=rate, published=PUBLISHED.get(name, ()))
    summary = name if is_target(name) else _summary(NETWORKS[name])
    if svg_file is not None:
        from gradwitness.report.drawing import svg

        _write("--svg", svg_file, svg(explanation, summary))
    show(text(explanation, summary))


@cli.command("list")
@click.argument("what", type=click.Choice(["networks", "backends", "ops"]))
def list_(what: str) -> None:
    """List the networks, the backends (with versions and devices), or the ops."""
    from tabulate import tabulate

    headers, rows = {"networks": _networks, "backends": _backend_rows, "ops": _ops}[what]()
    taken = sum(max(len(str(cell)) for cell in column) + 2 for column in list(zip(headers, *rows, strict=True))[:-1])
    room = max(shutil.get_terminal_size().columns - taken, NARROWEST)  # the last column is text, which may be folded
    widths = [None] * (len(headers) - 1) + [room]
    show(tabulate(rows, headers, tablefmt="simple", disable_numparse=True, maxcolwidths=widths))


def _summary(make: Callable[..., Problem]) -> str:
    """The first line of a network's docstring."""
    return (make.__doc__ or "").split("\n", maxsplit=1)[0]


def _networks() -> tuple[list[str], list[list[Any]]]:
    from gradwitness.networks import NETWORKS, network

    rows = []
    for name, make in NETWORKS.items():
        problem = network(name)
        size = sum(array.size for array in problem.primals.values())
        rows.append([name, len(problem.differentiated), size, _summary(make)])
    return ["network", "tensors", "parameters", "what"], rows


def _backend_rows() -> tuple[list[str], list[list[Any]]]:
    rows = []
    for name in registry.backend_names():
        capabilities = registry.backend(name).capabilities
        missing = registry.missing_modules(name)
        state = f"not installed: {capabilities.install}" if missing else ", ".join(registry.backend(name).devices())
        versions = ", ".join(f"{m} {v}" for m, v in registry.versions(name).items())
        rows.append([name, versions, state, ", ".join(capabilities.dtypes)])
    return ["backend", "versions", "devices", "dtypes"], rows


def _ops() -> tuple[list[str], list[list[Any]]]:
    """Each op, and how each framework runs it: by a function of its own, or as a composition."""
    from gradwitness.ops import OPS

    names = [n for n in registry.backend_names() if not registry.backend(n).capabilities.interpreter]
    capabilities = [registry.backend(name).capabilities for name in names]
    ways = {
        op: ["composed" if op in c.composed else "native" if op in c.ops else "-" for c in capabilities] for op in OPS
    }
    rows = [[op.name, "fused" if op.definition else "elementary", *ways[op.name], op.summary] for op in OPS.values()]
    return ["op", "kind", *names, "what"], rows
