"""The servers and clients of the page about foreign servers run as they stand there, and end as it says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from chaos.process import ChildProcess
from reliable import BrokerLost, BrokerUnreachable, Client, DeadlineExceeded, Outcome
from tests.support.commands import ROOT
from tests.support.ports import free_endpoint

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "without-a-broker.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
REP, REQ, ROUTER, COUNTING, FLP, SEQUENTIAL, SHOTGUN, BROKER, MDP, PPP_WORKER, PPP = BLOCKS
pytestmark = pytest.mark.slow
_PORTS = re.compile(r"tcp://127\.0\.0\.1:\d{4}")
_WAIT_S_MAX = 40.0


class _Places:
    """A free address for each one that the page names, the same in every block of a test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._real: dict[str, str] = {}

    def of(self, named: str) -> str:
        return self._real.setdefault(named, free_endpoint())

    def moved(self, text: str) -> str:
        return _PORTS.sub(lambda found: self.of(found[0]), text)

    def start(self, text: str, *arguments: str) -> ChildProcess:
        """A server of the page as a process, ready."""
        given = [self.of(argument) for argument in arguments]
        return self._stack.enter_context(
            ChildProcess.python("-u", "-c", self.moved(text), *given, ready="^ready$", cwd=ROOT)
        )

    def output(self, text: str) -> str:
        """What a client of the page prints."""
        done = subprocess.run(
            [sys.executable, "-c", self.moved(text)],
            capture_output=True,
            text=True,
            timeout=_WAIT_S_MAX,
            cwd=ROOT,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


_Start = Callable[[_Places], object]
_HERE = "tcp://127.0.0.1:5555"
_THREE = [f"tcp://127.0.0.1:555{number}" for number in (1, 2, 3)]


def _three(places: _Places) -> None:
    for address in _THREE:
        places.start(FLP, address)


def _queue(places: _Places) -> None:
    front, back = places.of(_HERE), places.of("tcp://127.0.0.1:5556")
    command = ("-m", "brokers", "ppp", "--frontend", front, "--backend", back)
    assert " ".join(("python", *command)).replace(front, _HERE).replace(back, "tcp://127.0.0.1:5556") in PAGE
    places._stack.enter_context(ChildProcess.python(*command, ready="listening", cwd=ROOT))
    places.start(PPP_WORKER)


PAIRS: dict[str, tuple[_Start, str, str]] = {
    "req": (lambda places: places.start(REP), REQ, "[b'LAMP']\n"),
    "correlate": (lambda places: places.start(ROUTER), COUNTING, "[b'LAMP']\n"),
    "sequential": (_three, SEQUENTIAL, "[b'LAMP']\n"),
    "shotgun": (_three, SHOTGUN, "[b'LAMP']\n"),
    "mdp": (lambda places: places.start(BROKER), MDP, "[b'LAMP']\n[b'LAMP']\n"),
    "ppp": (_queue, PPP, "[b'LAMP']\n"),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_client_and_server_of_the_page_understand_each_other(pair: str) -> None:
    """Whoever copies them must not be the first to run them."""
    start, client, printed = PAIRS[pair]
    with ExitStack() as stack:
        places = _Places(stack)
        start(places)
        assert places.output(client) == printed


def test_two_dead_servers_of_three_change_nothing() -> None:
    """What the list is for."""
    with ExitStack() as stack:
        places = _Places(stack)
        places.start(FLP, _THREE[2])
        assert places.output(SEQUENTIAL) == "[b'LAMP']\n"


def test_a_server_that_counts_frames_needs_correlate_off() -> None:
    """If it were not so, nobody had to read that part of the page."""
    with ExitStack() as stack:
        places = _Places(stack)
        server = places.start(ROUTER)
        with Client(places.of(_HERE), dialect="req", timeout=2) as client, pytest.raises(BrokerLost) as caught:
            client.request("upper", b"lamp")
        assert caught.value.outcome is Outcome.UNKNOWN
        assert server.wait(_WAIT_S_MAX) == 1, "it fell over the fourth frame"


def test_the_default_dialect_says_that_a_foreign_broker_is_of_no_use_to_it() -> None:
    """At once and as NOT_EXECUTED, not by its deadline."""
    with ExitStack() as stack:
        places = _Places(stack)
        places.start(BROKER)
        with Client(places.of(_HERE), timeout=20) as client, pytest.raises(BrokerUnreachable) as caught:
            client.request("upper", b"lamp")
        assert caught.value.outcome is Outcome.NOT_EXECUTED and caught.value.elapsed_s < 10


@pytest.mark.parametrize("dialect", ["mdp/0.1", "mdp/0.2"])
def test_a_service_that_is_not_there_ends_by_the_deadline(dialect: str) -> None:
    """The protocol has no word for it."""
    with ExitStack() as stack:
        places = _Places(stack)
        places.start(BROKER)
        with Client(places.of(_HERE), dialect=dialect, timeout=0.3) as client, pytest.raises(DeadlineExceeded):
            client.request("lower", b"LAMP", fail_fast=True)
