"""The sessions of this project: `nox -l` lists them, `nox -s NAME` runs one, arguments follow `--`.

torch takes 1.5 GB, so the sessions that need it share one environment, which session `environment` makes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"  # the first with `requires`
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "types", "tests", "verify"]

ROOT = Path(__file__).parent
CONSTRAINTS = ROOT / "constraints.txt"
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
BACKENDS = PYPROJECT["project"]["entry-points"]["gradwitness.backends"]
PACKAGES = [ROOT / folder for folder in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]


@nox.session(requires=["environment"], venv_backend="none")
def verify(session: nox.Session) -> None:
    """Verify every network with every backend; arguments are those of `gradwitness verify`."""
    run(session, "gradwitness", "verify", *session.posargs)


@nox.session(requires=["environment"], venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the tests, in several processes; arguments are pytest's."""
    session.env["OMP_NUM_THREADS"] = "1"  # torch's threads would wait for each other where processes share the cores
    run(session, "pytest", "--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal", *session.posargs)


@nox.session(requires=["environment"], venv_backend="none")
def bench(session: nox.Session) -> None:
    """Time the backward passes; arguments are pytest's."""
    run(session, "pytest", "--benchmark-only", *session.posargs)


@nox.session(requires=["environment"], venv_backend="none")
def sensitivity(session: nox.Session) -> None:
    """Show planted faults to gradwitness, gradcheck and check_grads, and write docs/sensitivity.md (minutes)."""
    session.env["OMP_NUM_THREADS"] = "1"  # what is timed is small: threads only wait for each other
    run(session, "python", "-m", "benchmarks.sensitivity", *session.posargs)


@nox.session(requires=["environment"], venv_backend="none")
def adversary(session: nox.Session) -> None:
    """Try to fool the judge of losses of one's own, and write docs/adversary.md (a quarter of an hour)."""
    session.env["OMP_NUM_THREADS"] = "1"
    run(session, "python", "-m", "benchmarks.adversary", *session.posargs)


@nox.session(requires=["environment"], venv_backend="none", default=False)
def sixteen_bits(session: nox.Session) -> None:
    """Plant factors in 16-bit kernels, count right ones that are accused, and write docs/sixteen-bits.md (an hour)."""
    session.env["OMP_NUM_THREADS"] = "1"
    run(session, "python", "-m", "benchmarks.sixteen_bits", *session.posargs)


@nox.session(reuse_venv=True, default=False)
def models(session: nox.Session) -> None:
    """Verify published architectures of `transformers` on every backend, and write docs/models.md (minutes)."""
    install(session, "--editable", ".[torch,jax]", *group("models"))
    session.env["OMP_NUM_THREADS"] = "1"
    session.run("python", "-m", "benchmarks.models", *(session.posargs or ["--write"]))


@nox.session(requires=["environment"], default=False)
def upgrade(session: nox.Session) -> None:
    """Verify and time with other versions than those pinned, and say what changed: `-- torch==X [NETWORK ...]`.

    It fails if something got worse. Without networks it verifies all, and times those that `gradwitness bench` does.
    """
    versions = [argument for argument in session.posargs if "==" in argument]
    networks = [argument for argument in session.posargs if "==" not in argument]
    if not versions:
        session.error("name what to upgrade, and to which version: nox -s upgrade -- torch==X [NETWORK ...]")
    folder = Path(session.create_tmp()).resolve()
    proposed = folder / "proposed.txt"
    proposed.write_text(repinned(CONSTRAINTS.read_text(), versions))
    session.install("--constraint", str(proposed), "--editable", ".[torch,jax]")
    worse = []
    for command in (["verify"], ["bench", "--processes", "5"]):
        old, new = (folder / f"{command[0]}-{name}.json" for name in ("pinned", "proposed"))
        run(session, "gradwitness", *command, *networks, "--json", str(old), success_codes=[0, 1])
        session.run("gradwitness", *command, *networks, "--json", str(new), stderr=None, success_codes=[0, 1])
        try:
            run(session, "gradwitness", "diff", str(old), str(new))
        except nox.command.CommandFailed:
            worse.append(command[0])
    if worse:
        session.error(f"something got worse with {' '.join(versions)}: see diff, of {' and of '.join(worse)}")


@nox.session(reuse_venv=True, default=False)
def dask(session: nox.Session) -> None:
    """Let a local Dask cluster, and loky, carry the cells of `gradwitness.verify`; arguments are pytest's."""
    install(session, "--editable", ".[torch,jax]", *group("test"), *group("dask"))
    session.env["OMP_NUM_THREADS"] = "1"
    session.run("pytest", "tests/dask", *session.posargs)


@nox.session(requires=["environment"], venv_backend="none")
def types(session: nox.Session) -> None:
    """Check the types; arguments are mypy's."""
    run(session, "mypy", *session.posargs)


