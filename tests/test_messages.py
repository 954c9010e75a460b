"""Messages through real sockets, in both ways of moving them: accelerated (if it was built) and pure."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import random
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import zmq
import zmq.backend

from reliable import messages
from reliable.messages import IMPLEMENTATIONS, PURE, Implementation
from reliable.types import Frames
from tests.support.bare_sockets import Sockets

pytestmark = pytest.mark.usefixtures("no_leaks")

_WAIT_S_MAX = 5.0
_LARGE = 1_000_000
_SIZES = (0, 1, 29, 30, 33, 34, 255, 256, 8191, 8192, 32_767, 32_768, 32_769, 65_536, 1_048_576)
"""Around the limits within libzmq, and around the one above which frames are lent."""
_ACCELERATED = tuple(way for way in IMPLEMENTATIONS if way is not PURE)

Socket = zmq.Socket[bytes]


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda way: way.name)
def way(request: pytest.FixtureRequest) -> Implementation:
    """Each way of moving messages that can be used here."""
    found = request.param
    assert isinstance(found, Implementation)
    return found


@pytest.fixture
def sockets(no_leaks: None) -> Iterator[Sockets]:
    """Bare sockets."""
    made = Sockets(sndhwm=0, rcvhwm=0, linger=0)
    yield made
    made.close()


def _await(socket: Socket, event: int = zmq.POLLIN) -> None:
    assert socket.poll(int(_WAIT_S_MAX * 1000), event), "nothing came"


def _read(way: Implementation, socket: Socket) -> Frames:
    _await(socket)
    message = way.read_message(socket)
    assert message is not None
    return message


def _read_many(way: Implementation, socket: Socket, count: int) -> list[Frames]:
    found: list[Frames] = []
    while len(found) < count:
        _await(socket)
        found += way.read_messages(socket, count - len(found))
    return found


# --- messages as they are ---------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 6, 16, 17, 20])
def test_messages_of_any_number_of_frames_arrive_as_they_were_sent(
    way: Implementation, sockets: Sockets, count: int
) -> None:
    """Frames are what all dialects are made of; more of them than usual take another path."""
    server, client = sockets.pair()
    sent = [b"%d" % number * number for number in range(count)]
    way.send_message(client, sent)
    assert _read(way, server) == sent
    assert way.read_message(server) is None


@pytest.mark.parametrize("size", _SIZES)
def test_frames_of_any_size_arrive_as_they_were_sent(way: Implementation, sockets: Sockets, size: int) -> None:
    """Small ones lie inside libzmq's message, others beside it, large ones stay where Python has them."""
    server, client = sockets.pair()
    body = random.Random(size).randbytes(size)
    for sent in ([body], [b"", body], [body, b"", body]):
        way.send_message(client, sent)
        assert _read_many(way, server, 1) == [sent]


def test_messages_of_empty_frames_keep_their_number(way: Implementation, sockets: Sockets) -> None:
    """An empty frame is the delimiter of every envelope."""
    server, client = sockets.pair()
    for count in (1, 2, 5):
        way.send_message(client, [b""] * count)
    assert _read_many(way, server, 3) == [[b""], [b""] * 2, [b""] * 5]


def test_a_router_puts_the_sender_in_front_and_takes_the_receiver_from_there(
    way: Implementation, sockets: Sockets
) -> None:
    """That is how brokers know their peers."""
    server, client = sockets.pair(zmq.ROUTER)
    way.send_message(client, [b"question", b"x" * 100_000])
    sender, *rest = _read(way, server)
    assert rest == [b"question", b"x" * 100_000]
    way.send_message(server, [sender, b"", b"answer"])
    assert _read(way, client) == [b"", b"answer"]


def test_frames_may_be_any_bytes_like_object(way: Implementation, sockets: Sockets) -> None:
    """What one way takes the other must take, or a program works on one machine only."""
    server, client = sockets.pair()
    way.send_message(client, [bytearray(b"one"), memoryview(b"-two-")[1:4], b"three"])  # type: ignore[list-item]
    assert _read(way, server) == [b"one", b"two", b"three"]


