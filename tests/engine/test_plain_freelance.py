"""The engine of freelance, step by step: PING and PONG, control frames, failover inside a call, shotgun."""

from __future__ import annotations

import attrs
import pytest

from reliable.config import Backoff, ClientConfig, Freelance, RetryPolicy
from reliable.engine.observe import BrokerFound, LinkLost
from reliable.protocol.events import AbandonAll, LinkClosed, LinkEnd, LinkOpened, Received, Unsent
from tests.support.plain_desk import PlainDesk, ccf

# Attempts of 2 s and pauses of nothing; PINGs every second, gone after 3 s.
CONFIG = ClientConfig(
    retry=RetryPolicy(attempts=4, attempt_timeout_s=2.0, backoff=Backoff(initial_s=1.0)),
    reconnect=Backoff(initial_s=0.2, delay_s_max=0.2),
)
SHOTGUN = attrs.evolve(CONFIG, freelance=Freelance(shotgun=True))
PONG = b"PONG"


def made(*servers: str, config: ClientConfig = CONFIG, observer: list[object] | None = None) -> PlainDesk:
    return PlainDesk(*servers, dialect="freelance", config=config, u=0.0, observer=observer)


def up(desk: PlainDesk, *links: int) -> None:
    """Links open and their servers answer the first PING."""
    for link in links:
        desk.open(link)
        desk.receive(link, PONG)


def asked(*servers: str, config: ClientConfig = CONFIG, **call: object) -> PlainDesk:
    """A desk with call ``c`` sent on link 1 to the first server."""
    desk = made(*servers, config=config)
    desk.submit(**call)  # type: ignore[arg-type]
    up(desk, 1)
    assert desk.trace()[-2:] == ["send 1 PING", "send 1 c#1|c"]
    return desk


def test_a_server_is_asked_only_after_it_has_answered_a_ping() -> None:
    """FLP-1, FLP-9: a connection shows a process, not that anybody serves in it."""
    seen: list[object] = []
    desk = made(observer=seen)
    desk.submit()
    desk.open(1)
    assert desk.trace() == ["open 1 a", "send 1 PING"]
    assert desk.engine.snapshot().links[0].state == "greeting"
    desk.receive(1, PONG)
    assert BrokerFound("a", b"", False) in seen
    assert desk.trace() == ["send 1 c#1|c"]
    desk.receive(1, ccf("c"), b"C", b"")
    assert desk.trace() == ["end c C|-"]


def test_many_calls_share_one_link_and_their_replies_come_in_any_order() -> None:
    """FLP-4, FLP-10, FLP-12: the control frame tells them apart."""
    desk = asked()
    for name in "de":
        desk.submit(name)
    desk.receive(1, ccf("e"), b"E")
    desk.receive(1, ccf("c"), b"C")
    desk.receive(1, ccf("d"), b"D")
    assert desk.trace() == ["send 1 d#1|d", "send 1 e#1|e", "end e E", "end c C", "end d D"]


@pytest.mark.parametrize("control", [ccf("c"), ccf("x"), ccf("d", 0), ccf("d", 2), ccf("d") + b"x", b"", b"PING"])
def test_a_reply_to_nothing_that_is_open_is_counted_and_answers_nobody(control: bytes) -> None:
    """FLP-12: second replies, strangers, numbers that were never given out."""
    desk = asked()
    desk.receive(1, ccf("c"), b"C")
    desk.submit("d")
    desk.trace()
    desk.receive(1, control, b"X")
    assert desk.trace() == [] and desk.engine.counters.late_replies == 1
    desk.receive(1, ccf("d"), b"D")
    assert desk.trace() == ["end d D"]


@pytest.mark.parametrize("frames", [[b"PING"], [b""], [b"PONGS"]])
def test_a_malformed_message_is_dropped(frames: list[bytes]) -> None:
    """FLP-13: and the server counts as alive all the same."""
    desk = asked()
    desk.receive(1, *frames)
    assert desk.trace() == [] and desk.engine.counters.dropped == 1


