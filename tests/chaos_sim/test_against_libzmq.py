"""The virtual network against libzmq itself: the same steps on both, and the same is seen.

What is random on either side, as where exactly a cut falls, is asked about in a form that is not: "a prefix", "all".
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeAlias

import pytest
import zmq

from chaos.sim.clock import Agenda, VirtualClock
from chaos.sim.network import FIRST_ROUTING_ID, Network, NetworkModel, SendResult
from chaos.sim.trace import Trace
from reliable.protocol.events import LinkClosed, LinkOpened, Received
from tests.chaos_sim.stages import Stage, real_stage, simulated_stage
from tests.support.ports import free_endpoint

pytestmark = pytest.mark.usefixtures("no_leaks")

Seen: TypeAlias = list[object]


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def is_prefix(words: list[str], count: int) -> bool:
    return words == numbers(count)[: len(words)]


def both_ways_in_order(stage: Stage) -> Seen:
    """Per connection and direction."""
    link = stage.open()
    taken = all(stage.up(link, number) for number in range(100))
    arrived = stage.server_reads() == numbers(100)
    sent = {stage.down(stage.peers[0], number) for number in range(100)}
    return [taken, arrived, sent, stage.says(link) == numbers(100)]


def a_cut_loses_the_end(stage: Stage) -> Seen:
    """And both sides are told, one by an event, the other when it sends."""
    link = stage.open()
    stage.up(link, 0)
    first = stage.server_reads()
    for number in range(500):
        stage.up(link, number)
    stage.cut()
    end = stage.end_of(link)
    arrived = stage.server_reads()
    return [first, end, is_prefix(arrived, 500), stage.gone(stage.peers[0]), stage.up(link, 1)]


def what_a_dead_client_said_is_still_read(stage: Stage) -> Seen:
    """Its routing id is over, what it had sent is not."""
    link = stage.open()
    for number in range(50):
        stage.up(link, number)
    stage.settle()
    stage.close(link)
    stage.settle()
    return [stage.server_reads() == numbers(50), stage.gone(stage.peers[0])]


def what_a_dead_server_said_is_read_before_its_end(stage: Stage) -> Seen:
    """Replies that arrived are evidence that must not be lost with the link."""
    link = stage.open()
    stage.up(link, 0)
    stage.server_reads()
    for number in range(50):
        stage.down(stage.peers[0], number)
    stage.settle()
    stage.stop_server()
    end = stage.end_of(link)
    return [end, stage.says(link) == [*numbers(50), "LOST"]]


def a_new_connection_has_a_new_id(stage: Stage) -> Seen:
    """The old one leads nowhere, although the same process is there."""
    first = stage.open()
    stage.up(first, 0)
    stage.server_reads()
    stage.cut()
    end = stage.end_of(first)
    second = stage.open()
    stage.up(second, 1)
    heard = stage.server_reads()
    old, new = stage.peers
    return [end, heard, old != new, stage.gone(old), stage.down(new, 3), stage.says(second), stage.says(first)]


def two_connections_of_one_process_have_two_ids(stage: Stage) -> Seen:
    """Each has its own order and its own end."""
    first, second = stage.open(), stage.open()
    stage.up(first, 1)
    stage.server_reads()
    stage.up(second, 2)
    stage.server_reads()
    stage.close(first)
    return [
        len(stage.peers),
        [stage.gone(stage.peers[0]), stage.down(stage.peers[1], 5)],
        stage.says(second),
        stage.says(first),
    ]


def an_id_that_never_was_cannot_be_sent_to(stage: Stage) -> Seen:
    """With ROUTER_MANDATORY that is an error and not silence."""
    return [stage.down(b"\x00none", 1)]


def nobody_listens(stage: Stage) -> Seen:
    """Told at once."""
    stage.stop_server()
    link = stage.open()
    return [stage.says(link), stage.up(link, 1)]


def nothing_meant_for_one_server_reaches_the_next(stage: Stage) -> Seen:
    """Since no link comes back by itself."""
    link = stage.open()
    stage.up(link, 0)
    first = stage.server_reads()
    stage.stop_server()
    for number in range(1, 6):
        stage.up(link, number)
    end = stage.end_of(link)
    stage.start_server()
    stage.settle()
    again = stage.open()
    stage.up(again, 9)
    return [first, end, stage.server_reads()]


def a_silent_loss_is_taken_and_found_out_later(stage: Stage) -> Seen:
    """The socket takes what goes nowhere, until heartbeats stay away."""
    link = stage.open()
    stage.up(link, 0)
    first = stage.server_reads()
    stage.swallow()
    taken = [stage.up(link, number) for number in range(1, 4)]
    end = stage.end_of(link)
    return [first, taken, end, stage.server_reads(), stage.gone(stage.peers[0])]


def a_link_that_is_closed_in_peace_loses_nothing(stage: Stage) -> Seen:
    """A goodbye is said with linger."""
    link = stage.open()
    for number in range(100):
        stage.up(link, number)
    stage.close(link, linger=True)
    return [stage.server_reads() == numbers(100), stage.up(link, 1)]


def a_link_that_is_closed_at_once_loses_the_end(stage: Stage) -> Seen:
    """Never the middle."""
    link = stage.open()
    for number in range(100):
        stage.up(link, number)
    stage.close(link)
    return [is_prefix(stage.server_reads(), 100)]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (both_ways_in_order, [True, True, {"SENT"}, True]),
        (a_cut_loses_the_end, [["0"], "LOST", True, "UNREACHABLE", False]),
        (what_a_dead_client_said_is_still_read, [True, "UNREACHABLE"]),
        (what_a_dead_server_said_is_read_before_its_end, ["LOST", True]),
        (a_new_connection_has_a_new_id, ["LOST", ["1"], True, "UNREACHABLE", "SENT", ["3"], ["LOST"]]),
        (two_connections_of_one_process_have_two_ids, [2, ["UNREACHABLE", "SENT"], ["5"], []]),
        (an_id_that_never_was_cannot_be_sent_to, ["UNREACHABLE"]),
        (nobody_listens, [["REFUSED"], False]),
        (nothing_meant_for_one_server_reaches_the_next, [["0"], "LOST", ["9"]]),
        (a_silent_loss_is_taken_and_found_out_later, [["0"], [True] * 3, "LOST", [], "UNREACHABLE"]),
        (a_link_that_is_closed_in_peace_loses_nothing, [True, False]),
        (a_link_that_is_closed_at_once_loses_the_end, [True]),
    ],
)
def test_the_virtual_network_does_what_libzmq_does(script: Callable[[Stage], Seen], expected: Seen) -> None:
    """What is proven on the virtual network is worth as much as the network is like the real one."""
    with real_stage() as real:
        assert script(real) == expected, "libzmq does not do what is written here"
    for seed in range(5):
        with simulated_stage(seed) as simulated:
            assert script(simulated) == expected, "the virtual network does something else than libzmq"


_FIRST_IDS = """
import sys, zmq
context = zmq.Context()
router = context.socket(zmq.ROUTER)
port = router.bind_to_random_port("tcp://127.0.0.1")
ids = []
for number in range(3):
    dealer = context.socket(zmq.DEALER)
    dealer.connect(f"tcp://127.0.0.1:{port}")
    dealer.send(b"")
    assert router.poll(5000)
    ids.append(int.from_bytes(router.recv_multipart()[0][1:], "big"))