@pytest.mark.parametrize("frame", ["text", 7, None])
def test_what_is_no_bytes_is_refused(way: Implementation, sockets: Sockets, frame: Any) -> None:
    """A number of seven would otherwise be sent as seven bytes of nothing."""
    server, client = sockets.pair()
    with pytest.raises(TypeError):
        way.send_message(client, [frame])
    way.send_message(client, [b"next"])
    assert _read(way, server) == [b"next"]


def test_a_message_has_at_least_one_frame(way: Implementation, sockets: Sockets) -> None:
    """Without one there is nothing that could be sent, and nobody would notice."""
    _, client = sockets.pair()
    with pytest.raises(IndexError):
        way.send_message(client, [])


@pytest.mark.parametrize("sender", IMPLEMENTATIONS, ids=lambda sender: f"from {sender.name}")
def test_random_messages_come_whole_in_order_and_once(
    way: Implementation, sender: Implementation, sockets: Sockets, rng: random.Random
) -> None:
    """A single frame at the wrong place, and every message after it is another one."""
    server, client = sockets.pair()
    frames = [b"%d" % size + rng.randbytes(size) for size in range(300)] + [b""] * 100
    left = 100_000 // (len(IMPLEMENTATIONS) ** 2)
    while left:
        sent = [rng.choices(frames, k=int(20 ** rng.random())) for _ in range(min(left, rng.randint(1, 700)))]
        left -= len(sent)
        for message in sent:
            sender.send_message(client, message)
        assert _read_many(way, server, len(sent)) == sent


# --- nothing there, or too much ---------------------------------------------------------------------


def test_an_empty_socket_gives_nothing(way: Implementation, sockets: Sockets) -> None:
    """No error: it is the usual end of every reading."""
    server, _ = sockets.pair()
    assert way.read_message(server) is None
    assert way.read_messages(server, 10) == []
    assert way.read_messages(server, 0) == []


def test_fewer_messages_than_the_limit_mean_that_the_socket_was_read_empty(
    way: Implementation, sockets: Sockets
) -> None:
    """Whoever takes less than there is must come back; whoever took all must wait, or spin."""
    server, client = sockets.pair()
    for number in range(10):
        way.send_message(client, [b"%d" % number, b"x"])
    _await(server)
    found: list[Frames] = []
    deadline = time.monotonic() + _WAIT_S_MAX
    while len(found) < 10 and time.monotonic() < deadline:
        part = way.read_messages(server, 4)
        assert len(part) <= 4
        found += part
    assert found == [[b"%d" % number, b"x"] for number in range(10)]
    assert way.read_messages(server, 4) == []


@pytest.mark.parametrize("many", [True, False], ids=["many", "one"])
def test_the_descriptor_tells_of_what_comes_after_reading_empty(
    way: Implementation, sockets: Sockets, many: bool
) -> None:
    """It signals an edge only: if the last call had not looked for more, nobody would ever be woken."""
    server, client = sockets.pair()
    descriptor = int(server.FD)
    for number in range(50):
        way.send_message(client, [b"", b"%d" % number])
        deadline = time.monotonic() + _WAIT_S_MAX
        found: list[Frames] = []
        while not found and time.monotonic() < deadline:
            assert select.select([descriptor], [], [], _WAIT_S_MAX)[0], "the descriptor stayed quiet"
            if many:
                found = way.read_messages(server, 1_000)
            else:
                while (message := way.read_message(server)) is not None:
                    found.append(message)
        assert found == [[b"", b"%d" % number]]


def test_a_full_queue_takes_nothing_of_the_message(way: Implementation, sockets: Sockets) -> None:
    """Half a message would be the beginning of the next one."""
    server, client = sockets.pair(both=True, sndhwm=2, rcvhwm=2)
    sent = 0
    with pytest.raises(zmq.Again):
        while True:
            way.send_message(client, [b"%d" % sent, b"x" * 70_000, b"end"])
            sent += 1
    assert sent > 1
    found = _read_many(way, server, sent)
    assert found == [[b"%d" % number, b"x" * 70_000, b"end"] for number in range(sent)]
    _await(client, zmq.POLLOUT)
    way.send_message(client, [b"after", b"it"])
    assert _read(way, server) == [b"after", b"it"]


def test_who_is_connected_to_nobody_sends_nothing(way: Implementation, sockets: Sockets) -> None:
    """A DEALER without a peer keeps nothing for later."""
    alone = sockets.new(zmq.DEALER)
    with pytest.raises(zmq.Again):
        way.send_message(alone, [b"x", b"y"])


