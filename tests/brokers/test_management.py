"""8/MMI answered by the broker itself: truthful, without traces, in the dialect of the asker."""

from __future__ import annotations

import msgspec
import pytest

from brokers.config import BrokerConfig
from brokers.management import Management
from brokers.peers import Worker
from brokers.snapshot import BrokerSnapshot, take_snapshot
from brokers.state import BrokerState
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import AnswerFrame, CallFlag, CallFrame, CallKind, Hello, HelloAnswer, Role
from reliable.wire.mdp import ClientReply, ClientRequest, Version, decode_at_client
from reliable.wire.mmi import read_time_answer

LIFE = b"life-one"
CALL_FRAME = CallFrame(CallKind.SUBMIT, CallFlag.NONE, 2, b"0123456789abcdef", bytes(16), LIFE, 0, 0, bytes(16))


class Desk:
    """Management over a broker's tables."""

    def __init__(self) -> None:
        self.state = BrokerState(BrokerConfig(message_bytes_max=4096), LIFE, 100.0)
        self.management = Management(self.state, self.snapshot)

    def snapshot(self) -> BrokerSnapshot:
        return take_snapshot(self.state, self.state.now)

    def ask(
        self, service: bytes, *body: bytes, version: Version = Version.MDP01, stack: Frames | None = None
    ) -> ClientReply:
        """One question, one answer."""
        self.management.receive(b"peer", ClientRequest(version, service, list(body), stack or []))
        message = self.state.outbox.popleft()
        assert message[0] == b"peer"
        return decode_at_client(message[1:])


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.mark.parametrize("version", list(Version))
def test_service_is_found_while_a_worker_can_be_reached(desk: Desk, version: Version) -> None:
    """Clients decide by it whether to call at all."""
    assert desk.ask(b"mmi.service", b"echo", version=version).body == [b"404"]
    worker = Worker(b"w", Version.MDP01, 100.0)
    desk.state.services.offer(b"echo").offer(worker, None)
    reply = desk.ask(b"mmi.service", b"echo", version=version)
    assert reply == ClientReply(version, b"mmi.service", [b"200"], [], True)
    worker.stuck = True
    assert desk.ask(b"mmi.service", b"echo", version=version).body == [b"404"]


STAMP = b"8 bytes."
CLIENT_HELLO = Hello(Role.CLIENT, b"instance of it..").encode()


def since_hello_ms(reply: ClientReply) -> int:
    """What an answer about the time says."""
    told = read_time_answer(reply.body[1:])
    assert reply.body[0] == b"200" and told is not None and told[0] == STAMP
    return told[1]


def test_the_time_is_what_has_passed_since_the_hello(desk: Desk) -> None:
    """By it a peer finds out what its clock has lost or won against ours."""
    desk.ask(b"mmi.reliable", CLIENT_HELLO)
    desk.state.now += 86_400.0125
    assert since_hello_ms(desk.ask(b"mmi.reliable.time", STAMP)) == 86_400_012, "rounded down"
    desk.state.now += 1.0
    assert since_hello_ms(desk.ask(b"mmi.reliable.time", STAMP)) == 86_401_012, "asking moves nothing"
    client = desk.state.peers.get(b"peer")
    assert client is not None and client.greeted_at == 100.0
    desk.ask(b"mmi.reliable", CLIENT_HELLO)
    assert since_hello_ms(desk.ask(b"mmi.reliable.time", STAMP)) == 0, "a second hello begins a new session"


def test_who_said_no_hello_is_told_no_time(desk: Desk) -> None:
    """Its frames would be dropped, which it can know only from here."""
    assert desk.ask(b"mmi.reliable.time", STAMP).body == [b"404"]
    assert len(desk.state.peers) == 0
    desk.state.peers.make(b"peer")
    assert desk.ask(b"mmi.reliable.time", STAMP).body == [b"404"], "a plain client"


def test_clients_behind_a_proxy_are_told_their_own_time(desk: Desk) -> None:
    """They share the connection, not the hello."""
    desk.ask(b"mmi.reliable", CLIENT_HELLO, stack=[b"one"])
    desk.state.now += 5.0
    desk.ask(b"mmi.reliable", CLIENT_HELLO, stack=[b"two"])
    desk.state.now += 1.0
    assert since_hello_ms(desk.ask(b"mmi.reliable.time", STAMP, stack=[b"one"])) == 6000
    assert since_hello_ms(desk.ask(b"mmi.reliable.time", STAMP, stack=[b"two"])) == 1000
    assert desk.ask(b"mmi.reliable.time", STAMP).body == [b"404"]