@nox.session(reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Check style, formatting and the walls between the packages."""
    install(session, *group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    folders = {folder.parent for folder in PACKAGES}
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": os.pathsep.join(map(str, sorted(folders)))})


@nox.session(requires=["build"], default=False)
def package(session: nox.Session) -> None:
    """Install the wheel in a fresh environment and try it, without the frameworks and then with them."""
    (wheel,) = (ROOT / "dist").glob("*.whl")
    expect_contents(session, wheel)
    session.chdir(session.create_tmp())  # away from the sources

    install(session, str(wheel), "pytest")
    expect_backends(session)
    expect_plugin(session)
    session.run("gradwitness", "--help", silent=True)
    session.run("gradwitness", "verify", "article", "--json", "report.json")
    expect_verdicts(session, Path("report.json"), agree={"numpy"})
    said = session.run("gradwitness", "verify", "article", "--require", "torch", silent=True, success_codes=[1])
    if "required" not in str(said):
        session.error(f"--require torch without torch must fail because it is required; it said:\n{said}")

    said = session.run("gradwitness", "verify", "article", "--html", "page.html", silent=True, success_codes=[2])
    if 'pip install "gradwitness[html]"' not in str(said):
        session.error(f"--html without jinja2 and matplotlib must say how to install them; it said:\n{said}")

    install(session, f"{wheel}[torch,jax,html]")
    expect_backends(session)
    files = ("--json", "report.json", "--html", "page.html")
    session.run("gradwitness", "verify", "article", *files, "--require", ",".join(BACKENDS))
    expect_verdicts(session, Path("report.json"), agree=set(BACKENDS))
    if "</html>" not in Path("page.html").read_text(encoding="utf-8"):
        session.error("--html wrote no page")


@nox.session(requires=["environment"], default=False)
def repro(session: nox.Session) -> None:
    """Export the script of a fault planted in torch, and run it in a fresh environment with torch alone."""
    script = Path(session.create_tmp(), "bug.py")
    run(session, "python", "-m", "tests.repro.faulty_torch", str(script))
    install(session, "torch", "numpy")
    session.run("python", "-I", str(script), success_codes=[1])
    script.write_text(script.read_text().replace("(1 - y)", "(1 - y * y)"))
    session.run("python", "-I", str(script))


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build the sdist, and from it the wheel, into dist/."""
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    install(session, *group("build"))
    session.run("python", "-m", "build", "--no-isolation", "--outdir", "dist", silent=True)


@nox.session(reuse_venv=True, default=False)
def environment(session: nox.Session) -> None:
    """Make the environment that most sessions share, again when what it is made from changed."""
    made_from = hashlib.sha256(CONSTRAINTS.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    record = Path(session.virtualenv.location, "made-from.sha256")
    if record.is_file() and record.read_text() == made_from:
        return
    session.log("Installing torch and jax, once: 1.5 GB, some minutes on a slow line.")
    install(session, "--editable", ".[torch,jax,html]", *group("test"), *group("types"))
    record.write_text(made_from)


def run(session: nox.Session, program: str, *arguments: str, success_codes: Sequence[int] = (0,)) -> None:
    """Run a program of the shared environment; what it writes on standard error stays apart."""
    folder = session.cache_dir.parent / "environment" / ("Scripts" if os.name == "nt" else "bin")
    path = os.pathsep.join([str(folder), os.environ.get("PATH", "")])
    session.run(
        str(folder / program), *arguments, env={"PATH": path}, external=True, stderr=None, success_codes=success_codes
    )


def install(session: nox.Session, *requirements: str) -> None:
    """Install at the versions that constraints.txt pins."""
    session.install("--constraint", str(CONSTRAINTS), *requirements)


def repinned(constraints: str, versions: Sequence[str]) -> str:
    """The pins with these versions in place of those that they have for the same packages."""
    named = {package_of(version): version for version in versions}
    kept = [line for line in constraints.splitlines() if package_of(line) not in named]
    return "\n".join([*kept, *named.values()]) + "\n"


def package_of(pin: str) -> str:
    """The package of `name==version`, in the form in which names are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", pin.partition("==")[0].strip()).lower()


def group(name: str) -> tuple[str, ...]:
    """The requirements of a dependency group of pyproject.toml."""
    return nox.project.dependency_groups(PYPROJECT, name)


def expect_contents(session: nox.Session, wheel: Path) -> None:
    """The wheel has every file of every package, and besides only its metadata."""
    expected = {
        file.relative_to(package.parent).as_posix()
        for package in PACKAGES
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    if found != expected:
        session.error(f"{wheel.name} lacks {sorted(expected - found)} and should not have {sorted(found - expected)}")


def expect_backends(session: nox.Session) -> None:
    """Every declared backend loads from the installed package."""
    code = "from gradwitness.registry import *; print(*(backend(name).name for name in backend_names()))"
    loaded = str(session.run("python", "-c", code, silent=True)).split()
    if sorted(loaded) != sorted(BACKENDS):
        session.error(f"loaded backends {loaded}, expected {list(BACKENDS)}")


def expect_plugin(session: nox.Session) -> None:
    """pytest finds the installed plugin by itself."""
    test = "import gradwitness.networks as n\ndef test_it(verify_gradients): verify_gradients(n.network('article'))\n"
    Path("test_article.py").write_text(test)
    said = session.run(
        "pytest", "-c", os.devnull, "--rootdir=.", "--gradwitness-json=kept", "test_article.py", silent=True
    )
    if "gradwitness: 4 gradients in 1 test: 4 agree" not in str(said) or len(list(Path("kept").iterdir())) != 1:
        session.error(f"the pytest plugin did not verify and keep what it should; pytest said:\n{said}")


def expect_verdicts(session: nox.Session, report: Path, *, agree: set[str]) -> None:
    """Every backend has rows: `agree` in those named, `unsupported` in the others."""
    found = {(row["backend"], row["verdict"]) for row in json.loads(report.read_text())["rows"]}
    expected = {(name, "agree" if name in agree else "unsupported") for name in BACKENDS}
    if found != expected:
        session.error(f"verdicts {sorted(found)}, expected {sorted(expected)}")