def test_an_unknown_receiver_is_an_error_and_leaves_nothing_behind(way: Implementation, sockets: Sockets) -> None:
    """Brokers learn from it that a peer is gone; the next message must not begin with the rest of this one."""
    server, client = sockets.pair(zmq.ROUTER)
    server.router_mandatory = 1
    way.send_message(client, [b"hello"])
    sender, _ = _read(way, server)
    for _ in range(3):
        with pytest.raises(zmq.ZMQError) as failure:
            way.send_message(server, [b"nobody", b"x", b"y" * 100_000])
        assert failure.value.errno == errno.EHOSTUNREACH
    way.send_message(server, [sender, b"still", b"here"])
    assert _read(way, client) == [b"still", b"here"]


# --- the end of sockets and contexts ----------------------------------------------------------------


def test_a_closed_socket_is_an_error(way: Implementation, sockets: Sockets) -> None:
    """libzmq is handed an address: that of a closed socket may belong to somebody else by then."""
    _, client = sockets.pair()
    client.close()
    uses: tuple[Callable[[], object], ...] = (
        lambda: way.read_message(client),
        lambda: way.read_messages(client, 3),
        lambda: way.send_message(client, [b"x"]),
    )
    for use in uses:
        with pytest.raises(zmq.ZMQError) as failure:
            use()
        assert failure.value.errno == errno.ENOTSOCK


def test_an_ended_context_is_an_error(way: Implementation) -> None:
    """It must not look like an empty socket, for which one waits."""
    context: zmq.Context[Socket] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.bind("inproc://here")
    ending = threading.Thread(target=context.term)
    ending.start()
    try:
        deadline = time.monotonic() + _WAIT_S_MAX
        with pytest.raises(zmq.ContextTerminated):
            while time.monotonic() < deadline:
                way.read_message(socket)
        with pytest.raises(zmq.ContextTerminated):
            way.read_messages(socket, 3)
        with pytest.raises(zmq.ContextTerminated):
            way.send_message(socket, [b"x", b"y"])
    finally:
        socket.close(linger=0)
        ending.join(_WAIT_S_MAX)
    assert not ending.is_alive()


@pytest.mark.parametrize("way", _ACCELERATED, ids=lambda way: way.name, indirect=True)
def test_what_is_no_socket_is_refused(way: Implementation) -> None:
    """A wrong argument is a Python error, never an access to memory that is not ours."""
    for wrong in (None, 7, object()):
        with pytest.raises((TypeError, AttributeError)):
            way.read_message(wrong)  # type: ignore[arg-type]
        with pytest.raises((TypeError, AttributeError)):
            way.send_message(wrong, [b"x"])  # type: ignore[arg-type]


# --- what libzmq does rarely ------------------------------------------------------------------------


@attrs.define
class Tampering:
    """What happens before each transfer of a frame: None lets it happen, a number is the error it ends with instead."""

    before_send: Callable[[int], int | None] = lambda _: None
    before_receive: Callable[[int], int | None] = lambda _: None
    sizes: dict[int, int] = attrs.field(factory=dict)
    """What ``zmq_msg_size`` says at its n-th call, if not the truth."""
    sent: int = 0
    received: int = 0
    measured: int = 0
    errno: int = 0


def _error(number: int) -> zmq.ZMQError:
    return zmq.Again(number) if number == errno.EAGAIN else zmq.ZMQError(number)