def test_a_worker_is_told_the_time_that_its_deliveries_are_reckoned_by(desk: Desk) -> None:
    """That is fixed by its READY, also if the hello is forgotten or said again."""
    worker = Worker(b"peer", Version.MDP02, 100.0, instance=b"i" * 16, greeted_at=99.0)
    desk.state.workers[b"peer"] = worker
    desk.state.now = 109.5
    assert since_hello_ms(desk.ask(b"mmi.reliable.time", STAMP)) == 10_500
    desk.ask(b"mmi.reliable", CLIENT_HELLO)
    assert since_hello_ms(desk.ask(b"mmi.reliable.time", STAMP)) == 10_500
    desk.state.workers[b"peer"] = Worker(b"peer", Version.MDP01, 100.0)
    assert desk.ask(b"mmi.reliable.time", STAMP).body == [b"404"], "a foreign worker has no hello"


@pytest.mark.parametrize("body", [[], [b""], [b"7 bytes"], [STAMP, STAMP]])
def test_a_question_about_the_time_without_a_stamp_is_none(desk: Desk, body: Frames) -> None:
    """Its answer could not be told from that to another."""
    desk.ask(b"mmi.reliable", CLIENT_HELLO)
    assert desk.ask(b"mmi.reliable.time", *body).body == [b"501"]


def test_asking_leaves_no_trace(desk: Desk) -> None:
    """A name that was only asked for is no service."""
    desk.ask(b"mmi.service", b"ghost")
    assert desk.state.services.get(b"ghost") is None
    assert len(desk.state.peers) == 0


@pytest.mark.parametrize("name", [b"mmi.", b"mmi.service2", b"mmi.echo", b"mmi.reliable.other"])
def test_other_names_are_not_implemented(desk: Desk, name: bytes) -> None:
    """8/MMI: 501, at once."""
    assert desk.ask(name, b"x").body == [b"501"]


@pytest.mark.parametrize("name", [b"mmi.service", b"mmi.reliable"])
def test_question_with_several_frames_is_not_implemented(desk: Desk, name: bytes) -> None:
    """The RFC knows one name per question; guessing which is meant would answer another one."""
    assert desk.ask(name, b"a", b"b").body == [b"501"]


def test_hello_stamps_the_moment_and_says_who_we_are(desk: Desk) -> None:
    """All deadlines of this peer are reckoned from here."""
    hello = Hello(Role.CLIENT, b"i" * 16, 1000)
    reply = desk.ask(b"mmi.reliable", hello.encode())
    assert reply.body[0] == b"200"
    assert HelloAnswer.decode(reply.body[1:]) == HelloAnswer(LIFE, 4096)
    peer = desk.state.peers.get(b"peer")
    assert peer is not None
    assert (peer.hello, peer.greeted_at, peer.version) == (hello, 100.0, None)
    desk.state.now = 105.0
    desk.ask(b"mmi.reliable", hello.encode())
    assert peer.greeted_at == 105.0


def test_hello_through_a_proxy_belongs_to_the_address_behind_it(desk: Desk) -> None:
    """Two clients behind one proxy have two clocks."""
    hello = Hello(Role.CLIENT, b"i" * 16).encode()
    reply = desk.ask(b"mmi.reliable", hello, stack=[b"behind"])
    assert reply.stack == [b"behind"]
    assert desk.state.peers.get((b"peer", b"behind")) is not None
    assert desk.state.peers.get(b"peer") is None


def test_hello_that_cannot_be_read_is_not_implemented(desk: Desk) -> None:
    """Its sender, perhaps of a later version, then goes on in plain MDP."""
    assert desk.ask(b"mmi.reliable", b"what").body == [b"501"]
    assert len(desk.state.peers) == 0


def test_status_is_the_snapshot_as_json(desk: Desk) -> None:
    """What the command line shows is what the broker knows, and nothing that JSON cannot say."""
    desk.state.services.offer(b"caf\xe9").offer(Worker(b"w\0", Version.MDP01, 100.0), None)
    reply = desk.ask(b"mmi.reliable.status", b"")
    assert reply.body[0] == b"200"
    status = msgspec.json.decode(reply.body[1])
    assert status["life"] == LIFE.hex()
    assert status["services"][0]["name"] == "caf\\xe9"
    assert status["limits"]["message_bytes_max"] == 4096
    assert msgspec.json.decode(reply.body[1], type=BrokerSnapshot).services == desk.snapshot().services


def test_question_with_a_call_frame_gets_an_answer_frame(desk: Desk) -> None:
    """Our clients match answers by call id, whatever they ask."""
    reply = desk.ask(b"mmi.service", b"echo", version=Version.MDP02, stack=[b"proxy", CALL_FRAME.encode()])
    assert reply.stack[0] == b"proxy"
    answer = AnswerFrame.decode(reply.stack[1])
    assert (answer.status, answer.attempt, answer.call_id) == (Status.OK, 2, CALL_FRAME.call_id)


def test_question_with_a_broken_call_frame_is_dropped(desk: Desk) -> None:
    """Nobody could match the answer."""
    broken = CALL_FRAME.encode()[:-1]
    desk.management.receive(b"peer", ClientRequest(Version.MDP02, b"mmi.service", [b"echo"], [broken]))
    assert not desk.state.outbox
    assert desk.state.counters.dropped_invalid == 1
