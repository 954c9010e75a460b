"""The worker's conversation with one broker: each state against each event, and the paths through it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import attrs
import pytest

from reliable.config import Backoff, Heartbeat, WorkerConfig
from reliable.protocol import registration, session
from reliable.protocol.events import CloseLink, LinkClosed, LinkEnd, LinkOpened, OpenLink, Send
from reliable.protocol.liveness import Liveness
from reliable.protocol.registration import (
    PLAIN_TIMEOUT_S_MIN,
    Asking,
    Delivered,
    Dropped,
    EndCause,
    Ended,
    Event,
    Greeted,
    Heard,
    JoinedPlain,
    Leave,
    Opening,
    Output,
    Over,
    Past,
    Plain,
    Registered,
    Said,
    Stalled,
    State,
    Tag,
    Terms,
    Ticked,
    Undelivered,
    Waiting,
)
from reliable.wire.extension import NO_LIFE, HelloAnswer
from reliable.wire.mdp import (
    ClientReply,
    Version,
    WorkerDisconnect,
    WorkerHeartbeat,
    WorkerReady,
    WorkerReply,
    WorkerRequest,
)
from reliable.wire.mmi import TIME_QUERY, time_answer, time_query

NOW = 50.0
LIFE = b"life-aaa"
OTHER = b"life-bbb"
LINK = 7
FRESH = 8
HELLO = [b"", b"MDPC01", b"mmi.reliable", b"hello"]
ANSWER = HelloAnswer(LIFE, 1000)


def make_terms(u: float = 0.5, heartbeat: Heartbeat | None = None) -> Terms:
    """Settings with round numbers; the next link is always ``FRESH``."""
    config = WorkerConfig(
        heartbeat=heartbeat or Heartbeat(interval_s=1.0, timeout_s=3.0),
        reconnect=Backoff(initial_s=0.1, factor=2.0, delay_s_max=2.0),
        hello_timeout_s=1.0,
    )
    links = itertools.count(FRESH)
    return Terms(
        address="tcp://a", service=b"echo", hello=HELLO, config=config, jitter=lambda: u, fresh_link=lambda: next(links)
    )


PAST = Past(2, LIFE)
STAMP = (1).to_bytes(8, "big")
ALIVE = Liveness(1.0, 3.0, NOW - 0.5, NOW - 0.5)
TIME = session.begin(NOW - 5.1, NOW - 5, 60.0)
STATES: dict[str, State] = {
    "waiting": Waiting(PAST, NOW + 0.5),
    "opening": Opening(PAST, LINK, NOW + 0.5, False),
    "opening plain": Opening(PAST, LINK, NOW + 0.5, True),
    "asking": Asking(PAST, LINK, NOW + 0.5),
    "registered": Registered(PAST, LINK, ANSWER, TIME, ALIVE),
    "plain": Plain(PAST, LINK, ALIVE, False),
    "plain holding": Plain(PAST, LINK, ALIVE, True),
    "over": Over(),
}


def answer_to_hello(*body: bytes, service: bytes = b"mmi.reliable", stack: tuple[bytes, ...] = ()) -> Heard:
    """What a broker says to the hello."""
    return Heard(ClientReply(Version.MDP01, service, list(body), list(stack)))


REQUEST_1 = WorkerRequest(Version.MDP01, b"client", [b"work"])
REQUEST_2 = WorkerRequest(Version.MDP02, b"token", [b"work"])
EVENTS: dict[str, Event] = {
    "opened": LinkOpened(LINK),
    "closed": LinkClosed(LINK, LinkEnd.LOST, "reset"),
    "said": Said(),
    "undelivered": Undelivered(),
    "tick early": Ticked(),
    "tick late": Ticked(),
    "stalled": Stalled(2.0),
    "leave": Leave(),
    "leave for now": Leave(back=True),
    "hello 200": answer_to_hello(b"200", *ANSWER.encode()),
    "hello 501": answer_to_hello(b"501"),
    "hello 404": answer_to_hello(b"404"),
    "time": answer_to_hello(b"200", *time_answer(STAMP, 5000), service=TIME_QUERY),
    "request 0.1": Heard(REQUEST_1),
    "request 0.2": Heard(REQUEST_2),
    "heartbeat 0.1": Heard(WorkerHeartbeat(Version.MDP01)),
    "heartbeat 0.2": Heard(WorkerHeartbeat(Version.MDP02)),
    "disconnect 0.1": Heard(WorkerDisconnect(Version.MDP01)),
    "disconnect 0.2": Heard(WorkerDisconnect(Version.MDP02)),
    "ready": Heard(WorkerReady(Version.MDP02, b"echo")),
    "reply": Heard(WorkerReply(Version.MDP02, b"token", [b""])),
    "ready 0.1": Heard(WorkerReady(Version.MDP01, b"echo")),
}
LATE = NOW + 100.0

# What each pair leads to, in one word each: "-" nothing changes, "drop" counted, "back off" a fresh link after a wait,
# "close" the same but our side closes, or the name of what happens. "tick late" is far behind every deadline.
_QUIET = {"opened": "-", "said": "-", "undelivered": "-"}
_HEARD_NOTHING = dict.fromkeys([name for name, event in EVENTS.items() if isinstance(event, Heard)], "-")
_HEARD_DROPPED = dict.fromkeys(_HEARD_NOTHING, "drop")
TABLE: dict[str, dict[str, str]] = {
    "waiting": {
        **_QUIET,
        **_HEARD_NOTHING,
        "closed": "-",
        "tick early": "-",
        "tick late": "open",
        "stalled": "-",
        "leave": "over",
        "leave for now": "-",
    },
    "opening": {
        **_QUIET,
        **_HEARD_DROPPED,
        "opened": "ask",
        "closed": "back off",
        "tick early": "-",
        "tick late": "close",
        "stalled": "extend",
        "leave": "close for good",
        "leave for now": "-",
    },
    "asking": {
        **_QUIET,
        **_HEARD_DROPPED,
        "closed": "back off",
        "undelivered": "close",
        "tick early": "-",
        "tick late": "close",
        "stalled": "extend",
        "leave": "close for good",
        "leave for now": "-",
        "hello 200": "greeted",
        "hello 501": "downgrade",
        "disconnect 0.1": "close",
        "disconnect 0.2": "close",
    },
    "registered": {
        **_QUIET,
        **_HEARD_DROPPED,
        "closed": "back off",
        "said": "said",
        "undelivered": "close",
        "tick early": "-",
        "tick late": "close",
        "stalled": "extend",
        "leave": "goodbye",
        "leave for now": "goodbye for now",
        "request 0.2": "deliver",
        "heartbeat 0.2": "heard",
        "time": "heard",
        "disconnect 0.2": "close",
    },
    "plain": {
        **_QUIET,
        **_HEARD_DROPPED,
        "closed": "back off",
        "said": "said",
        "undelivered": "close",
        "tick early": "-",
        "tick late": "close",
        "stalled": "extend",
        "leave": "goodbye",
        "leave for now": "goodbye for now",
        "request 0.1": "deliver",
        "heartbeat 0.1": "heard",
        "disconnect 0.1": "close",
    },
    "over": dict.fromkeys(EVENTS, "-"),
}
TABLE["opening plain"] = {**TABLE["opening"], "opened": "join plain"}
TABLE["plain holding"] = {**TABLE["plain"], "tick late": "beat", "request 0.1": "heard and drop"}


def expectations(state: State, event: Event, now: float) -> dict[str, Callable[[State, list[Output]], bool]]:
    """How to tell each word of the table."""
    link = registration.current_link(state)

    def backed_off(after: State) -> bool:
        return isinstance(after, Waiting) and after.past.failures == 3 and after.until == now + 0.5 * 0.4

    def lives(after: State) -> Liveness | None:
        return after.liveness if isinstance(after, Registered | Plain) else None

    return {
        "-": lambda after, outputs: after is state and outputs == [],
        "drop": lambda after, outputs: after is state and [type(output) for output in outputs] == [Dropped],
        "open": lambda after, outputs: (
            isinstance(after, Opening)
            and (after.past, after.link, after.plain) == (PAST, FRESH, False)
            and outputs == [OpenLink(FRESH, "tcp://a")]
        ),
        "ask": lambda after, outputs: (
            after == Asking(PAST, LINK, now + 1.0) and outputs == [Send(LINK, HELLO, Tag.HELLO)]
        ),
        "back off": lambda after, outputs: (
            backed_off(after) and outputs == [Ended(LINK, EndCause.CLOSED, "lost: reset")]
        ),
        "close": lambda after, outputs: (
            backed_off(after) and outputs[0] == CloseLink(LINK) and isinstance(outputs[1], Ended) and len(outputs) == 2
        ),
        "extend": lambda after, outputs: (
            outputs == []
            and type(after) is type(state)
            and (registration.deadline(after) or 0.0) >= (registration.deadline(state) or 0.0)
            and after != state
        ),
        "over": lambda after, outputs: after == Over() and outputs == [],
        "close for good": lambda after, outputs: (
            after == Over() and outputs == [CloseLink(LINK), Ended(LINK, EndCause.LEFT)]
        ),
        "greeted": lambda after, outputs: (
            after == Registered(PAST, LINK, ANSWER, session.begin(now - 0.5, now, 60.0), Liveness(1.0, 3.0, now, now))
            and outputs == [Greeted(LINK, ANSWER, LIFE)]
        ),
        "downgrade": lambda after, outputs: (
            isinstance(after, Opening)
            and after.plain
            and after.past == Past(2, NO_LIFE)
            and outputs == [CloseLink(LINK), Ended(LINK, EndCause.NOT_OURS), OpenLink(FRESH, "tcp://a")]
        ),
        "join plain": lambda after, outputs: (
            after == Plain(PAST, LINK, Liveness(1.0, PLAIN_TIMEOUT_S_MIN, now, now), False)
            and outputs == [Send(LINK, [b"", b"MDPW01", b"\1", b"echo"], Tag.READY), JoinedPlain(LINK)]
        ),
        "said": lambda after, outputs: (
            outputs == [] and (life := lives(after)) is not None and life.said == now and not holding(after)
        ),
        "heard": lambda after, outputs: (
            outputs == [] and heard_at(after, now) and holding(after) is holding(state) and past_of(after).failures == 0
        ),
        "deliver": lambda after, outputs: (
            heard_at(after, now)
            and isinstance(event, Heard)
            and outputs == [Delivered(LINK, event.command)]  # type: ignore[arg-type]
            and holding(after) is isinstance(state, Plain)
        ),
        "heard and drop": lambda after, outputs: (
            heard_at(after, now) and [type(output) for output in outputs] == [Dropped]
        ),
        "beat": lambda after, outputs: (
            outputs == [Send(LINK, [b"", b"MDPW01", b"\4"], Tag.HEARTBEAT)]
            and (life := lives(after)) is not None
            and life.said == now
            and holding(after)
        ),
        "goodbye": lambda after, outputs: after == Over() and outputs == goodbye(state, link),
        "goodbye for now": lambda after, outputs: backed_off(after) and outputs == goodbye(state, link),
    }


def holding(state: State) -> bool:
    return isinstance(state, Plain) and state.holding


def past_of(state: State) -> Past:
    assert not isinstance(state, Over)
    return state.past


def heard_at(state: State, now: float) -> bool:
    return isinstance(state, Registered | Plain) and state.liveness.heard == now


def goodbye(state: State, link: int | None) -> list[Output]:
    assert link is not None
    farewell = [b"", b"MDPW01", b"\5"] if isinstance(state, Plain) else [b"MDPW02", b"\6"]
    return [Send(link, farewell, Tag.DISCONNECT), CloseLink(link, linger=True), Ended(link, EndCause.LEFT)]


@pytest.mark.parametrize("event_name", EVENTS)
@pytest.mark.parametrize("state_name", STATES)
def test_every_state_has_an_answer_to_every_event(state_name: str, event_name: str) -> None:
    """A pair that nobody thought of is where a worker hangs or a link is used after its end."""
    state, event = STATES[state_name], EVENTS[event_name]
    now = LATE if event_name == "tick late" else NOW
    after, outputs = registration.step(state, event, now, make_terms())
    word = TABLE[state_name][event_name]
    assert expectations(state, event, now)[word](after, outputs), f"{word}: {after} {outputs}"


def test_the_table_is_complete() -> None:
    """A row or column that is missing would make the test above pass by not running."""
    assert set(TABLE) == set(STATES)
    assert all(set(row) == set(EVENTS) for row in TABLE.values())
    assert {type(state) for state in STATES.values()} == set(registration.State.__args__)
    assert {type(event) for event in EVENTS.values()} == set(registration.Event.__args__)


@pytest.mark.parametrize("state_name", STATES)
@pytest.mark.parametrize("u", [0.0, 0.5, 0.999])
def test_after_ticking_until_nothing_is_due_the_next_deadline_lies_ahead(state_name: str, u: float) -> None:
    """Otherwise a shell would spin; zero jitter makes two steps due at once."""
    state, terms = STATES[state_name], make_terms(u)
    now = LATE
    for _ in range(4):
        due = registration.deadline(state)
        if due is None or due > now:
            break
        state, _ = registration.step(state, Ticked(), now, terms)
    due = registration.deadline(state)
    assert due is None or due > now


def test_silence_of_a_registered_broker_beats_the_heartbeat_that_is_due_as_well() -> None:
    """A link that is about to be closed is not worth a heartbeat."""
    silent = Registered(PAST, LINK, ANSWER, TIME, Liveness(1.0, 3.0, NOW - 3.0, NOW - 1.0))
    _, outputs = registration.step(silent, Ticked(), NOW, make_terms())
    assert outputs == [CloseLink(LINK), Ended(LINK, EndCause.SILENT)]


def test_a_heartbeat_goes_out_when_it_is_due() -> None:
    """A broker that hears nothing removes the worker."""
    due = Registered(PAST, LINK, ANSWER, TIME, Liveness(1.0, 3.0, NOW - 0.1, NOW - 1.0))
    after, outputs = registration.step(due, Ticked(), NOW, make_terms())
    assert outputs == [Send(LINK, [b"MDPW02", b"\5"], Tag.HEARTBEAT)]
    assert registration.deadline(after) == NOW + 1.0


def test_the_time_is_asked_and_what_it_says_is_what_deadlines_are_read_against() -> None:
    """A registration may last for weeks; clocks that nobody disciplines are seconds apart by then."""
    due = Registered(PAST, LINK, ANSWER, attrs.evolve(TIME, ask_at=NOW), ALIVE)
    assert registration.deadline(due) == NOW
    asked, outputs = registration.step(due, Ticked(), NOW, make_terms())
    assert outputs == [Send(LINK, time_query(STAMP), Tag.TIME)]
    assert isinstance(asked, Registered) and asked.time.t1 == TIME.t1 and asked.time.ask_at == NOW + 60.0
    told, outputs = registration.step(asked, EVENTS["time"], NOW + 0.02, make_terms())
    assert outputs == [] and isinstance(told, Registered)
    assert told.time.t1 == pytest.approx(NOW + 0.02 - 5.0, abs=0.0002)
    assert told.liveness.heard == NOW + 0.02, "an answer is a sign of life"


def test_a_heartbeat_that_is_due_together_with_the_question_goes_out_too() -> None:
    """The broker counts heartbeats, not questions."""
    terms, now = make_terms(), NOW + 0.5
    both = Registered(PAST, LINK, ANSWER, attrs.evolve(TIME, ask_at=now), Liveness(1.0, 3.0, NOW, NOW - 0.5))
    asked, first = registration.step(both, Ticked(), now, terms)
    _, second = registration.step(asked, Ticked(), now, terms)
    tags = [output.tag for output in first + second if isinstance(output, Send)]
    assert tags == [Tag.TIME, Tag.HEARTBEAT]


@pytest.mark.parametrize("code", [b"501", b"404"])
def test_a_broker_that_cannot_say_the_time_is_not_asked_again(code: bytes) -> None:
    """An older broker; the registration goes on with what its hello told."""
    asked = Registered(PAST, LINK, ANSWER, attrs.evolve(TIME, asked_at=NOW - 0.1, questions=1), ALIVE)
    told, _ = registration.step(asked, answer_to_hello(code, service=TIME_QUERY), NOW, make_terms())
    assert isinstance(told, Registered)
    assert (told.time.t1, told.time.ask_at) == (TIME.t1, math.inf)


def test_a_plain_broker_is_not_judged_while_its_request_is_in_hand() -> None:
    """Most plain brokers say nothing to a busy worker; giving up on them would lose the reply."""
    held = Plain(PAST, LINK, Liveness(1.0, 7.5, NOW - 1000, NOW), True)
    assert registration.deadline(held) == NOW + 1.0
    after, outputs = registration.step(held, Said(), NOW, make_terms())
    assert outputs == []
    assert after == Plain(PAST, LINK, Liveness(1.0, 7.5, NOW, NOW), False), "a fresh window starts after the reply"


def test_a_plain_broker_gets_three_beats_of_the_reference_programs() -> None:
    """They beat every 2.5 s; our own 3 s would lose them at the first late one. A longer setting of the user stands."""
    for timeout_s, expected in [(3.0, 7.5), (20.0, 20.0)]:
        terms = make_terms(heartbeat=Heartbeat(interval_s=1.0, timeout_s=timeout_s))
        state, _ = registration.step(STATES["opening plain"], LinkOpened(LINK), NOW, terms)
        assert isinstance(state, Plain)
        assert state.liveness.timeout_s == expected


def test_the_hello_answer_alone_does_not_reset_the_backoff() -> None:
    """A broker that answers hellos and refuses each READY would be stormed."""
    state, _ = registration.step(STATES["asking"], EVENTS["hello 200"], NOW, make_terms())
    assert past_of(state).failures == 2
    state, _ = registration.step(state, EVENTS["disconnect 0.2"], NOW, make_terms())
    assert state == Waiting(Past(3, LIFE), NOW + 0.5 * 0.4)


@pytest.mark.parametrize("sign", ["heartbeat 0.2", "request 0.2"])
def test_a_sign_of_life_behind_ready_resets_the_backoff(sign: str) -> None:
    """After a good time a short break deserves a short wait."""
    state, _ = registration.step(STATES["asking"], EVENTS["hello 200"], NOW, make_terms())
    state, _ = registration.step(state, EVENTS[sign], NOW, make_terms())
    state, _ = registration.step(state, EVENTS["closed"], NOW, make_terms())
    assert state == Waiting(Past(1, LIFE), NOW + 0.5 * 0.1)


def test_the_wait_grows_to_its_bound_and_no_further() -> None:
    """A dead broker must neither be hammered nor forgotten."""
    terms = make_terms(0.999)
    state, now, waits = STATES["opening"], NOW, []
    state = attrs.evolve(state, past=Past()) if isinstance(state, Opening) else state
    for _ in range(8):
        state, _ = registration.step(state, LinkClosed(LINK, LinkEnd.REFUSED), now, terms)
        assert isinstance(state, Waiting)
        waits.append(round((state.until - now) / 0.999, 6))
        now = state.until
        state, _ = registration.step(state, Ticked(), now, terms)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]


def test_another_life_is_told_together_with_the_one_before() -> None:
    """The owner voids the tokens of the old life by this."""
    answered = answer_to_hello(b"200", *HelloAnswer(OTHER).encode())
    state, outputs = registration.step(STATES["asking"], answered, NOW, make_terms())
    assert outputs == [Greeted(LINK, HelloAnswer(OTHER), LIFE)]
    assert past_of(state).life == OTHER


def test_a_downgrade_counts_for_one_link_only() -> None:
    """A broker of ours may have taken the place of the other one by the next try."""
    state, _ = registration.step(STATES["asking"], EVENTS["hello 501"], NOW, make_terms())
    state, _ = registration.step(state, LinkClosed(FRESH, LinkEnd.REFUSED), NOW, make_terms())
    state, _ = registration.step(state, Ticked(), LATE, make_terms())
    assert isinstance(state, Opening)
    assert not state.plain


@pytest.mark.parametrize(
    "answer",
    [
        answer_to_hello(b"200"),
        answer_to_hello(b"200", b"junk", b"junk", b"junk"),
        answer_to_hello(b"200", *HelloAnswer(LIFE, version_min=2, version_max=3).encode()),
        answer_to_hello(b"200", *ANSWER.encode(), service=b"mmi.service"),
        answer_to_hello(b"200", *ANSWER.encode(), stack=(b"x",)),
        answer_to_hello(b""),
    ],
)
def test_an_answer_that_is_not_one_leaves_the_hello_open(answer: Heard) -> None:
    """Only a received 501 may downgrade, and only a whole answer registers."""
    after, outputs = registration.step(STATES["asking"], answer, NOW, make_terms())
    assert after is STATES["asking"]
    assert [type(output) for output in outputs] == [Dropped]


def test_a_stall_moves_every_verdict_on_by_its_length() -> None:
    """Whoever was not listened to cannot be blamed for silence."""
    for name in ("opening", "asking"):
        after, _ = registration.step(STATES[name], Stalled(2.0), NOW, make_terms())
        assert registration.deadline(after) == NOW + 2.5
    long_silent = Liveness(1.0, 3.0, NOW - 3.5, NOW - 3.5)
    for silent in (Registered(PAST, LINK, ANSWER, TIME, long_silent), Plain(PAST, LINK, long_silent, False)):
        after, _ = registration.step(silent, Stalled(2.0), NOW, make_terms())
        assert isinstance(after, Registered | Plain)
        assert not after.liveness.lost(NOW)
        assert after.liveness.lost(NOW + 1.5)


def test_the_end_of_a_link_tells_why_in_words() -> None:
    """People read it in logs."""
    _, outputs = registration.step(STATES["opening"], LinkClosed(LINK, LinkEnd.UNRESOLVED), NOW, make_terms())
    assert outputs == [Ended(LINK, EndCause.CLOSED, "unresolved")]
