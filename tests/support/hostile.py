"""Servers and links that misbehave on purpose: a relay that loses whole messages, a server that answers as it is told.

Both run in a process of their own (``python -m tests.support.hostile``), so that the client under test is not slowed
down by what torments it, and so that they can be stopped with SIGSTOP. Each prints ``ready``, and at SIGTERM one line
of JSON with what it did: a fault that was not injected proves nothing.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, Protocol, TypeAlias

import attrs
import zmq

from chaos.process import ChildProcess
from reliable.errors import Outcome, RemoteProtocolError
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import HELLO_SERVICE, LIFE_BYTES, AnswerFrame, CallFrame, CallKind, HelloAnswer
from reliable.wire.mdp import ClientReply, ClientRequest, Version, decode_at_broker
from reliable.wire.mmi import FOUND
from tests.support.commands import ROOT
from tests.support.ports import free_endpoint

__all__ = [
    "BIG_BYTES",
    "HostileProcess",
    "HostileServer",
    "Mischief",
    "Relay",
    "hostile_server",
    "relay_process",
    "server_process",
]

BIG_BYTES: Final = 8 * 1024 * 1024
_POLL_MS_MAX: Final = 50
_SMALL_BUFFER_BYTES: Final = 64 * 1024
_END_S_MAX: Final = 10.0

_Socket: TypeAlias = zmq.Socket[bytes]


@attrs.frozen(kw_only=True)
class Mischief:
    """What a relay does to a message: each is a share of all messages, drawn for each one by itself."""

    drop: float = 0.01
    duplicate: float = 0.03
    duplicate_requests: bool = True
    """False: replies alone. A server that knows no ids runs a doubled request twice, whoever doubled it."""
    delay: float = 0.1
    """Held back for up to ``delay_s_max``, so that later ones overtake it."""
    delay_s_max: float = 0.05
    long: float = 0.05
    """Of those that are held back: for up to ``long_s_max``, past the patience of an attempt."""
    long_s_max: float = 0.6


class _Later:
    """Messages that wait for their time, and the order in which they came."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Socket, Frames]] = []
        self._waiting: Counter[_Socket] = Counter()
        self._count = 0

    def put(self, when: float, to: _Socket, frames: Frames) -> None:
        self._count += 1
        self._waiting[to] += 1
        heapq.heappush(self._heap, (when, self._count, to, frames))

    def due(self, now: float) -> Iterator[tuple[_Socket, Frames]]:
        while self._heap and self._heap[0][0] <= now:
            _, _, to, frames = heapq.heappop(self._heap)
            self._waiting[to] -= 1
            yield to, frames

    def waiting(self, to: _Socket) -> bool:
        """Whether a message sent there now overtakes another one."""
        return self._waiting[to] > 0

    def wait_ms(self, now: float) -> int:
        if not self._heap:
            return _POLL_MS_MAX
        return min(_POLL_MS_MAX, max(0, int((self._heap[0][0] - now) * 1000) + 1))


def _socket(context: zmq.Context[_Socket], kind: int) -> _Socket:
    made = context.socket(kind)
    made.linger = 0
    made.setsockopt(zmq.SNDHWM, 0)
    made.setsockopt(zmq.RCVHWM, 0)
    return made


