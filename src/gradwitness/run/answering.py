"""In the subprocess: a prepared candidate that answers calls. `isolated` asks."""

from __future__ import annotations

import faulthandler
import os
import pickle
import select
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from threading import Thread
from typing import Any

from gradwitness import registry
from gradwitness.errors import VALUES_ALONE, CaptureError, GradwitnessError
from gradwitness.graph import Graph
from gradwitness.protocol import Capturing, CustomRule, Explaining, Forgetful, Perturbing, Prepared, Primals
from gradwitness.run.crossing import Channel, Held, Raised
from gradwitness.run.custom import observed
from gradwitness.run.failing import first_lines
from gradwitness.run.here import prepare_here

__all__ = ["TELL_WHERE", "answer_calls"]

TELL_WHERE = getattr(signal, "SIGUSR1", 0)  # upon which Python's stack is written down, whatever runs


def answer_calls(channel: int, stacks: int) -> None:
    """Answer what comes on the socket `channel`, until its other end is closed.

    Where Python crashes, and upon TELL_WHERE, its stack goes to the file `stacks`.
    """
    for descriptor in (channel, stacks):
        os.set_inheritable(descriptor, False)
    faulthandler.enable(stacks, all_threads=False)
    faulthandler.register(TELL_WHERE, stacks, all_threads=False)
    Thread(target=_end_with, args=(channel,), daemon=True).start()
    end, answers = Channel(socket.socket(fileno=channel)), Answers()
    os.register_at_fork(after_in_child=end.close)  # a fork of this process must not answer in its place
    with answers:
        while True:
            try:
                request = end.receive()
            except EOFError:
                return
            end.send(_reply(answers, request))


def _end_with(channel: int) -> None:
    """End this process, and those that it started, once the other end is closed: the asking process may have died."""
    watched = select.poll()
    watched.register(channel, 0)  # for nothing but a hang-up
    watched.poll()
    os.killpg(0, signal.SIGKILL)


def _reply(answers: Answers, request: bytes) -> bytes:
    """(an answer or what was Raised, seconds of setup so far), pickled."""
    try:
        name, args, kwargs, released = pickle.loads(request)
        return pickle.dumps((answers.to(name, args, kwargs, released), answers.setup_seconds))
    except BaseException as error:  # noqa: BLE001  # whatever a candidate raises, the other side decides
        return pickle.dumps((Raised.of(error), answers.setup_seconds))


class Answers:
    """One candidate, once it is prepared, and what it gave that stays here."""

    def __init__(self) -> None:
        self._context = ExitStack()
        self._prepared: Prepared | None = None
        self._held: dict[int, Any] = {}
        self._numbers = count()

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.close()

    @property
    def setup_seconds(self) -> float:
        return 0.0 if self._prepared is None else self._prepared.setup_seconds

    def to(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], released: list[int]) -> Any:
        """The answer to one call; what it takes from `Held` is found first, what was released is let go."""
        for number in released:
            self._held.pop(number, None)
        found = [self._held[arg.number] if isinstance(arg, Held) else arg for arg in args]
        own: dict[str, Callable[..., Any]] = {
            "load": self.load,
            "prepare": self.prepare,
            "perturbed_run": self._next,
            "custom_rules": self._custom,
            "why_missing": self._why_missing,
            "is_forgetful": self._is_forgetful,
            "captured": self._captured,
            "apply": self._apply,
        }
        if name in own:
            return own[name](*found, **kwargs)
        result = getattr(self._prepared, name)(*found, **kwargs)
        return self._hold(result) if name in HELD else result

    def load(self, backend: str, precision: str) -> None:
        """Import the framework, and hold its precision from now on."""
        self._context.enter_context(registry.installed(backend).precision(precision))
        registry.backend(backend).devices()

    def prepare(self, sent: bytes, dtype: str, device: str, precision: str) -> tuple[bool, dict[str, str]]:
        """Whether the candidate is `Perturbing`, and the precision settings that it runs under."""
        try:
            candidate, problem = pickle.loads(sent)
        except Exception as error:
            raise GradwitnessError(
                f"the candidate cannot be read in its subprocess ({first_lines(error)}): "
                "functions of a module are sent by name, so that module must be importable from sys.path"
            ) from error
        self._prepared = prepare_here(candidate, problem, dtype, device)
        settings = registry.backend(candidate.backend).settings(precision)
        return isinstance(self._prepared, Perturbing), settings

    def _next(self, iterator: Any) -> Any:
        """The next result; None after the last."""
        return next(iterator, None)

    def _custom(self, primals: Primals) -> tuple[CustomRule, ...] | None:
        assert self._prepared is not None
        return observed(self._prepared, primals)

    def _why_missing(self) -> str:
        return self._prepared.why_missing() if isinstance(self._prepared, Explaining) else ""

    def _is_forgetful(self, primals: Primals) -> bool | None:
        return self._prepared.is_forgetful(primals) if isinstance(self._prepared, Forgetful) else None

    def _captured(self, primals: Primals, *, stops: bool) -> Graph:
        if not isinstance(self._prepared, Capturing):
            raise CaptureError(VALUES_ALONE)
        return self._prepared.captured(primals, stops=stops)

    def _apply(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function, sent by its name, makes of the candidate."""
        return function(self._prepared, *args)

    def _hold(self, result: Any) -> Held:
        handle = Held(next(self._numbers))
        self._held[handle.number] = result
        return handle


HELD = frozenset({"place", "forward", "backward", "forward_backward", "perturbed"})  # whose results stay here
