"""Files are written whole or not at all; what is no file is written to as it stands."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from gradwitness import writing
from gradwitness.errors import GradwitnessError
from gradwitness.writing import expect_writable, write_whole


@contextmanager
def interrupt(at: int) -> Iterator[None]:
    """Ctrl-C before the line of `writing.py` that is the so-manyth to run, counted from 0."""
    lines = itertools.count()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != writing.__file__:
            return None
        if event == "line" and next(lines) == at:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file that Python closes later
@pytest.mark.parametrize(
    "write", [lambda file: write_whole(file, "after"), lambda file: expect_writable("--json", file)]
)
@pytest.mark.parametrize("before", ["before", None])
def test_an_interrupt_at_any_line_leaves_a_whole_file_and_no_other(
    tmp_path: Path, before: str | None, write: Callable[[Path], None]
) -> None:
    file = tmp_path / "report.json"
    for at in itertools.count():
        file.unlink(missing_ok=True)
        if before is not None:
            file.write_text(before)
        try:
            with interrupt(at):
                write(file)
        except KeyboardInterrupt:
            found = {path.name: path.read_text() for path in tmp_path.iterdir()}
            whole = [{} if text is None else {file.name: text} for text in (before, "after")]
            assert found in whole, f"interrupted at line {at}"
        else:
            break
    assert at >= 10


def test_a_new_file_is_as_any_other_and_one_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    umask = os.umask(0o022)
    try:
        write_whole(file, "first")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    file.chmod(0o600)
    write_whole(file, "second")
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("second", 0o600)


@pytest.mark.parametrize("target", ["target.json", "folder/target.json", "missing.json"])
def test_a_link_keeps_pointing_where_it_does(tmp_path: Path, target: str) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(target)
    if "missing" not in target:
        (tmp_path / target).write_text("before")
    write_whole(link, "after")
    assert link.is_symlink()
    assert (tmp_path / target).read_text() == "after"


def test_the_reader_of_a_pipe_gets_it(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_whole(pipe, "text")
    reader.join(10)
    assert read == ["text"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_that_nobody_reads_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwitness.writing.PATIENCE", 0.2)
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(OSError, match="nobody reads from this pipe"):
        write_whole(pipe, "text")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_stays_one(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")
    expect_writable("--json", device)
    write_whole(device, "text")
    assert stat.S_ISCHR(device.stat().st_mode)


def test_a_full_device_is_an_error_and_stays_one() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_whole("/dev/full", "text")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/proc/self/fd/1"])
@pytest.mark.parametrize("redirect", ["| cat", "> out.txt; cat out.txt"])
def test_standard_output_by_any_of_its_names_comes_before_what_is_printed_next(
    tmp_path: Path, name: str, redirect: str
) -> None:
    program = (
        "from gradwitness.writing import *; "
        f"expect_writable('x', {name!r}); write_whole({name!r}, 'json\\n'); print('table')"
    )
    command = f'{sys.executable} -c "{program}" {redirect}'
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("json\ntable\n", "")


def test_a_file_that_a_shell_holds_open_is_written_into(tmp_path: Path) -> None:
    program = "from gradwitness.writing import write_whole; write_whole('/dev/fd/3', 'text')"
    command = f'{sys.executable} -c "{program}" 3> out.txt; cat out.txt'
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("text", "")


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("missing/report.json", "does not exist; create it first"),
        (".", "it is a folder"),
        ("x" * 300, "File name too long"),
        ("/proc/report.json", "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GradwitnessError, match=f"^--json {place}: .*{says}"):
        expect_writable("--json", place)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    expect_writable("--json", tmp_path / "new.json")
    (tmp_path / "old.json").write_text("before")
    expect_writable("--json", tmp_path / "old.json")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"old.json": "before"}
