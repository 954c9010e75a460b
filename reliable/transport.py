"""ZeroMQ sockets for the shells: options, links with their monitors, the ROUTER of a broker.

Rules of this module:

* Milliseconds exist here only, rounded up: rounded down, a wait of 20.9 ms becomes a busy loop.
* No call blocks. Every receive and send is NOBLOCK; waiting is done by the shells, on file descriptors.
* One socket is one connection. libzmq would send what a socket still holds to the *next* process on the address, which
  is another life of the broker, so a broken link is closed and the engine opens another.
* The descriptor of a ZeroMQ socket only signals an edge, and any call on the socket may consume it. So a link that was
  touched is *dirty* until it was read empty, and nobody waits while a link is dirty.

Why libzmq's own reconnect is put off instead of switched off. With ``RECONNECT_IVL=-1`` a broken connection makes
libzmq end the pipe inside the next call on the socket, together with replies that had arrived and were not read yet: of
50 replies received before the peer's death none could be read. With an interval of days all 50 can, and the link is
closed long before that. The price, that a dead link still accepts sends, is avoided by looking at the monitor first.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import math
import os
import socket as stdlib_socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

import attrs
import zmq

from reliable.config import TransportConfig
from reliable.messages import read_message, read_messages, send_message
from reliable.names import Address, Resolver, parse_address
from reliable.protocol.events import LinkClosed, LinkEnd, LinkOpened, Received
from reliable.types import Frames

__all__ = [
    "LinkEvent",
    "LinkTable",
    "Waker",
    "Watcher",
    "dealer_options",
    "ipc_is_served",
    "milliseconds",
    "open_router",
    "router_options",
    "seed_routing_ids",
    "terminate",
    "watch_endings",
]

LinkEvent: TypeAlias = LinkOpened | LinkClosed | Received

_RECONNECT_NEVER_MS: Final = 2_000_000_000
_HEARTBEAT_TTL_MS_MAX: Final = 65_500
"""libzmq multiplies the TTL in 16 bits: above this the peer hangs up almost at once."""
_ROUTER_SEND_MESSAGES_MAX: Final = 10_000
_GUARD_EXTRA_S: Final = 0.5
"""How long after its own time limits libzmq may still report; then we stop waiting for its report."""
_READ_BATCH_MAX: Final = 1_000
"""Messages read from one link before timers and other links get their turn."""
_TERMINATE_S_MAX: Final = 1.0
_IPC_PROBE_S: Final = 0.2

_EVENT: Final = struct.Struct("=hi")
_HANDSHAKE_FAILED: Final = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_MONITORED: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | _HANDSHAKE_FAILED


def milliseconds(seconds: float) -> int:
    """Rounded up, and at least 1 for anything above 0."""
    return math.ceil(seconds * 1000)


def _common_options(config: TransportConfig, message_bytes_max: int) -> dict[int, int]:
    timeout = milliseconds(config.heartbeat_timeout_s)
    return {
        zmq.HEARTBEAT_IVL: milliseconds(config.heartbeat_interval_s),
        zmq.HEARTBEAT_TIMEOUT: timeout,
        zmq.HEARTBEAT_TTL: min(timeout, _HEARTBEAT_TTL_MS_MAX),
        zmq.HANDSHAKE_IVL: milliseconds(config.handshake_timeout_s),
        # A peer that froze with data of ours unacknowledged answers no PING either: only TCP itself notices.
        zmq.TCP_MAXRT: timeout,
        zmq.MAXMSGSIZE: message_bytes_max,
        zmq.LINGER: 0,
    }


def dealer_options(config: TransportConfig, *, message_bytes_max: int, received_messages_max: int) -> dict[int, int]:
    """Options of a link's socket.

    Args:
        config: Time limits.
        message_bytes_max: A larger frame from the peer ends the link.
        received_messages_max: Messages that wait unread; 0 is no limit. A full queue stops even the answers to
            heartbeats, so it must hold all that may rightly come at once.
    """
    return _common_options(config, message_bytes_max) | {
        zmq.RECONNECT_IVL: _RECONNECT_NEVER_MS,
        zmq.CONNECT_TIMEOUT: milliseconds(config.connect_timeout_s),
        zmq.RCVHWM: received_messages_max,
        # What may be under way is bounded by the engines: calls in flight, credit, beats until a peer counts as silent.
        zmq.SNDHWM: 0,
    }


def router_options(config: TransportConfig, *, message_bytes_max: int) -> dict[int, int]:
    """Options of a broker's socket. Receiving has no limit in messages: a full queue makes live peers look gone."""
    return _common_options(config, message_bytes_max) | {
        zmq.ROUTER_MANDATORY: 1,
        zmq.RCVHWM: 0,
        zmq.SNDHWM: _ROUTER_SEND_MESSAGES_MAX,
    }