@contextlib.contextmanager
def _tampered_pure(tampering: Tampering, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def send(socket: Socket, frame: bytes, flags: int) -> object:
        tampering.sent += 1
        if (number := tampering.before_send(tampering.sent)) is not None:
            raise _error(number)
        return zmq.backend.Socket.send(socket, frame, flags)

    real: Any = zmq.backend.Socket.recv

    def receive(socket: Socket, *arguments: object) -> object:
        tampering.received += 1
        if (number := tampering.before_receive(tampering.received)) is not None:
            raise _error(number)
        received: object = real(socket, *arguments)
        return received

    with monkeypatch.context() as patches:
        patches.setattr(messages, "_send", send)
        patches.setattr(messages, "_recv", receive)
        yield


@contextlib.contextmanager
def _tampered_accelerated(tampering: Tampering) -> Iterator[None]:
    from reliable import _accelerator

    library = ctypes.CDLL(sys.modules[zmq.backend.Socket.__module__].__file__, use_errno=True)
    transfer = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
    size_of = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)
    real = {name: getattr(library, name) for name in ("zmq_msg_send", "zmq_msg_recv", "zmq_msg_size")}
    for function in (real["zmq_msg_send"], real["zmq_msg_recv"]):
        function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
    real["zmq_msg_size"].argtypes = (ctypes.c_void_p,)
    real["zmq_msg_size"].restype = ctypes.c_size_t

    def done(name: str, number: int | None, *arguments: object) -> int:
        if number is not None:
            tampering.errno = number
            return -1
        result = int(real[name](*arguments))
        tampering.errno = ctypes.get_errno()
        return result

    def send(message: int, socket: int, flags: int) -> int:
        tampering.sent += 1
        return done("zmq_msg_send", tampering.before_send(tampering.sent), message, socket, flags)

    def receive(message: int, socket: int, flags: int) -> int:
        tampering.received += 1
        return done("zmq_msg_recv", tampering.before_receive(tampering.received), message, socket, flags)

    def size(message: int) -> int:
        tampering.measured += 1
        return tampering.sizes.get(tampering.measured, int(real["zmq_msg_size"](message)))

    held = {
        "zmq_msg_send": transfer(send),
        "zmq_msg_recv": transfer(receive),
        "zmq_msg_size": size_of(size),
        "zmq_errno": ctypes.CFUNCTYPE(ctypes.c_int)(lambda: tampering.errno),
    }
    addresses = messages._functions_of_libzmq()
    replaced = {name: ctypes.cast(function, ctypes.c_void_p).value for name, function in held.items()}
    _accelerator.attach(addresses | {name: address for name, address in replaced.items() if address})
    try:
        yield
    finally:
        _accelerator.attach(addresses)


@pytest.fixture
def tampered(way: Implementation, monkeypatch: pytest.MonkeyPatch) -> Callable[[Tampering], Any]:
    """Puts something between a way of moving messages and libzmq."""
    if way is PURE:
        return lambda tampering: _tampered_pure(tampering, monkeypatch)
    return _tampered_accelerated


@pytest.mark.parametrize("leaves_at", [2, 3, 4])
def test_a_peer_that_leaves_in_the_middle_of_a_message_costs_only_that_message(
    way: Implementation, sockets: Sockets, tampered: Callable[[Tampering], Any], leaves_at: int
) -> None:
    """libzmq drops the rest of it as it is handed over: were it not, the next message would be dropped for it."""
    server, client = sockets.pair()
    address = client.getsockopt_string(zmq.LAST_ENDPOINT)
    way.send_message(client, [b"first"])
    assert _read(way, server) == [b"first"]

    def leave(frame: int) -> None:
        if frame == leaves_at:
            client.disconnect(address)

    tampering = Tampering(before_send=leave)
    # Without the error, libzmq noticed between two frames, and dropped the rest: as if the peer had left afterwards.
    with tampered(tampering), contextlib.suppress(zmq.Again):
        way.send_message(client, [b"a", b"b", b"c" * 70_000, b"d"])
    assert tampering.sent == 4
    client.connect(address)
    way.send_message(client, [b"next", b"message"])
    assert _read(way, server) == [b"next", b"message"]


@pytest.mark.parametrize("way", _ACCELERATED, ids=lambda way: way.name, indirect=True)
def test_a_signal_in_the_middle_of_a_message_is_survived(
    way: Implementation, sockets: Sockets, tampered: Callable[[Tampering], Any]
) -> None:
    """libzmq may return early for a signal at any call; pyzmq sees to that for the pure way."""
    server, client = sockets.pair()
    tampering = Tampering(
        before_send=lambda frame: errno.EINTR if frame in (1, 3, 4) else None,
        before_receive=lambda frame: errno.EINTR if frame in (1, 3, 4) else None,
    )
    with tampered(tampering):
        way.send_message(client, [b"a", b"b", b"c" * 70_000])
        assert _read(way, server) == [b"a", b"b", b"c" * 70_000]
        assert way.read_messages(server, 5) == []
    assert (tampering.sent, tampering.received) == (6, 7)