def test_a_reply_counts_only_from_the_server_that_was_asked() -> None:
    """Whoever else knows the control frame is not the one who did the work."""
    desk = asked("a", "b", idempotent=True)
    desk.sleep(2.0)
    up(desk, 2)
    desk.submit("d")
    desk.trace()
    desk.receive(1, ccf("d"), b"X")
    assert desk.trace() == [] and desk.engine.counters.late_replies == 1


# --- life and death -------------------------------------------------------------------------------


def test_pings_go_out_while_calls_are_open_and_no_longer() -> None:
    """FLP-9: an idle client is silent; the next call finds out at once whether the server still answers."""
    desk = asked()
    for _ in range(3):
        desk.sleep(1.0)
        desk.receive(1, PONG)
    assert desk.trace() == ["send 1 PING"] * 3
    desk.receive(1, ccf("c"), b"C")
    desk.sleep(60.0)
    assert desk.trace() == ["end c C"]
    assert desk.engine.next_deadline() is None
    desk.submit("d")
    assert sorted(desk.trace()) == ["send 1 PING", "send 1 d#1|d"]


def test_a_ping_that_was_not_answered_before_the_client_rested_is_no_silence() -> None:
    """Nobody read the link meanwhile; only what follows the next PING counts."""
    desk = asked(timeout=30.0)
    desk.sleep(1.0)
    desk.receive(1, ccf("c"), b"C")
    desk.submit("d")
    desk.sleep(1.0)
    desk.cancel("d")
    desk.sleep(60.0)
    desk.trace()
    desk.submit("e", timeout=30.0)
    desk.sleep(2.9)
    assert "close 1" not in desk.trace()
    desk.receive(1, ccf("e"), b"E")
    assert desk.trace() == ["end e E"]


def test_any_message_is_a_sign_of_life() -> None:
    """FLP-9: a server that is busy answering need not answer PINGs on top."""
    desk = asked(timeout=30.0)
    for _ in range(5):
        desk.sleep(2.9)
        desk.receive(1, b"whatever", b"x")
    assert not any(line.startswith("close") for line in desk.trace())


def test_a_silent_server_is_gone_after_the_ping_timeout() -> None:
    """FLP-9: its link is closed; what only that server may have done ends with UNKNOWN."""
    seen: list[object] = []
    desk = made("a", "b", observer=seen)
    desk.submit()
    up(desk, 1)
    desk.trace()
    desk.sleep(1.0)
    desk.receive(1, PONG)
    desk.sleep(3.9)
    assert desk.trace() == ["send 1 PING"] * 4
    desk.sleep(0.1)
    assert desk.trace() == ["close 1", "end c BrokerLost UNKNOWN"]
    assert LinkLost("a", "no sign of life for 3.00 s") in seen


def test_a_server_that_never_answers_a_ping_is_passed_over() -> None:
    """FLP-9: the call waits for its stagger and for no more."""
    desk = made("a", "b")
    desk.submit(timeout=30.0)
    desk.open(1)
    desk.sleep(0.25)
    up(desk, 2)
    assert desk.trace() == ["open 1 a", "send 1 PING", "open 2 b", "send 2 PING", "send 2 c#1|c"]
    for _ in range(3):
        desk.sleep(1.0)
        desk.receive(2, PONG)
    assert "close 1" in desk.trace()


def test_a_call_goes_to_the_next_server_when_its_server_dies() -> None:
    """FLP-11: inside the call, within one attempt, without the caller noticing."""
    desk = asked("a", "b", "c", idempotent=True, timeout=30.0)
    desk.close(1)
    up(desk, 2)
    desk.sleep(2.0)
    up(desk, 3)
    desk.receive(3, ccf("c", 3), b"C")
    sends = [line for line in desk.trace() if "PING" not in line]
    assert sends == ["open 2 b", "send 2 c#2|c", "open 3 c", "send 3 c#3|c", "end c C"]


def test_a_late_reply_is_welcome_while_its_call_is_open() -> None:
    """FLP-12: an attempt was given up, its link was not; the first reply to the call ends it."""
    desk = asked("a", "b", idempotent=True, timeout=30.0)
    desk.sleep(2.0)
    up(desk, 2)
    desk.trace()
    desk.receive(1, ccf("c", 1), b"first")
    desk.receive(2, ccf("c", 2), b"second")
    assert desk.trace() == ["end c first"]
    assert desk.engine.counters.late_replies == 1