print(*ids)
context.destroy(linger=0)
"""


def test_a_process_that_starts_again_gives_out_the_ids_of_its_former_life() -> None:
    """The trap behind "never forward a reply that does not match this life": unseeded, each run counts alike."""
    runs = [
        subprocess.run([sys.executable, "-c", _FIRST_IDS], capture_output=True, text=True, timeout=30, check=True)
        for _ in range(2)
    ]
    first, second = ([int(word) for word in run.stdout.split()] for run in runs)
    assert first == second
    assert [number - first[0] for number in first] == [0, 1, 2]
    simulated = [_simulated_ids(), _simulated_ids()]
    assert simulated[0] == simulated[1] == [FIRST_ROUTING_ID, FIRST_ROUTING_ID + 1, FIRST_ROUTING_ID + 2]


class _Idle:
    name = "p"
    frozen = False

    def deliver(self, event: LinkOpened | LinkClosed | Received) -> None:
        """Nobody looks."""


def _simulated_ids() -> list[int]:
    clock = VirtualClock()
    agenda = Agenda(clock)
    network = Network(agenda, random.Random(1), Trace(clock))
    server = network.bind(_Idle(), "tcp://b:1", lambda: None)
    for link in range(3):
        network.connect(_Idle(), link, "tcp://b:1")
        agenda.run_until(clock() + 1.0)
    return [int.from_bytes(peer[1:], "big") for peer in server.peers]


def test_a_peer_that_does_not_read_fills_its_pipe_and_no_other() -> None:
    """EAGAIN says that a pipe is full; what was taken arrives in order once the peer reads, and then there is room."""
    assert _real_pipe() == _simulated_pipe() == ["SENT", "FULL", "SENT to another", "all in order", "SENT"]


def _pattern(results: list[str]) -> list[str]:
    """Without repetitions."""
    return [word for number, word in enumerate(results) if number == 0 or results[number - 1] != word]


def _real_pipe() -> list[str]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    dealers = [context.socket(zmq.DEALER) for _ in range(2)]
    try:
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.SNDHWM, 5)
        router.setsockopt(zmq.SNDBUF, 8192)
        endpoint = free_endpoint()
        router.bind(endpoint)
        peers = []
        for dealer in dealers:
            dealer.setsockopt(zmq.RCVHWM, 5)
            dealer.setsockopt(zmq.RCVBUF, 8192)
            dealer.connect(endpoint)
            dealer.send(b"")
            assert router.poll(5_000)
            peers.append(router.recv_multipart()[0])
        results = _fill(router, peers[0])
        sent = results.count("SENT")
        seen = [*_pattern(results), f"{_try(router, peers[1], 0)} to another"]
        got = []
        while dealers[0].poll(500):
            got.append(int(dealers[0].recv()[:8]))
        seen.append("all in order" if got == list(range(sent)) else f"{got} of {sent}")
        return [*seen, _try(router, peers[0], 0)]
    finally:
        context.destroy(linger=0)


def _fill(router: zmq.Socket[bytes], peer: bytes) -> list[str]:
    """Until the pipe stays full: what lies in it may still move on into the buffers of the kernel."""
    results: list[str] = []
    full_since: float | None = None
    end = time.monotonic() + 20.0
    while full_since is None or time.monotonic() - full_since < 0.3:
        assert time.monotonic() < end, "the pipe never fills"
        if _try(router, peer, len(results)) == "SENT":
            results.append("SENT")
            full_since = None
        elif full_since is None:
            full_since = time.monotonic()
            time.sleep(0.005)
        else:
            time.sleep(0.005)
    return [*results, "FULL"]


def _try(router: zmq.Socket[bytes], peer: bytes, number: int) -> str:
    try:
        router.send_multipart([peer, b"%08d" % number + bytes(16_384)], zmq.NOBLOCK)
    except zmq.Again:
        return "FULL"
    return "SENT"


def _simulated_pipe() -> list[str]:
    clock = VirtualClock()
    agenda = Agenda(clock)
    network = Network(agenda, random.Random(1), Trace(clock), NetworkModel(messages_in_flight_max=5))
    server = network.bind(_Idle(), "tcp://b:1", lambda: None)
    got: list[int] = []

    class Reader(_Idle):
        def deliver(self, event: LinkOpened | LinkClosed | Received) -> None:
            if isinstance(event, Received):
                got.append(int(event.frames[0]))

    for link, owner in enumerate((Reader(), _Idle())):
        network.connect(owner, link, "tcp://b:1")
        agenda.run_until(clock() + 1.0)
    first, second = server.peers
    # In the model a peer that does not read is one whose messages stay under way.
    server.send([first, b"0"])
    network.clog("p", "tcp://b:1", clock() + 10.0)
    results = ["SENT", *[server.send([first, b"%d" % number]).name for number in range(1, 20)]]
    other = server.send([second, b"0"])
    agenda.run_until(clock() + 20.0)
    in_order = got == list(range(results.count("SENT")))
    seen = [*_pattern(results), f"{other.name} to another", "all in order" if in_order else f"{got}"]
    return [*seen, SendResult(server.send([first, b"0"])).name]