def _new_socket(context: zmq.Context[zmq.Socket[bytes]], kind: int, options: dict[int, int]) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    try:
        for option, value in options.items():
            socket.setsockopt(option, value)
    except BaseException:
        socket.close(linger=0)
        raise
    return socket


def seed_routing_ids() -> None:
    """Make routing ids differ from those of the last run.

    libzmq counts them up from libc's ``rand()``, which it never seeds: a restarted broker would hand out the ids of its
    former life to other peers. Where libc cannot be reached the tokens of the broker still tell answers apart.
    """
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "big"))


def open_router(
    context: zmq.Context[zmq.Socket[bytes]], config: TransportConfig, *, message_bytes_max: int
) -> zmq.Socket[bytes]:
    """A ROUTER that tells when a peer cannot be reached, not yet bound."""
    return _new_socket(context, zmq.ROUTER, router_options(config, message_bytes_max=message_bytes_max))


def ipc_is_served(path: str) -> bool:
    """Whether a process listens on a Unix socket; a file left by a dead one does not count."""
    name = f"\0{path[1:]}" if path.startswith("@") else path
    with stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM) as probe:
        probe.settimeout(_IPC_PROBE_S)
        try:
            probe.connect(name)
        except OSError as error:
            # Somebody whose backlog is full listens, too.
            return isinstance(error, TimeoutError | BlockingIOError)
        return True


def watch_endings(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """A socket on which a message arrives for each connection of ``socket`` that ends; it does not say whose."""
    return socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)