def test_an_attempt_on_the_same_link_again_leaves_no_trace_behind() -> None:
    """One server only: both attempts are on one link, and either reply ends the call once."""
    desk = asked(idempotent=True, timeout=30.0)
    desk.sleep(1.0)
    desk.receive(1, PONG)
    desk.sleep(1.0)
    assert desk.trace()[-1] == "send 1 c#2|c"
    desk.receive(1, ccf("c", 1), b"C")
    desk.receive(1, ccf("c", 2), b"C")
    assert desk.trace() == ["end c C"]
    assert desk.engine.snapshot().links[0].calls == 0 and desk.engine.counters.late_replies == 1


def test_silent_attempts_take_turns_over_the_servers() -> None:
    """FLP-11: only the newest attempt says something about its server; what older ones were about is known."""
    desk = asked("a", "b", idempotent=True, timeout=30.0)
    desk.sleep(2.0)
    up(desk, 2)
    for _ in range(5):
        desk.sleep(0.9)
        desk.receive(1, PONG)
        desk.receive(2, PONG)
    sends = [line for line in desk.trace() if "#" in line]
    assert sends == ["send 2 c#2|c", "send 1 c#3|c", "send 2 c#4|c"]


def test_attempts_are_counted_as_everywhere() -> None:
    """LP-5: silence of a server that answers PINGs is an attempt that failed."""
    desk = asked(idempotent=True, timeout=60.0)
    for _ in range(9):
        desk.sleep(1.0)
        desk.receive(1, PONG)
    assert desk.trace()[-1] == "end c AttemptsExhausted UNKNOWN"
    assert desk.error().attempts == 4


def test_a_lost_link_on_which_the_call_was_given_up_already_is_no_second_failure() -> None:
    """Each attempt fails once."""
    desk = asked("a", "b", idempotent=True, timeout=30.0)
    desk.sleep(2.0)
    up(desk, 2)
    desk.trace()
    desk.close(1)
    assert desk.trace() == []
    desk.receive(2, ccf("c", 2), b"C")
    assert desk.trace() == ["end c C"]


def test_all_servers_down_and_one_that_returns() -> None:
    """FLP-14: the call fails at its deadline, and the same client works when a server is back."""
    desk = made("a", "b")
    desk.submit(timeout=0.1)
    desk.close(1, LinkEnd.REFUSED)
    desk.close(2, LinkEnd.REFUSED)
    desk.sleep(0.1)
    assert desk.trace()[-1] == "end c BrokerUnreachable NOT_EXECUTED"
    desk.submit("d")
    link = desk.engine.snapshot().links[0].link
    up(desk, link)
    desk.receive(link, ccf("d"), b"D")
    assert desk.trace()[-1] == "end d D"


def test_what_the_socket_does_not_take_is_sent_elsewhere() -> None:
    """Neither a PING nor a request that stayed here says anything about the call."""
    desk = asked("a", "b", timeout=30.0)
    desk.unsent(1)
    up(desk, 2)
    assert desk.trace() == ["close 1", "open 2 b", "send 2 PING", "send 2 c#1|c"]
    desk.feed(Unsent(2, "ping"))
    assert desk.trace()[:2] == ["close 2", "end c BrokerLost UNKNOWN"]


def test_a_request_that_is_still_here_when_its_link_breaks_never_left() -> None:
    """The break and the PONG before it were read in one go."""
    desk = made("a", "b")
    desk.submit()
    desk.feed(LinkOpened(1))
    desk.trace()
    desk.feed(Received(1, [PONG]), LinkClosed(1, LinkEnd.LOST))
    up(desk, 2)
    assert desk.trace() == ["open 2 b", "send 2 PING", "send 2 c#1|c"]


def test_a_message_on_a_link_that_does_not_exist_is_counted() -> None:
    """Also one that comes before the transport has told of the connection."""
    desk = made()
    desk.submit()
    desk.receive(1, PONG)
    desk.receive(9, PONG)
    assert desk.trace() == ["open 1 a"] and desk.engine.counters.late_replies == 2


def test_a_transport_that_says_nothing_is_not_waited_for_for_ever() -> None:
    """As in the other dialects: 6 s, then the link is given up."""
    desk = made()
    desk.submit()
    desk.sleep(6.2)
    assert desk.trace() == ["open 1 a", "close 1", "open 2 a"]


