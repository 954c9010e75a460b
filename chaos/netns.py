"""Real packet loss and partitions: a network namespace, loopback addresses as hosts, nftables as the scissors.

Any user may do this where the kernel allows user namespaces; nothing outside is touched, and all of it ends with the
last process inside. Two halves:

* Outside, ``probe`` says once whether it can work here, and ``run_in_namespace`` runs a program inside, bounded.
* Inside, ``Network`` cuts and heals. "Hosts" are 127.0.0.2, 127.0.0.3, …: a server binds its own, and a client says
  which is its own in the endpoint: ``tcp://127.0.0.2:0;127.0.0.3:5555``.

Packets are dropped on input, as a sender would be told of a drop on output, and a real network tells nobody. Each
change of rules is one transaction: there is no moment with half of them. A drop counter that stayed at zero means that
nothing was tested, and is an error.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from chaos.injection import FaultUnproven, NotInjected
from chaos.process import ChildProcess

__all__ = ["Drop", "NamespaceRun", "Network", "host", "probe", "run_in_namespace"]

_FAULT = "packet loss"
_TABLE = "inet chaos"
_TOOL_TIMEOUT_S = 10.0
_PERMILLE = 1_000
# Ordinary users often lack the directories in which distributions put these tools.
_MORE_PATH = "/usr/sbin:/sbin"
_COUNTER = re.compile(r"\bcounter packets (\d+) ")


def host(number: int) -> str:
    """The loopback address that plays the ``number``-th host, from 1."""
    if not 1 <= number <= 250:
        raise ValueError(f"host numbers are 1 to 250, not {number!r}")
    return f"127.0.0.{number + 1}"


@attrs.frozen(kw_only=True)
class NamespaceRun:
    """How a program inside a namespace ended."""

    exit_code: int
    output: str


@attrs.frozen(kw_only=True)
class Drop:
    """Packets from one host to another that vanish."""

    source: str
    target: str
    share: float = attrs.field(default=1.0)
    """How many of them, above 0 and up to 1, to a thousandth."""

    @share.validator
    def _share_is_a_share(self, _: object, value: float) -> None:
        if not 0 < value <= 1 or round(value * _PERMILLE) < 1:
            raise ValueError(f"share must be above 0 and up to 1, not {value!r}")

    def rule(self) -> str:
        """In the words of nftables."""
        chance = "" if self.share == 1 else f"numgen random mod {_PERMILLE} < {round(self.share * _PERMILLE)} "
        return f"ip saddr {self.source} ip daddr {self.target} {chance}counter drop"


def _tool(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_MORE_PATH}")
    if found is None:
        raise NotInjected(_FAULT, f"no program {name!r}")
    return found


def _in_namespace(unshare_options: Sequence[str], argv: Sequence[str]) -> list[str]:
    # A process namespace as well: with its first process everything in it dies, sessions of their own or not.
    return [
        _tool("unshare"),
        *unshare_options,
        *("--net", "--pid", "--fork", "--kill-child", "--"),
        *("sh", "-c", f'{_tool("ip")} link set lo up && exec "$@"', "sh"),
        *argv,
    ]


_AS_ANY_USER = ("--user", "--map-root-user")
_AS_ROOT: tuple[str, ...] = ()


@functools.cache
def _options() -> tuple[str, ...] | NotInjected:
    try:
        check = [_tool("nft"), "-f", "-"]
        prefixes = [_in_namespace(options, check) for options in (_AS_ANY_USER, _AS_ROOT)]
    except NotInjected as absence:
        return absence
    reason = ""
    for options, argv in zip((_AS_ANY_USER, _AS_ROOT), prefixes, strict=True):
        if options == _AS_ROOT and os.geteuid() != 0:
            break
        failure = _command(argv, _ruleset([Drop(source=host(1), target=host(2), share=0.5)]))
        if failure is None:
            return options
        reason = reason or failure
    return NotInjected(_FAULT, f"no network namespace: {reason}")


def probe() -> NotInjected | None:
    """None if packet loss can be injected here, else why not. Tried once per process, with a real rule."""
    found = _options()
    return found if isinstance(found, NotInjected) else None


def run_in_namespace(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
) -> NamespaceRun:
    """Run a program alone in a fresh network, whose only interface is a loopback that is up.

    Raises:
        NotInjected: That is not possible here.
        TimeoutError: It ran longer than ``timeout_s``; it has been killed, its last lines are in the message.
    """
    options = _options()
    if isinstance(options, NotInjected):
        raise options
    command = _in_namespace(options, [str(part) for part in argv])
    with ChildProcess(command, name="namespace", env=env, cwd=cwd) as child:
        try:
            exit_code = child.wait(timeout_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it said:\n{child.output()}") from error
        child.close()
        return NamespaceRun(exit_code=exit_code, output=child.output())


class Network:
    """The rules of the namespace that this process is in.

    Only for programs that ``run_in_namespace`` started: elsewhere it would cut the machine's own loopback. The
    constructor refuses if there is any interface but the loopback.
    """

    def __init__(self) -> None:
        interfaces = _interfaces()
        if interfaces != ["lo"]:
            raise NotInjected(_FAULT, f"not inside a namespace of its own: interfaces {', '.join(interfaces)}")
        self._dropped_before = 0
        self._apply(())

    def set(self, drops: Sequence[Drop]) -> None:
        """Exactly these drops from now on, in place of the ones before."""
        self._dropped_before = self.dropped()
        self._apply(drops)

    def heal(self) -> None:
        """No drops from now on."""
        self.set(())

    def dropped(self) -> int:
        """Packets that vanished so far, by the kernel's count."""
        listing = _command_output([_tool("nft"), "list", "table", *_TABLE.split()])
        return self._dropped_before + sum(int(count) for count in _COUNTER.findall(listing))

    @contextlib.contextmanager
    def cut(self, *drops: Drop) -> Iterator[None]:
        """These drops inside the block, none after it.

        Raises:
            FaultUnproven: No packet was dropped meanwhile.
        """
        before = self.dropped()
        self.set(drops)
        try:
            yield
        finally:
            self.heal()
        if self.dropped() == before:
            raise FaultUnproven(f"no packet was dropped by {', '.join(drop.rule() for drop in drops)}")

    def partition(self, one: str, other: str) -> contextlib.AbstractContextManager[None]:
        """Nothing passes between two hosts, either way."""
        return self.cut(Drop(source=one, target=other), Drop(source=other, target=one))

    def one_way(self, source: str, target: str) -> contextlib.AbstractContextManager[None]:
        """Nothing passes from ``source`` to ``target``; the other way is open."""
        return self.cut(Drop(source=source, target=target))

    def loss(self, one: str, other: str, share: float) -> contextlib.AbstractContextManager[None]:
        """Each packet between two hosts vanishes with this chance."""
        return self.cut(
            Drop(source=one, target=other, share=share),
            Drop(source=other, target=one, share=share),
        )

    def _apply(self, drops: Sequence[Drop]) -> None:
        failure = _command([_tool("nft"), "-f", "-"], _ruleset(drops))
        if failure is not None:
            raise NotInjected(_FAULT, f"nft: {failure}")


def _interfaces() -> list[str]:
    listing = _command_output([_tool("ip"), "-o", "link"])
    return sorted(line.split(":")[1].strip().split("@")[0] for line in listing.splitlines() if ":" in line)


def _ruleset(drops: Sequence[Drop]) -> str:
    rules = "\n".join(f"  {drop.rule()}" for drop in drops)
    # Adding first lets the deletion succeed where there is no table yet; the whole file is one transaction.
    return (
        f"add table {_TABLE}\ndelete table {_TABLE}\ntable {_TABLE} {{\n chain in {{\n"
        f"  type filter hook input priority 0; policy accept;\n{rules}\n }}\n}}\n"
    )


def _command_output(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_TOOL_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotInjected(_FAULT, f"{argv[0]}: {error}") from error
    return done.stdout.decode(errors="replace")


def _command(argv: Sequence[str], text: str) -> str | None:
    try:
        done = subprocess.run(
            argv,
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TOOL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    return lines[0][:200] if lines else f"exit code {done.returncode}"
