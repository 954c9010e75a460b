"""Broker addresses as users write them, and host names turned into numbers off the socket threads.

libzmq resolves names in its I/O thread, where a mute resolver stalls every socket of the context. So names are resolved
here, in threads of our own, and libzmq is handed numbers only.
"""

from __future__ import annotations

import _thread
import ipaddress
import queue
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

import attrs

__all__ = ["LOOKUPS_MAX", "Address", "Lookup", "Resolver", "parse_address", "resolve"]

LOOKUPS_MAX: Final = 4
"""Lookups of one name that may hang at once; one more is refused instead of piling up threads. The limit is per name,
so that a name whose resolver is mute takes no lookup away from the others of the list."""

_SCHEMES: Final = ("tcp", "ipc")


@attrs.frozen
class Address:
    """One address, taken apart.

    Attributes:
        text: As it was written.
        source: ``host:port`` to connect from (libzmq's ``tcp://source;host:port``), or empty.
        host: Name or number without brackets; empty for ipc.
        port: 1 to 65535; 0 for ipc.
    """

    text: str
    source: str = ""
    host: str = ""
    port: int = 0

    @property
    def needs_lookup(self) -> bool:
        """Whether the host is a name."""
        return bool(self.host) and not _is_number(self.host)

    def with_host(self, number: str) -> str:
        """The address as libzmq takes it, with ``number`` in place of the host."""
        host = f"[{number}]" if ":" in number else number
        source = f"{self.source};" if self.source else ""
        return f"tcp://{source}{host}:{self.port}"


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def parse_address(text: str) -> Address:
    """Check and take apart an address to connect to.

    Raises:
        ValueError: Not ``tcp://host:port`` or ``ipc://path``; the text says what is wrong.
    """
    if not isinstance(text, str):
        raise TypeError(f"an address is text like 'tcp://localhost:5555', not {type(text).__name__}")
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ValueError(f"{text!r} is not an address: write tcp://host:port or ipc://path")
    if not rest or "\0" in text:
        raise ValueError(f"{text!r} names nothing behind {scheme}://")
    if scheme == "ipc":
        return Address(text)
    source, _, target = rest.rpartition(";")
    host, separator, digits = target.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not digits.isascii() or not digits.isdigit() or not 0 < int(digits) < 65536:
        raise ValueError(f"{text!r} has no port from 1 to 65535")
    if not host or host == "*":
        raise ValueError(f"{text!r} has no host to connect to")
    return Address(text, source, host, int(digits))


def resolve(host: str, port: int) -> list[str]:
    """The numbers of a host name, in the order that the system prefers, each once; blocks.

    Raises:
        OSError: The name has no address, or nobody could be asked.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{host!r} is not a host name: {error}") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@attrs.frozen
class Lookup:
    """What became of one lookup: numbers, or the reason why there are none."""

    key: int
    numbers: tuple[str, ...]
    error: str = ""


class Resolver:
    """Looks names up in threads; the answers wait in a queue.

    Args:
        done: Called from a foreign thread after an answer was queued.
        ask: Does the lookup; blocks as long as it likes.
    """

    def __init__(self, done: Callable[[], None], ask: Callable[[str, int], list[str]] = resolve) -> None:
        self._done = done
        self._ask = ask
        self._answers: queue.SimpleQueue[Lookup] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._hanging: Counter[str] = Counter()

    def start(self, key: int, host: str, port: int) -> None:
        """Begin a lookup; its answer carries ``key``. There is always one answer, but no bound on when."""
        with self._lock:
            refused = self._hanging[host] >= LOOKUPS_MAX
            self._hanging[host] += not refused
        if refused:
            self._answers.put(Lookup(key, (), f"{LOOKUPS_MAX} other lookups of it still hang"))
            self._done()
            return
        # Not a ``threading.Thread``: Ctrl-C inside of its ``start`` can turn into a RuntimeError about a lock.
        _thread.start_new_thread(self._run, (key, host, port))

    def _run(self, key: int, host: str, port: int) -> None:
        try:
            lookup = Lookup(key, tuple(self._ask(host, port)))
        except OSError as error:
            lookup = Lookup(key, (), error.strerror or str(error))
        with self._lock:
            self._hanging[host] -= 1
        self._answers.put(lookup)
        self._done()

    def answers(self) -> list[Lookup]:
        """Take out the answers that have come."""
        found = []
        while not self._answers.empty():
            found.append(self._answers.get_nowait())
        return found
