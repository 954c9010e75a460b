"""``chaos.netns``: packets really vanish, counted by the kernel, and only inside."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest

from chaos import netns
from chaos.injection import NotInjected
from chaos.netns import Drop, Network, host, probe, run_in_namespace
from chaos.process import ChildProcess
from tests.support.injection_report import require

ROOT = Path(__file__).parents[2]

inside = pytest.mark.netns


def _run(program: str, timeout_s: float = 40.0) -> netns.NamespaceRun:
    require(probe())
    argv = [sys.executable, "-c", PRELUDE + textwrap.dedent(program)]
    return run_in_namespace(argv, timeout_s=timeout_s, cwd=ROOT)


PRELUDE = """
import socket, sys
from chaos.injection import FaultUnproven, NotInjected
from chaos.netns import Drop, Network, host

def pair():
    one, other = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
    one.bind((host(1), 7000)); other.bind((host(2), 7000))
    for end in one, other: end.settimeout(0.3)
    return one, other

def passes(source, target, count=1):
    for _ in range(count): source.sendto(b"x", target.getsockname())
    got = 0
    try:
        while got < count: target.recv(10); got += 1
    except TimeoutError: pass
    return got
"""


def test_hosts_are_loopback_addresses() -> None:
    """The machine's own 127.0.0.1 stays out of it."""
    assert (host(1), host(250)) == ("127.0.0.2", "127.0.0.251")
    for number in (0, 251):
        with pytest.raises(ValueError, match="1 to 250"):
            host(number)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, 0.0001])
def test_share_that_would_drop_nothing_or_more_than_all_is_refused(share: float) -> None:
    """A rule that never fires looks like resilience."""
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        Drop(source=host(1), target=host(2), share=share)


@inside
def test_partition_cuts_both_ways_and_heals() -> None:
    """No error for the sender, nothing for the receiver, and afterwards all as before."""
    done = _run("""
        network = Network()
        one, other = pair()
        print(passes(one, other), passes(other, one))
        with network.partition(host(1), host(2)):
            print(passes(one, other), passes(other, one))
        print(passes(one, other), passes(other, one), network.dropped())
    """)
    assert (done.exit_code, done.output.splitlines()) == (0, ["1 1", "0 0", "1 1 2"])


@inside
def test_one_way_cut_leaves_the_other_way_open() -> None:
    """Half a connection is the nastiest fault of all."""
    done = _run("""
        one, other = pair()
        with Network().one_way(host(1), host(2)):
            print(passes(one, other), passes(other, one))
    """)
    assert (done.exit_code, done.output.splitlines()) == (0, ["0 1"])


@inside
def test_loss_takes_about_its_share() -> None:
    """Thirty percent that were three would pass every test."""
    done = _run("""
        network = Network()
        one, other = pair()
        with network.loss(host(1), host(2), 0.3):
            got = sum(passes(one, other, 100) for _ in range(10))
        print(got, network.dropped())
    """)
    assert done.exit_code == 0, done.output
    got, dropped = map(int, done.output.split())
    # The odds that a fair 30 % of 1000 falls outside are below one in a billion.
    assert 600 < got < 800
    assert got + dropped == 1000


@inside
def test_cut_under_which_nothing_was_sent_is_unproven() -> None:
    """A test that passed while nothing happened says nothing."""
    done = _run("""
        try:
            with Network().partition(host(1), host(2)): pass
        except FaultUnproven as error: print("unproven:", error)
    """)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("unproven: no packet was dropped by ip saddr 127.0.0.2")


@inside
def test_error_under_a_cut_heals_it_and_comes_through() -> None:
    """The caller's own error is the one that explains."""
    done = _run("""
        network = Network()
        one, other = pair()
        try:
            with network.partition(host(1), host(2)): raise ZeroDivisionError
        except ZeroDivisionError: print("came through", passes(one, other))
    """)
    assert (done.exit_code, done.output.splitlines()) == (0, ["came through 1"])


@inside
def test_counts_survive_a_change_of_rules() -> None:
    """Each change resets the kernel's counters; the proof must not be reset with them."""
    done = _run("""
        network = Network()
        one, other = pair()
        for drop in (Drop(source=host(1), target=host(2)), Drop(source=host(1), target=host(2), share=1.0)):
            network.set([drop]); passes(one, other, 3)
        network.heal()
        print(network.dropped())
    """)
    assert (done.exit_code, done.output.splitlines()) == (0, ["6"])


@inside
def test_program_that_runs_too_long_is_killed_with_all_it_started() -> None:
    """A namespace that lives on would hold processes for ever."""
    marker = f"netns-test-{time.monotonic_ns()}"
    with pytest.raises(TimeoutError, match="started"):
        _run(
            f"""
            import subprocess, time
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "{marker}"], start_new_session=True)
            print("started", flush=True)
            time.sleep(60)
            """,
            timeout_s=3,
        )
    _await_end(marker)


@inside
def test_namespace_ends_with_the_process_that_asked_for_it() -> None:
    """A test run that is killed leaves no network behind, nor who lives in it."""
    require(probe())
    marker = f"netns-test-{time.monotonic_ns()}"
    # It says nothing: whoever talks would also end by itself, on a pipe that nobody reads any more.
    sleeper = f"import time; time.sleep(60)  # {marker}"
    program = (
        "import sys\nfrom chaos.netns import run_in_namespace\n"
        f"run_in_namespace([sys.executable, '-c', {sleeper!r}], timeout_s=60)"
    )
    with ChildProcess.python("-c", program, cwd=ROOT) as runner:
        deadline = time.monotonic() + 20
        while len(_holding(marker)) < 3:  # the runner, unshare, and the program inside
            assert time.monotonic() < deadline, runner.output()
            time.sleep(0.05)
        os.kill(runner.pid, signal.SIGKILL)
        _await_end(marker)


def _await_end(marker: str) -> None:
    deadline = time.monotonic() + 10
    while found := _holding(marker):
        assert time.monotonic() < deadline, f"outlived their namespace: {found}"
        time.sleep(0.05)


def _holding(marker: str) -> list[str]:
    """Processes with these words in their command line; dead ones have none."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in command.read_bytes():
                found.append(command.parent.name)
        except OSError:
            continue
    return found


@inside
def test_exit_code_and_output_come_out() -> None:
    """The judging is done outside."""
    done = _run("print('said'); sys.exit(7)")
    assert (done.exit_code, done.output) == (7, "said")


def test_network_refuses_to_touch_the_machine_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in the wrong place, it would cut the loopback of everyone."""
    monkeypatch.setattr(netns, "_command", lambda argv, text: pytest.fail("a rule was set"))
    monkeypatch.setattr(netns, "_interfaces", lambda: ["eth0", "lo"])
    with pytest.raises(NotInjected, match="not inside a namespace of its own: interfaces eth0, lo"):
        Network()


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The line tells which package to install."""
    monkeypatch.setattr(netns, "_MORE_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(netns, "_options", netns._options.__wrapped__)
    absence = probe()
    assert str(absence) == "packet loss (no program 'nft')"
    with pytest.raises(NotInjected, match="no program 'nft'"):
        run_in_namespace(["true"], timeout_s=1)


def test_forbidden_namespaces_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Some machines allow no user namespaces; that is a property of theirs, not a failure of ours."""
    for name in ("nft", "ip"):
        (tmp_path / name).write_text("#!/bin/sh\n")
    (tmp_path / "unshare").write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
    for program in tmp_path.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(netns, "_options", netns._options.__wrapped__)
    assert str(probe()) == "packet loss (no network namespace: unshare failed: Operation not permitted)"