def test_closing_leaves_nothing_behind() -> None:
    """No alarms, no links, no pulses."""
    desk = asked("a", "b", config=SHOTGUN, idempotent=True)
    desk.feed(AbandonAll())
    assert desk.trace()[0] == "end c RequestAbandoned UNKNOWN"
    assert desk.engine.next_deadline() is None and desk.engine.snapshot().links == ()
    assert getattr(desk.engine, "_pulses", None) == {}


# --- shotgun --------------------------------------------------------------------------------------


def blast(*servers: str, **call: object) -> PlainDesk:
    """All servers up, and call ``c`` sent to each."""
    desk = made(*servers, config=SHOTGUN)
    desk.submit("before", idempotent=True)
    for link in range(1, len(servers) + 1):
        up(desk, link)
    desk.receive(1, ccf("before"), b"x")
    desk.trace()
    desk.submit(**call)  # type: ignore[arg-type]
    return desk


def test_shotgun_asks_all_servers_and_takes_the_first_reply() -> None:
    """The others are counted and answer nobody."""
    desk = blast("a", "b", "c", idempotent=True)
    assert desk.trace() == ["send 1 c#1|c", "send 2 c#1|c", "send 3 c#1|c"]
    desk.receive(2, ccf("c"), b"C")
    late = desk.engine.counters.late_replies
    desk.receive(1, ccf("c"), b"late")
    desk.receive(3, ccf("c"), b"later")
    assert desk.trace() == ["end c C"]
    assert desk.engine.counters.late_replies == late + 2
    assert all(link.calls == 0 for link in desk.engine.snapshot().links)


@pytest.mark.parametrize("idempotent", [None, False])
def test_shotgun_is_for_idempotent_calls_only(idempotent: bool | None) -> None:
    """Two servers would both do the work."""
    desk = blast("a", "b", idempotent=idempotent)
    assert desk.trace() == ["send 1 c#1|c"]


def test_shotgun_reaches_servers_that_come_up_meanwhile() -> None:
    """The first call of a client would otherwise go to whichever server is quickest to connect, and to no other."""
    desk = made("a", "b", config=SHOTGUN)
    desk.submit(idempotent=True)
    assert desk.trace() == ["open 1 a", "open 2 b"]
    up(desk, 2)
    up(desk, 1)
    assert [line for line in desk.trace() if "PING" not in line] == ["send 2 c#1|c", "send 1 c#1|c"]
    desk.receive(1, ccf("c"), b"C")
    assert desk.trace() == ["end c C"]


def test_shotgun_survives_all_servers_but_one() -> None:
    """A copy that is lost is none of the call's business while another is under way."""
    desk = blast("a", "b", "c", idempotent=True)
    desk.close(1)
    desk.close(3)
    desk.trace()
    desk.receive(2, ccf("c"), b"C")
    assert desk.trace() == ["end c C"]


def test_shotgun_begins_a_new_round_when_all_copies_are_lost() -> None:
    """Each round is one attempt."""
    desk = blast("a", "b", idempotent=True)
    desk.close(1)
    desk.close(2)
    view = desk.engine.snapshot()
    assert view.calls == 1
    desk.sleep(0.05)
    desk.trace()
    (link, other) = [link.link for link in desk.engine.snapshot().links]
    up(desk, link, other)
    assert f"send {link} c#2|c" in desk.trace()
    desk.receive(link, ccf("c", 2), b"C")
    assert desk.ended["c"].result == [b"C"]


def test_shotgun_brings_a_lost_server_back_while_calls_go_on() -> None:
    """Calls that succeed elsewhere must not leave a server out for good."""
    desk = blast("a", "b", idempotent=True)
    desk.trace()
    desk.engine.handle(LinkClosed(1, LinkEnd.LOST), desk.now)
    desk.receive(2, ccf("c"), b"C")
    assert desk.trace() == ["open 3 a", "end c C"], "in the same step, not when some timer rings"
    desk.close(3, LinkEnd.REFUSED)
    desk.submit("d", idempotent=True)
    desk.sleep(0.3)
    assert "open 4 a" in desk.trace()
