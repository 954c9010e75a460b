"""Processes of benchmarks start, answer, and never stay."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from reliable.bench.child import ROLES
from reliable.bench.children import Child, ChildFailed
from reliable.bench.options import Bounds
from tests.support.commands import ROOT

pytestmark = pytest.mark.usefixtures("no_leaks")


def test_a_child_answers_each_line_and_ends_with_its_owner() -> None:
    """The whole protocol."""
    with Child("peer-server", stage="rep") as server:
        assert server.url.startswith("tcp://127.0.0.1:")
        with Child("peer-client", caller="req", url=server.url, body_bytes=3) as client:
            for calls in (1, 4):
                found = client.ask(calls=calls)
                assert len(found["each_ns"]) == calls and found["whole_ns"] >= sum(found["each_ns"]) > 0
    for child in (server, client):
        with pytest.raises(ProcessLookupError):
            os.kill(child.pid, 0)
        child.close()


def test_what_goes_wrong_in_a_child_is_one_line_here() -> None:
    """A traceback of another process, or a time limit, says nothing."""
    with Child("peer-server", stage="nobody") as child, pytest.raises(ChildFailed, match="KeyError: 'nobody'"):
        child.ready()


def test_a_child_that_ends_is_told_from_one_that_is_slow() -> None:
    """The first needs a look at the program, the second at the machine."""
    with Child("peer-server", stage="rep") as child:
        child.ready()
        with pytest.raises(ChildFailed, match=r"said nothing for 0\.01 s"):
            child.answer(0.01)
        os.kill(child.pid, 9)
        with pytest.raises(ChildFailed, match="ended"):
            child.answer(20)


def test_a_child_ends_when_its_input_does() -> None:
    """So that none stays when the command was killed."""
    command = [sys.executable, "-m", "reliable.bench.child", "broker", "{}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdin is not None
        assert b"tcp://127.0.0.1:" in process.stdout.readline()
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_there(role: str) -> None:
    """They are named by text, which no type checker reads."""
    module, _, name = ROLES[role].partition(":")
    __import__(module)
    assert callable(getattr(sys.modules[module], name))


def test_rounds_end_by_number_or_by_time_and_the_first_is_always_made() -> None:
    """One million rounds must not mean one week, and a median of nothing is no figure."""
    assert list(Bounds(rounds=3, seconds=60).numbers()) == [0, 1, 2]
    assert list(Bounds(rounds=1_000_000, seconds=1e-9).numbers()) == [0]