class Relay:
    """Stands between clients and a server, knows no protocol, and delays, doubles, reorders and drops whole messages.

    It is a ROUTER in front and a DEALER behind, so the server sees one peer with a stack of address frames. Nothing of
    this can happen on one TCP connection; it can through proxies, and over several connections of one client.

    Args:
        listen: Where clients connect to.
        upstream: The server's address.
        mischief: What to do to messages.
        seed: Repeats the draws; what they fall on depends on the machine.
    """

    def __init__(self, listen: str, upstream: str, mischief: Mischief, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._mischief = mischief
        self._rng = random.Random(seed)
        self._later = _Later()
        self._stopping = False
        self._context: zmq.Context[_Socket] = zmq.Context()
        self._front = _socket(self._context, zmq.ROUTER)
        self._back = _socket(self._context, zmq.DEALER)
        self._front.bind(listen)
        self._back.connect(upstream)

    def stop(self) -> None:
        """From a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Until ``stop``."""
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        poller.register(self._back, zmq.POLLIN)
        while not self._stopping:
            for source, _ in poller.poll(self._later.wait_ms(time.monotonic())):
                self._read(source, self._back if source is self._front else self._front)
            for to, frames in self._later.due(time.monotonic()):
                to.send_multipart(frames)
        self._context.destroy(linger=0)

    def _read(self, source: _Socket, to: _Socket) -> None:
        for _ in range(100):
            try:
                frames = source.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._pass_on(frames, to)

    def _pass_on(self, frames: Frames, to: _Socket) -> None:
        draw, mischief, now = self._rng.random, self._mischief, time.monotonic()
        self.counts["messages"] += 1
        if draw() < mischief.drop:
            self.counts["dropped"] += 1
            return
        if draw() < mischief.duplicate and (mischief.duplicate_requests or to is self._front):
            self.counts["duplicated"] += 1
            self._later.put(now + draw() * mischief.delay_s_max, to, frames)
        if draw() < mischief.delay:
            self.counts["delayed"] += 1
            delay_s_max = mischief.long_s_max if draw() < mischief.long else mischief.delay_s_max
            self._later.put(now + draw() * delay_s_max, to, frames)
            return
        self.counts["overtook"] += self._later.waiting(to)
        to.send_multipart(frames)


class _Speech(Protocol):
    """How a dialect writes a reply; requests without a body to act on are answered inside."""

    def read(self, frames: Frames) -> tuple[Frames, Frames | None, object]:
        """The body of a request, or an answer to give at once, and what ``write`` needs to know of it."""

    def write(self, asked: object, body: Frames) -> Frames:
        """A good reply."""

    def spoilt(self, asked: object, body: Frames) -> list[Frames]:
        """Replies that nobody must take for the answer."""

    def of_another_service(self, asked: object, body: Frames) -> Frames:
        """A reply that is good but for the name of its service."""


@attrs.frozen
class _Asked:
    service: bytes
    call: CallFrame


class _Mdp:
    """Our extension, as a broker speaks it that answers everything itself."""

    def __init__(self) -> None:
        self._life = os.urandom(LIFE_BYTES)

    def read(self, frames: Frames) -> tuple[Frames, Frames | None, object]:
        request = decode_at_broker(frames)
        assert isinstance(request, ClientRequest), request
        if request.service == HELLO_SERVICE:
            body = [FOUND, *HelloAnswer(self._life).encode()]
            return [], ClientReply(request.version, HELLO_SERVICE, body, request.stack).encode(), None
        call = CallFrame.decode(request.stack[-1])
        return (request.body if call.kind is CallKind.SUBMIT else []), None, _Asked(request.service, call)

    def _frame(self, call: CallFrame, call_id: bytes = b"", life: bytes = b"") -> bytes:
        answer = AnswerFrame(Status.OK, call.attempt, call_id or call.call_id, life or self._life, Outcome.EXECUTED)
        return answer.encode()

    def write(self, asked: object, body: Frames) -> Frames:
        assert isinstance(asked, _Asked)
        return ClientReply(Version.MDP02, asked.service, body, [self._frame(asked.call)]).encode()

    def of_another_service(self, asked: object, body: Frames) -> Frames:
        assert isinstance(asked, _Asked)
        return ClientReply(Version.MDP02, b"other", body, [self._frame(asked.call)]).encode()

    def spoilt(self, asked: object, body: Frames) -> list[Frames]:
        assert isinstance(asked, _Asked)
        good, service = self._frame(asked.call), asked.service
        stacks = [
            [],
            [good[:-1]],
            [good + b"\0"],
            [good, good],
            [good[:4] + b"\x7f" + good[5:]],
            [good[:5] + b"\xff" + good[6:]],
            [self._frame(asked.call, life=bytes(range(LIFE_BYTES)))],
            [self._frame(asked.call, call_id=bytes(16))],
        ]
        replies = [ClientReply(Version.MDP02, service, body, stack).encode() for stack in stacks]
        return [*replies, [b""], [b"", b""], [b"\xff" * 100], body, [good], [good, b"", b"MDPC02"], [b"MDPC01"]]


class _Req:
    """As a ROUTER answers REQ sockets: what stands up to the empty frame goes back in front of the reply."""

    def read(self, frames: Frames) -> tuple[Frames, Frames | None, object]:
        end = frames.index(b"") + 1 if b"" in frames else 0
        return (frames[end:] if end else []), None, frames[:end]

    def write(self, asked: object, body: Frames) -> Frames:
        assert isinstance(asked, list)
        return [*asked, *body]

    def of_another_service(self, asked: object, body: Frames) -> Frames:
        raise AssertionError("replies of this dialect do not name their service")

    def spoilt(self, asked: object, body: Frames) -> list[Frames]:
        assert isinstance(asked, list)
        return [[*asked[:-1], *body], [*asked[:-1], b"\xff" * 100], [*asked], [*asked[:-1], b"x", b"", *body]]


SPEECHES: Final[dict[str, Callable[[], _Speech]]] = {"mdp": _Mdp, "req": _Req}


class HostileServer:
    """Answers each request as the first frame of its body says; the second comes back behind ``re``. If that one ends
    with ``once``, ``counts["once again"]`` tells how often it came once more.

    ``well`` · ``late SECONDS`` · ``never`` · ``garbage`` · ``service`` (of another one) · ``twice`` · ``stop`` (sends
    8 MB and stops its own process while they are under way) · ``cut`` (hangs up on everybody at this address; when it
    is asked the same again, it answers).

    Args:
        dialect: What to speak.
        endpoints: Where to listen; all are one and the same server.
    """

    def __init__(self, dialect: str, *endpoints: str) -> None:
        self.endpoint = endpoints[0]
        self.counts: Counter[str] = Counter()
        self._speech = SPEECHES[dialect]()
        self._later = _Later()
        self._stopping = False
        self._cut_for: deque[Frames] = deque(maxlen=1_000)
        self._once: set[bytes] = set()
        self._context: zmq.Context[_Socket] = zmq.Context()
        self._poller = zmq.Poller()
        self._endpoints: dict[_Socket, str] = {}
        for endpoint in endpoints:
            self._listen(endpoint)

    def _listen(self, endpoint: str) -> None:
        made = _socket(self._context, zmq.ROUTER)
        # So that most of a large reply is still here when the process is stopped.
        made.setsockopt(zmq.SNDBUF, _SMALL_BUFFER_BYTES)
        deadline = time.monotonic() + _END_S_MAX
        while True:
            try:
                made.bind(endpoint)
                break
            except zmq.ZMQError:
                # The listener that was closed a moment ago goes away in a thread of libzmq.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.001)
        self._endpoints[made] = endpoint
        self._poller.register(made, zmq.POLLIN)

    def _cut(self, socket: _Socket) -> None:
        endpoint = self._endpoints.pop(socket)
        self._poller.unregister(socket)
        socket.close(linger=0)
        self._listen(endpoint)

    def stop(self) -> None:
        """From anywhere."""
        self._stopping = True

    def run(self) -> None:
        """Until ``stop``."""
        while not self._stopping:
            for socket, _ in self._poller.poll(self._later.wait_ms(time.monotonic())):
                peer, *frames = socket.recv_multipart()
                with suppress(RemoteProtocolError):
                    # What a client sends is its tests' business; here only the server misbehaves.
                    self._serve(socket, peer, frames)
            for to, frames in self._later.due(time.monotonic()):
                to.send_multipart(frames)
        self._context.destroy(linger=0)

    def _serve(self, socket: _Socket, peer: bytes, frames: Frames) -> None:
        body, at_once, asked = self._speech.read(frames)
        if at_once is not None:
            socket.send_multipart([peer, *at_once])
        if not body:
            return
        trick, _, argument = body[0].partition(b" ")
        self.counts[trick.decode()] += 1
        if len(body) > 1 and body[1].endswith(b"once"):
            self.counts["once again"] += body[1] in self._once
            self._once.add(body[1])
        if trick == b"cut" and body not in self._cut_for:
            self._cut_for.append(body)
            self._cut(socket)
            return
        reply = [b"re", *body[1:]]
        for delay_s, answer in self._answers(trick, argument, asked, reply):
            if delay_s:
                self._later.put(time.monotonic() + delay_s, socket, [peer, *answer])
            else:
                socket.send_multipart([peer, *answer])
        if trick == b"stop":
            os.kill(os.getpid(), signal.SIGSTOP)

    def _answers(self, trick: bytes, argument: bytes, asked: object, reply: Frames) -> Iterator[tuple[float, Frames]]:
        speech = self._speech
        if trick == b"late":
            yield float(argument), speech.write(asked, reply)
        elif trick == b"garbage":
            for spoilt in speech.spoilt(asked, reply):
                yield 0.0, spoilt
        elif trick == b"service":
            yield 0.0, speech.of_another_service(asked, reply)
        elif trick == b"stop":
            yield 0.0, speech.write(asked, [b"re", bytes(BIG_BYTES)])
        elif trick != b"never":
            for _ in range(2 if trick == b"twice" else 1):
                yield 0.0, speech.write(asked, reply)


@contextmanager
def hostile_server(dialect: str) -> Iterator[HostileServer]:
    """One in a thread of this process."""
    server = HostileServer(dialect, free_endpoint())
    thread = threading.Thread(target=server.run, name="hostile server", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(_END_S_MAX)
        assert not thread.is_alive(), "the hostile server does not end"


class HostileProcess:
    """A relay or a server in a process of its own."""

    def __init__(self, child: ChildProcess, *endpoints: str) -> None:
        self.child = child
        self.endpoint = endpoints[0]
        self.endpoints = endpoints

    def figures(self) -> dict[str, int]:
        """End it, and read what it did."""
        self.child.terminate(_END_S_MAX)
        found: dict[str, int] = json.loads(self.child.wait_line(r"^\{.*\}$", _END_S_MAX).group())
        return found

    def stands_still(self) -> bool:
        """Whether SIGSTOP has taken effect."""
        with open(f"/proc/{self.child.pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel
            return file.read().rpartition(")")[2].split()[0] == "T"


@contextmanager
def _process(arguments: Sequence[str], *endpoints: str) -> Iterator[HostileProcess]:
    command = ("-m", "tests.support.hostile", *arguments)
    with ChildProcess.python(*command, ready="^ready$", cwd=ROOT, env={"PYTHONPATH": str(ROOT)}) as child:
        yield HostileProcess(child, *endpoints)


@contextmanager
def relay_process(upstream: str, mischief: Mischief, seed: int) -> Iterator[HostileProcess]:
    """A relay in front of ``upstream``."""
    endpoint = free_endpoint()
    with _process(("relay", endpoint, upstream, json.dumps(attrs.asdict(mischief)), str(seed)), endpoint) as made:
        yield made


@contextmanager
def server_process(dialect: str, addresses: int = 1) -> Iterator[HostileProcess]:
    """A hostile server that can be stopped with SIGSTOP, and that listens at so many addresses."""
    endpoints = [free_endpoint() for _ in range(addresses)]
    with _process(("server", dialect, *endpoints), *endpoints) as made:
        yield made


def _main(kind: str, *arguments: str) -> None:
    made: Relay | HostileServer
    if kind == "relay":
        listen, upstream, mischief, seed = arguments
        made = Relay(listen, upstream, Mischief(**json.loads(mischief)), int(seed))
    else:
        made = HostileServer(*arguments)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        made.stop()

    signal.signal(signal.SIGTERM, on_signal)
    print("ready", flush=True)
    made.run()
    print(json.dumps(made.counts), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