@pytest.mark.parametrize("way", _ACCELERATED, ids=lambda way: way.name, indirect=True)
def test_a_frame_that_does_not_fit_into_memory_costs_only_its_message(
    way: Implementation, sockets: Sockets, tampered: Callable[[Tampering], Any]
) -> None:
    """What is left of it would otherwise be read as a message of its own."""
    server, client = sockets.pair()
    way.send_message(client, [b"a", b"b", b"c"])
    way.send_message(client, [b"next"])
    _await(server)
    with tampered(Tampering(sizes={2: 2**62})), pytest.raises(MemoryError):
        way.read_messages(server, 5)
    assert _read(way, server) == [b"next"]


def test_an_error_behind_messages_does_not_cost_them(
    way: Implementation, sockets: Sockets, tampered: Callable[[Tampering], Any]
) -> None:
    """They were taken out of the socket: nobody else could hand them on."""
    server, client = sockets.pair()
    for _ in range(3):
        way.send_message(client, [b"a", b"b"])
    found: list[Frames] = []
    with tampered(Tampering(before_receive=lambda frame: errno.ENOTSOCK if frame > 4 else None)):
        deadline = time.monotonic() + _WAIT_S_MAX
        while server.poll(0) == 0 and time.monotonic() < deadline:
            pass
        with pytest.raises(zmq.ZMQError) as failure:
            while time.monotonic() < deadline:
                found += way.read_messages(server, 5)
    assert failure.value.errno == errno.ENOTSOCK
    assert found[0] == [b"a", b"b"]


