"""The broker's state table for workers, in full: every state, every event, for each kind of worker.

The states are those that the broker can have of a routing id: *unknown*, *idle*, *busy* with a request, *told* (it was
sent a DISCONNECT and a tombstone keeps it from getting another one). Each pair names what is sent to the worker, what
its caller is told, whether the request in its hands goes to another worker, and the state afterwards. The product is
built, and a pair without an expectation is a failure.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

import attrs
import pytest

from reliable.status import Status
from reliable.wire.extension import CONTROL_TOKEN, MAGIC, CallFlag, GiveBackReason, make_token
from reliable.wire.mdp import (
    ClientReply,
    ClientRequest,
    Version,
    WorkerDisconnect,
    WorkerHeartbeat,
    WorkerReady,
    WorkerRequest,
    decode_at_worker,
)
from tests.support.broker_bench import LIFE, SLACK_S, Bench, ForeignWorker, OurClient, OurWorker

KINDS: Final = ("0.1", "0.2", "ours")
STATES: Final = ("unknown", "idle", "busy", "told")


class Scene:
    """A worker in one of the states, a caller whose call it holds if busy, a spare worker, and a rival elsewhere."""

    def __init__(self, kind: str, state: str) -> None:
        self.bench = Bench()
        self.kind = kind
        self.caller = OurClient(self.bench, b"caller")
        self.other_caller = OurClient(self.bench, b"other-caller")
        self.rival = ForeignWorker(self.bench, b"rival", Version.MDP02, b"other").ready()
        self.other_caller.submit(b"other", [b"not yours"], timeout_s=60)
        self.rivals_token = self.rival.request().address
        self.worker: ForeignWorker | OurWorker = self._worker()
        self.token = make_token(LIFE, 999)
        """What the worker holds, or held, or a token that nobody ever had."""
        self.spare = ForeignWorker(self.bench, b"spare", Version.MDP02)
        self._bring_to(state)
        self.bench.keep_alive(self.spare, self.rival)
        self.worker.unread()
        self.caller.answers()

    def _worker(self) -> ForeignWorker | OurWorker:
        if self.kind == "ours":
            return OurWorker(self.bench, b"worker")
        return ForeignWorker(self.bench, b"worker", Version(self.kind))

    def _bring_to(self, state: str) -> None:
        if state != "unknown":
            self.worker.ready()
            self.token = self._hand_over()
            if state != "busy":
                self.reply(self.token)
            if state == "told":
                self.worker.ready()
                assert self.worker.disconnects() == 1
        self.spare.ready()

    def _hand_over(self) -> bytes:
        self.caller.submit(body=[b"work"], flags=CallFlag.IDEMPOTENT, timeout_s=60)
        if isinstance(self.worker, OurWorker):
            return self.worker.job().token
        return self.worker.request().address

    def reply(self, token: bytes) -> None:
        """The final reply of the worker, in its own manner."""
        if isinstance(self.worker, OurWorker):
            self.worker.result(token, b"done")
        else:
            self.worker.send_reply(token, b"done")

    def partial(self, token: bytes) -> None:
        """A part of a reply."""
        if isinstance(self.worker, OurWorker):
            self.worker.partial(token, b"part")
        else:
            self.worker.send_reply(token, b"part", final=False)

    def ours(self) -> OurWorker:
        """The worker, for events that only ours can cause."""
        assert isinstance(self.worker, OurWorker)
        return self.worker

    def other_version(self) -> Version:
        """The version that the worker does not speak."""
        return Version.MDP01 if self.worker.version is Version.MDP02 else Version.MDP02

    def sent(self) -> list[str]:
        """What the worker got, heartbeats left out."""
        names = {WorkerRequest: "REQUEST", WorkerDisconnect: "DISCONNECT", ClientReply: "MMI"}
        commands = [decode_at_worker(frames) for frames in self.worker.unread()]
        return [names[type(command)] for command in commands if not isinstance(command, WorkerHeartbeat)]

    def state(self) -> str:
        """Which state the broker has the worker in: by its snapshot, else by how it takes a HEARTBEAT."""
        shown = self.bench.state(self.worker)
        if shown is not None:
            return {"idle": "idle", "working": "busy", "unverified": "busy", "stuck": "stuck"}[shown]
        self.bench.unreachable.discard(self.worker.id)
        self.worker.unread()
        self.worker.heartbeat()
        probed = self.sent()
        assert probed in ([], ["DISCONNECT"])
        return "unknown" if probed else self._told_or_client()

    def _told_or_client(self) -> str:
        if self.kind == "ours":
            self.worker.version = Version.MDP02
        self.worker.ready()
        registered = self.bench.state(self.worker) is not None
        self.worker.disconnect()
        return "told" if registered else "client"


@attrs.frozen
class Expect:
    """What must follow of one event in one state."""

    after: str
    sent: tuple[str, ...] | None = ()
    """To the worker, heartbeats left out; None where no rule decides."""
    requeued: bool = False
    answered: tuple[Status, ...] = ()
    """To the caller, in order; news about a running call left out."""


def told(*, requeued: bool = False) -> Expect:
    """Exactly one DISCONNECT, then silence."""
    return Expect("told", ("DISCONNECT",), requeued)


def _row(unknown: Expect, idle: Expect, busy: Expect, told_: Expect) -> dict[str, Expect]:
    return {"unknown": unknown, "idle": idle, "busy": busy, "told": told_}


def _unexpected() -> dict[str, Expect]:
    """A valid command where it does not belong: DISCONNECT once, whatever the worker held goes to another one."""
    return _row(told(), told(), told(requeued=True), Expect("told"))


def _malformed() -> dict[str, Expect]:
    """Dropped; a registered worker is invalid from then on."""
    return _row(Expect("unknown"), told(), told(requeued=True), Expect("told"))


def _only_if_busy(busy: Expect) -> dict[str, Expect]:
    """A message about the request in hand: unexpected where there is none."""
    return {**_unexpected(), "busy": busy}


def _ignored() -> dict[str, Expect]:
    return {state: Expect(state) for state in STATES}


Event = Callable[[Scene], None]
EVENTS: dict[str, Event] = {}
EVENT_KINDS: dict[str, tuple[str, ...]] = {}
TABLE: dict[str, dict[str, Expect]] = {}
EXCEPTIONS: dict[tuple[str, str, str], Expect] = {}
"""(kind, event, state) where a kind of worker differs from the rest."""


def _event(
    expectations: dict[str, Expect],
    *,
    kinds: tuple[str, ...] = KINDS,
    exceptions: dict[tuple[str, str], Expect] | None = None,
) -> Callable[[Event], Event]:
    def register(function: Event) -> Event:
        name = function.__name__.lstrip("_")
        EVENTS[name] = function
        EVENT_KINDS[name] = kinds
        TABLE[name] = expectations
        for (kind, state), expect in (exceptions or {}).items():
            EXCEPTIONS[kind, name, state] = expect
        return function

    return register


NEWER: Final = ("0.2", "ours")
OURS: Final = ("ours",)
FOREIGN: Final = ("0.1", "0.2")


@_event(_row(Expect("idle"), told(), told(requeued=True), Expect("idle")))
def _ready(scene: Scene) -> None:
    scene.worker.ready()


@_event(_row(Expect("idle"), told(), told(requeued=True), Expect("idle")), kinds=FOREIGN)
def _ready_in_the_other_version(scene: Scene) -> None:
    other = scene.other_version()
    if scene.bench.state(scene.worker) is None:
        scene.worker.version = other
    scene.worker.send(*WorkerReady(other, b"echo").encode())


@_event(_row(told(), told(), told(requeued=True), told()))
def _ready_for_a_reserved_name(scene: Scene) -> None:
    scene.worker.send(*WorkerReady(scene.worker.version, b"mmi.evil").encode())


@_event(_malformed(), kinds=OURS)
def _ready_with_a_broken_extension(scene: Scene) -> None:
    scene.worker.send(*WorkerReady(Version.MDP02, b"echo", MAGIC + b"\x31nonsense").encode())


@_event(_only_if_busy(Expect("idle", answered=(Status.OK,))))
def _reply_to_its_request(scene: Scene) -> None:
    scene.reply(scene.token)


@_event(_unexpected())
def _reply_to_the_request_of_another_worker(scene: Scene) -> None:
    scene.reply(scene.rivals_token)


@_event(_unexpected())
def _reply_to_the_routing_id_of_a_client(scene: Scene) -> None:
    scene.worker.send_reply(scene.other_caller.id, b"forged")


@_event(_only_if_busy(Expect("busy", answered=(Status.PARTIAL,))), kinds=NEWER)
def _partial_of_its_request(scene: Scene) -> None:
    scene.partial(scene.token)


@_event(_unexpected(), kinds=NEWER)
def _partial_for_another_request(scene: Scene) -> None:
    scene.partial(scene.rivals_token)


@_event(_only_if_busy(Expect("busy")), kinds=OURS)
def _started(scene: Scene) -> None:
    scene.ours().started(scene.token)


@_event(_only_if_busy(Expect("busy")), kinds=OURS)
def _progress(scene: Scene) -> None:
    scene.ours().progress(scene.token, b"half")


@_event(_only_if_busy(Expect("idle", answered=(Status.HANDLER_ERROR,))), kinds=OURS)
def _error(scene: Scene) -> None:
    scene.ours().error(scene.token)


@_event(_only_if_busy(Expect("idle", requeued=True)), kinds=OURS)
def _give_back(scene: Scene) -> None:
    scene.ours().give_back(scene.token, GiveBackReason.FULL)


@_event(_row(told(), Expect("idle", ("REQUEST",)), Expect("busy", ("REQUEST",)), Expect("told")), kinds=OURS)
def _credit(scene: Scene) -> None:
    scene.ours().set_credit(1)
    acknowledged = scene.ours().credit_acks()
    assert acknowledged == (1 if scene.bench.state(scene.worker) else 0)


@_event(_row(told(), Expect("idle"), Expect("busy"), Expect("told")))
def _heartbeat(scene: Scene) -> None:
    scene.worker.heartbeat()


@_event(_unexpected())
def _heartbeat_in_the_other_version(scene: Scene) -> None:
    other = scene.other_version()
    if scene.bench.state(scene.worker) is None and scene.worker.mail == []:
        scene.worker.version = other
    scene.worker.send(*WorkerHeartbeat(other).encode())


@_event(_row(Expect("unknown"), Expect("unknown"), Expect("unknown", requeued=True), Expect("told")))
def _disconnect(scene: Scene) -> None:
    scene.worker.disconnect()


@_event(_unexpected())
def _request_in_the_wrong_direction(scene: Scene) -> None:
    scene.worker.send(*WorkerRequest(scene.worker.version, scene.token, [b"x"]).encode())


@_event(_malformed())
def _unknown_command(scene: Scene) -> None:
    header = [b"", b"MDPW01"] if scene.worker.version is Version.MDP01 else [b"MDPW02"]
    scene.worker.send(*header, b"\x09")


@_event(_malformed())
def _header_without_command(scene: Scene) -> None:
    header = [b"", b"MDPW01"] if scene.worker.version is Version.MDP01 else [b"MDPW02"]
    scene.worker.send(*header)


@_event(_malformed())
def _junk(scene: Scene) -> None:
    scene.worker.send(b"junk", b"", b"more")


@_event(_malformed())
def _no_frames_at_all(scene: Scene) -> None:
    scene.worker.send()


@_event({**_unexpected(), "unknown": Expect("client")})
def _request_as_if_it_were_a_client(scene: Scene) -> None:
    scene.worker.send(*ClientRequest(scene.worker.version, b"nobody-offers-this", [b"x"]).encode())


@_event(
    _row(Expect("unknown", ("MMI",)), Expect("idle", ("MMI",)), Expect("busy", ("MMI",)), Expect("told", None)),
)
def _mmi_question(scene: Scene) -> None:
    scene.worker.send(*ClientRequest(scene.worker.version, b"mmi.service", [b"echo"]).encode())


@_event(_ignored())
def _probe(scene: Scene) -> None:
    scene.worker.send(b"")


def _be_silent(scene: Scene) -> None:
    scene.bench.advance(scene.bench.stuck_s + 2 * SLACK_S)


_STUCK: Final = {("ours", "idle"): Expect("stuck"), ("ours", "busy"): Expect("stuck", requeued=True)}


@_event(
    _row(Expect("unknown"), Expect("unknown"), Expect("busy"), Expect("unknown")),
    exceptions=_STUCK,
)
def _silence(scene: Scene) -> None:
    _be_silent(scene)


@_event(
    _row(
        Expect("unknown", ("DISCONNECT",)),
        Expect("unknown"),
        Expect("unknown", requeued=True),
        Expect("unknown"),
    ),
    exceptions=_STUCK,
)
def _heartbeat_then_silence(scene: Scene) -> None:
    scene.bench.beat_while_busy(scene.worker)
    _be_silent(scene)


@_event(_row(Expect("unknown"), Expect("unknown"), Expect("unknown", requeued=True), Expect("told")))
def _unreachable(scene: Scene) -> None:
    scene.bench.notice_death(scene.worker)


@_event(_ignored())
def _pipe_full(scene: Scene) -> None:
    scene.bench.full.add(scene.worker.id)
    scene.bench.advance(scene.bench.heartbeat_s + SLACK_S)
    scene.bench.full.clear()


PAIRS: Final = [(kind, state, name) for name in EVENTS for kind, state in itertools.product(EVENT_KINDS[name], STATES)]


def _expectation(kind: str, state: str, name: str) -> Expect:
    return EXCEPTIONS.get((kind, name, state)) or TABLE[name][state]


@pytest.mark.parametrize(("kind", "state", "name"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_event_in_state(kind: str, state: str, name: str) -> None:
    """The table decides between a pool that heals itself and one with ghosts, double bookings and lost requests."""
    scene = Scene(kind, state)
    expect = _expectation(kind, state, name)
    EVENTS[name](scene)
    if expect.sent is not None:
        assert tuple(scene.sent()) == expect.sent
    news = (Status.STARTED, Status.PROGRESS, Status.ACCEPTED)
    answered = tuple(answer.status for answer in scene.caller.answers() if answer.status not in news)
    assert answered == expect.answered
    assert [request.body for request in scene.spare.requests()] == ([[b"work"]] if expect.requeued else [])
    assert scene.other_caller.answers() == [], "a call of somebody else was touched"
    assert scene.state() == expect.after


SETTLED: Final = [pair for pair in PAIRS if _expectation(*pair).after in ("told", "unknown", "idle", "busy")]


@pytest.mark.parametrize(("kind", "state", "name"), SETTLED, ids=["-".join(pair) for pair in SETTLED])
def test_what_the_worker_gets_in_the_intervals_after(kind: str, state: str, name: str) -> None:
    """Registered workers are heartbeated, busy ones too; whoever is not registered gets nothing of any type."""
    scene = Scene(kind, state)
    expect = _expectation(kind, state, name)
    EVENTS[name](scene)
    scene.bench.unreachable.clear()
    scene.worker.unread()
    if expect.after in ("idle", "busy"):
        scene.bench.keep_alive(scene.worker)
    scene.bench.advance(3 * scene.bench.heartbeat_s + SLACK_S)
    commands = [decode_at_worker(frames) for frames in scene.worker.unread()]
    if expect.after in ("idle", "busy"):
        assert all(isinstance(command, WorkerHeartbeat) for command in commands)
        assert len(commands) in (2, 3, 4)
    else:
        assert commands == []


def test_no_pair_is_left_out() -> None:
    """States × events is tested in full: a new event must say what it does in each state."""
    for name in EVENTS:
        assert set(TABLE[name]) == set(STATES), f"{name} lacks an expectation"
    assert len(PAIRS) == sum(len(kinds) * len(STATES) for kinds in EVENT_KINDS.values())
    assert {(kind, name, state) for kind, state, name in PAIRS} >= set(EXCEPTIONS), "an exception for no pair"


def test_told_worker_gets_one_disconnect_however_often_it_speaks() -> None:
    """A DISCONNECT per heartbeat would be an echo loop with peers that do not listen."""
    scene = Scene("0.1", "unknown")
    for _ in range(5):
        scene.worker.heartbeat()
        scene.reply(scene.token)
    assert scene.sent() == ["DISCONNECT"]


@pytest.mark.parametrize("kind", KINDS)
def test_tombstone_ends_after_one_expiry(kind: str) -> None:
    """A worker that missed its DISCONNECT must hear another one, or it would believe itself registered for ever."""
    scene = Scene(kind, "told")
    scene.bench.advance(scene.bench.expiry_s + SLACK_S)
    scene.worker.heartbeat()
    assert scene.sent() == ["DISCONNECT"]


@pytest.mark.parametrize("kind", KINDS)
def test_control_token_with_a_report_about_a_request_is_unexpected(kind: str) -> None:
    """The control token stands for no request: a result under it must neither crash nor free anything."""
    scene = Scene(kind, "busy")
    scene.reply(CONTROL_TOKEN)
    assert scene.sent() == ["DISCONNECT"]
    assert [request.body for request in scene.spare.requests()] == [[b"work"]]