def terminate(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """End a context whose sockets are closed; waits at most a second for what lingers."""
    done = threading.Lock()
    done.acquire()

    def run() -> None:
        try:
            context.term()
        finally:
            done.release()

    # Not a ``threading.Thread``: Ctrl-C inside of its ``start`` can turn into a RuntimeError about a lock.
    _thread.start_new_thread(run, ())
    done.acquire(timeout=_TERMINATE_S_MAX)


class Waker:
    """Wakes a thread that waits on descriptors; callable from any thread and from signal handlers."""

    def __init__(self) -> None:
        self._reader, self._writer = stdlib_socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._reader.fileno()

    def wake(self) -> None:
        """Make the descriptor readable. After ``close`` it does nothing."""
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def clear(self) -> None:
        """Make it quiet again. Look at what it was for afterwards, not before."""
        with contextlib.suppress(OSError):
            while len(self._reader.recv(4096)) == 4096:
                pass

    def close(self) -> None:
        """Give the descriptors back."""
        self._reader.close()
        self._writer.close()


class Watcher(Protocol):
    """Who waits on descriptors: a selector or an event loop."""

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """From now on call ``ready`` when ``fd`` becomes readable."""

    def unwatch(self, fd: int) -> None:
        """No longer."""


@attrs.define(eq=False)
class _Link:
    """Resolving (no socket), then connecting to one number after the other, then open, then over."""

    number: int
    address: Address
    deadline: float
    """When to give up on the resolver, or on the number being tried; meaningless once open."""
    end: LinkEnd
    """What to report if the try under way fails, and ``detail`` with it."""
    detail: str
    candidates: deque[str] = attrs.field(factory=deque)
    """Numbers of the host that were not tried yet."""
    socket: zmq.Socket[bytes] | None = None
    monitor: zmq.Socket[bytes] | None = None
    fds: tuple[int, ...] = ()
    news: bool = True
    """Whether the monitor may hold something: unlike the socket, nothing but reading it consumes its edge."""
    opened: bool = False
    failed: bool = False
    """The try under way failed, or the open link broke."""

    def fail(self, end: LinkEnd, detail: str) -> None:
        """The first reason stands: libzmq reports a failed handshake and then the hang-up that follows from it."""
        if not self.failed:
            self.failed, self.end, self.detail = True, end, detail


def _elsewhere(address: Address, target: str) -> str:
    """Which number of a name it was; nothing if that is plain from the address."""
    return f" (at {target})" if target and address.needs_lookup else ""


class LinkTable:
    """The open links of one client or worker. Not thread-safe: its shell holds a lock or owns it.

    Args:
        config: Time limits and heartbeats.
        watcher: Is told which descriptors to wait on.
        wake: Wakes whoever waits; called from the threads that look names up.
        message_bytes_max: Of one frame from the peer.
        received_messages_max: Messages that wait unread per link; 0 is no limit.
        resolver: In place of the system's, for tests.
    """

    def __init__(
        self,
        config: TransportConfig,
        watcher: Watcher,
        wake: Callable[[], None],
        *,
        message_bytes_max: int,
        received_messages_max: int = 0,
        resolver: Resolver | None = None,
    ) -> None:
        self._config = config
        self._watcher = watcher
        self._options = dealer_options(
            config, message_bytes_max=message_bytes_max, received_messages_max=received_messages_max
        )
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._resolver = resolver or Resolver(wake)
        self._links: dict[int, _Link] = {}
        self.dirty: dict[int, _Link] = {}
        """What ``drain`` must look at before anybody waits."""
        self._opening: dict[int, _Link] = {}

    def __len__(self) -> int:
        return len(self._links)

    def next_deadline(self) -> float | None:
        """When ``drain`` must be called at the latest, or None."""
        if not self._opening:
            return None
        return min(link.deadline for link in self._opening.values())

    # --- opening and closing ----------------------------------------------------------------------

    def open(self, number: int, address: str, now: float) -> None:
        """Begin to open a link; ``drain`` tells how it went.

        Raises:
            ValueError: The address cannot be read.
        """
        parsed = parse_address(address)
        link = _Link(
            number,
            parsed,
            now + self._config.resolve_timeout_s,
            LinkEnd.UNRESOLVED,
            f"the name {parsed.host} did not resolve in time",
        )
        self._links[number] = self._opening[number] = link
        if parsed.needs_lookup:
            self._resolver.start(number, parsed.host, parsed.port)
            return
        link.candidates.append(parsed.with_host(parsed.host) if parsed.host else parsed.text)
        self._connect_next(link, now)

    def _connect_next(self, link: _Link, now: float) -> bool:
        """Try the next number of the host. False if none is left: the last one's reason stands."""
        self.dirty[link.number] = link
        while link.candidates:
            target = link.candidates.popleft()
            link.failed = False
            try:
                self._connect(link, target)
            except (zmq.ZMQError, OSError) as error:
                self._release(link, linger=False)
                link.fail(LinkEnd.REFUSED, f"{error}{_elsewhere(link.address, target)}")
                continue
            link.end, link.detail = LinkEnd.REFUSED, f"no answer in time{_elsewhere(link.address, target)}"
            link.deadline = now + self._config.connect_timeout_s + self._config.handshake_timeout_s + _GUARD_EXTRA_S
            return True
        link.failed = True
        return False

    def _connect(self, link: _Link, target: str) -> None:
        socket = link.socket = _new_socket(self._context, zmq.DEALER, self._options)
        if "[" in target:
            socket.setsockopt(zmq.IPV6, 1)
        monitor = link.monitor = socket.get_monitor_socket(_MONITORED)
        monitor.linger = 0
        link.news = True

        def ready() -> None:
            if self._links.get(link.number) is link:
                self.dirty[link.number] = link

        def monitor_ready() -> None:
            link.news = True
            ready()

        for fd, callback in ((int(socket.FD), ready), (int(monitor.FD), monitor_ready)):
            self._watcher.watch(fd, callback)
            link.fds += (fd,)
        socket.connect(target)

    def close(self, number: int, *, linger: bool = False) -> None:
        """Close a link; nothing is told of it any more. Unknown numbers are over already.

        Args:
            number: The link.
            linger: Let libzmq try for ``TransportConfig.linger_s`` to send what it holds.
        """
        link = self._links.pop(number, None)
        if link is not None:
            self._opening.pop(number, None)
            self.dirty.pop(number, None)
            self._release(link, linger=linger)

    def _release(self, link: _Link, *, linger: bool) -> None:
        for fd in link.fds:
            self._watcher.unwatch(fd)
        link.fds = ()
        socket, monitor = link.socket, link.monitor
        link.socket = link.monitor = None
        if socket is not None:
            with contextlib.suppress(zmq.ZMQError):
                socket.disable_monitor()
            socket.close(linger=milliseconds(self._config.linger_s) if linger else 0)
        if monitor is not None:
            monitor.close(linger=0)

    def close_all(self) -> None:
        """Close every link, without lingering."""
        for number in list(self._links):
            self.close(number)

    def shutdown(self) -> None:
        """Close every link and give all back; takes at most a second."""
        self.close_all()
        terminate(self._context)

    # --- messages ---------------------------------------------------------------------------------

    def send(self, number: int, frames: Frames) -> bool:
        """Send without waiting. False: the message never left this process."""
        link = self._links.get(number)
        if link is None or link.socket is None or not link.opened:
            return False
        self.dirty[number] = link
        # A dead link still takes messages (see the top of this module); its monitor knows better.
        self._read_monitor(link)
        if link.failed:
            return False
        try:
            send_message(link.socket, frames)
        except zmq.ZMQError:
            return False
        return True

    def drain(self, now: float) -> list[LinkEvent]:
        """Take out what happened since the last time, in the order of each link."""
        events: list[LinkEvent] = []
        if self._opening:
            self._take_answers(now)
            for link in self._opening.values():
                if link.deadline <= now:
                    link.failed = True
                    self.dirty[link.number] = link
        if not self.dirty:
            return events
        dirty, self.dirty = self.dirty, {}
        for link in dirty.values():
            self._drain_link(link, now, events)
        return events

    def _take_answers(self, now: float) -> None:
        for lookup in self._resolver.answers():
            link = self._opening.get(lookup.key)
            if link is None or link.socket is not None:
                continue
            link.detail = f"the name {link.address.host}: {lookup.error or 'no address'}"
            link.candidates.extend(map(link.address.with_host, lookup.numbers))
            self._connect_next(link, now)

    def _drain_link(self, link: _Link, now: float, events: list[LinkEvent]) -> None:
        if link.news:
            self._read_monitor(link)
        if link.opened:
            if self._opening.pop(link.number, None) is not None:
                events.append(LinkOpened(link.number))
            if not self._read_messages(link, events):
                self.dirty[link.number] = link
                return
        elif link.failed:
            self._release(link, linger=False)
            if self._connect_next(link, now):
                return
        elif link.socket is not None:
            # Nothing can have come yet, but libzmq's own news make the descriptor readable until somebody looks.
            link.socket.get(zmq.EVENTS)
        if link.failed:
            self.close(link.number)
            events.append(LinkClosed(link.number, link.end, link.detail))

    def _read_messages(self, link: _Link, events: list[LinkEvent]) -> bool:
        """Whether the socket was read empty."""
        assert link.socket is not None
        messages = read_messages(link.socket, _READ_BATCH_MAX)
        number = link.number
        for frames in messages:
            events.append(Received(number, frames))
        return len(messages) < _READ_BATCH_MAX

    def _read_monitor(self, link: _Link) -> None:
        """Learn what libzmq says about the connection."""
        if link.monitor is None:
            return
        link.news = False
        while (message := read_message(link.monitor)) is not None:
            event, _ = _EVENT.unpack(message[0])
            where = _elsewhere(link.address, message[1].decode("utf-8", "replace"))
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                link.opened = True
            elif event & _HANDSHAKE_FAILED:
                link.fail(LinkEnd.HANDSHAKE, f"does not speak ZMTP with us{where}")
            elif link.opened:
                link.fail(LinkEnd.LOST, f"hung up{where}")
            else:
                link.fail(LinkEnd.REFUSED, f"nobody listens, or nobody answered in time{where}")