# --- memory -----------------------------------------------------------------------------------------


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("body_bytes", "more_frames", "count"), [(32, 0, 20_000), (32, 17, 5_000), (100_000, 0, 1_500)]
)
def test_memory_stays_flat(
    way: Implementation, sockets: Sockets, body_bytes: int, more_frames: int, count: int
) -> None:
    """A frame that is never let go of ends a broker within the hour."""
    server, client = sockets.pair(zmq.ROUTER)
    body = b"x" * body_bytes
    at_once = 100 if body_bytes < 1_000 else 10

    def exchange(messages_max: int) -> None:
        for _ in range(messages_max // at_once):
            for _ in range(at_once):
                way.send_message(client, [b"", b"header", *[b""] * more_frames, body + b"y"])
            for message in _read_many(way, server, at_once):
                way.send_message(server, message)
            _read_many(way, client, at_once)

    exchange(count // 4)
    gc.collect()
    before = _resident_bytes()
    exchange(count)
    gc.collect()
    # Bodies that stayed would be 2.6 or 150 MB, places for many frames 13 MB.
    assert _resident_bytes() - before < 2_000_000


def test_a_frame_is_let_go_of_when_it_was_sent(way: Implementation, sockets: Sockets) -> None:
    """Large ones are lent to libzmq: forgotten there, they would stay forever, let go of too early, be overwritten."""
    server, client = sockets.pair()
    body = os.urandom(_LARGE)
    before = sys.getrefcount(body)
    for _ in range(5):
        way.send_message(client, [b"", body])
    assert [frames[1] == body for frames in _read_many(way, server, 5)] == [True] * 5
    deadline = time.monotonic() + _WAIT_S_MAX
    while sys.getrefcount(body) > before and time.monotonic() < deadline:
        way.read_message(client)
    assert sys.getrefcount(body) == before


def test_frames_that_cannot_be_sent_are_let_go_of_at_once(way: Implementation, sockets: Sockets) -> None:
    """Who is refused by a full queue often tries again: each time would cost the size of the body."""
    alone = sockets.new(zmq.DEALER)
    body = os.urandom(_LARGE)
    before = sys.getrefcount(body)
    for _ in range(10):
        with pytest.raises(zmq.Again):
            way.send_message(alone, [b"", body])
    way.read_message(alone)
    assert sys.getrefcount(body) == before


def test_frames_outlive_their_sender(way: Implementation, sockets: Sockets) -> None:
    """The caller may forget the body as soon as the call returned; libzmq reads it later."""
    server, client = sockets.pair()
    bodies = [os.urandom(200_000) for _ in range(20)]
    for body in bodies:
        way.send_message(client, [bytes(memoryview(body))])
    gc.collect()
    churn = [bytes([number]) * 200_000 for number in range(20)]
    assert [frames[0] for frames in _read_many(way, server, 20)] == bodies
    assert len(churn) == 20


def test_threads_with_sockets_of_their_own_do_not_disturb_each_other(way: Implementation, sockets: Sockets) -> None:
    """What was sent is let go of by whoever comes next, which may be another thread."""
    wrong: list[object] = []

    def run(number: int, pair: tuple[Socket, Socket]) -> None:
        server, client = pair
        body = bytes([number]) * 70_000
        for turn in range(100):
            sent = [b"%d" % turn, body, b"end"]
            way.send_message(client, sent)
            found = _read_many(way, server, 1)
            if found != [sent]:
                wrong.append(found)

    threads = [threading.Thread(target=run, args=(number, sockets.pair())) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_WAIT_S_MAX * 4)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


_EXIT = """
import zmq
from reliable.messages import send_message
context = zmq.Context()
server, client = context.socket(zmq.PULL), context.socket(zmq.PUSH)
port = server.bind_to_random_port("tcp://127.0.0.1")
client.connect(f"tcp://127.0.0.1:{port}")
for _ in range(50):
    send_message(client, [b"x" * 1_000_000])
print("end")
client.close(linger=0)
server.close(linger=0)
"""


def test_a_program_may_end_while_large_frames_are_under_way() -> None:
    """libzmq reports them as sent when the interpreter may be gone: that must not touch it any more."""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", _EXIT], capture_output=True, text=True, timeout=50, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


# --- which way is chosen ----------------------------------------------------------------------------


def _chosen(**environment: str) -> str:
    script = "from reliable import messages as m; print(m.implementation(), m.ACCELERATED, m.WHY_NOT_ACCELERATED)"
    clean = {name: value for name, value in os.environ.items() if name != "RELIABLE_PURE"}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    ).stdout.strip()


def test_the_environment_can_force_the_pure_way() -> None:
    """Whoever looks for a defect wants to know at once whether the accelerator has to do with it."""
    assert _chosen(RELIABLE_PURE="1") == "pure False RELIABLE_PURE is set"
    assert _chosen(RELIABLE_PURE="0") == _chosen()


def test_what_is_used_is_told() -> None:
    """`reliable doctor` passes it on."""
    assert messages.implementation() == IMPLEMENTATIONS[0].name
    assert messages.ACCELERATED is (messages.WHY_NOT_ACCELERATED is None) is (messages.implementation() != "pure")
    assert IMPLEMENTATIONS[-1] is PURE
    assert (messages.read_message, messages.read_messages, messages.send_message) == (
        IMPLEMENTATIONS[0].read_message,
        IMPLEMENTATIONS[0].read_messages,
        IMPLEMENTATIONS[0].send_message,
    )


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing forced the pure way, and the accelerator could be imported."""
    monkeypatch.delenv("RELIABLE_PURE", raising=False)
    if not _ACCELERATED:
        stand_in = type(sys)("reliable._accelerator")
        monkeypatch.setitem(sys.modules, "reliable._accelerator", stand_in)


def test_other_backends_of_pyzmq_are_not_touched(importable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PyPy pyzmq keeps its sockets in another way."""
    other = type("Socket", (), {"__module__": "zmq.backend.cffi.socket"})
    monkeypatch.setattr(zmq.backend, "Socket", other)
    chosen, why = messages._choose()
    assert chosen is PURE
    assert why == "pyzmq's backend zmq.backend.cffi.socket is not the one compiled for CPython"


def test_a_function_that_libzmq_lacks_leaves_the_pure_way(importable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some builds of pyzmq hide what they contain."""
    monkeypatch.setattr(messages, "_FUNCTIONS", (*messages._FUNCTIONS, "zmq_no_such_function"))
    chosen, why = messages._choose()
    assert chosen is PURE
    assert why is not None
    assert "zmq_no_such_function" in why


def test_another_generation_of_libzmq_leaves_the_pure_way(importable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its messages may be of another size, which nothing would notice until memory is overwritten."""
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: (5, 0, 0))
    chosen, why = messages._choose()
    assert chosen is PURE
    assert why is not None
    assert "may lay out its messages in another way" in why
