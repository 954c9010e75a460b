"""Both clocks of one peer."""

from __future__ import annotations

import pytest

from reliable.config import Heartbeat
from reliable.protocol.liveness import Liveness

HEARTBEAT = Heartbeat(interval_s=1.0, timeout_s=3.0)


@pytest.fixture
def fresh() -> Liveness:
    """Heard and spoken to at 10."""
    return Liveness.begin(HEARTBEAT, 10.0)


def test_a_heartbeat_is_due_one_interval_after_the_last_word(fresh: Liveness) -> None:
    """Earlier wastes the link, later looks like a death."""
    assert fresh.beat_at == 11.0
    assert not fresh.beat_due(10.999)
    assert fresh.beat_due(11.0)


def test_whatever_is_said_postpones_the_heartbeat(fresh: Liveness) -> None:
    """7/MDP: no heartbeats while other commands go out."""
    assert not fresh.after_saying(10.9).beat_due(11.5)
    assert fresh.after_saying(10.9).beat_due(11.9)


def test_a_peer_is_lost_after_the_timeout_in_silence(fresh: Liveness) -> None:
    """The verdict that makes a worker look for a living broker."""
    assert fresh.lost_at == 13.0
    assert not fresh.lost(12.999)
    assert fresh.lost(13.0)


def test_whatever_is_heard_postpones_the_loss(fresh: Liveness) -> None:
    """7/MDP: any command but DISCONNECT acts as a heartbeat."""
    heard = fresh.after_hearing(12.5)
    assert not heard.lost(15.4)
    assert heard.lost(15.5)


def test_hearing_does_not_postpone_our_own_heartbeat(fresh: Liveness) -> None:
    """Each direction is judged by the other side: a listener that says nothing would be taken for dead."""
    assert fresh.after_hearing(10.9).beat_due(11.0)


def test_saying_does_not_keep_the_peer_alive(fresh: Liveness) -> None:
    """A worker that talks into a void must notice."""
    assert fresh.after_saying(12.9).lost(13.0)


def test_an_own_stall_is_not_held_against_the_peer(fresh: Liveness) -> None:
    """A process that did not listen cannot know whether the peer was silent."""
    excused = fresh.excused(5.0, 16.0)
    assert not excused.lost(16.0)
    assert excused.lost_at == 18.0


def test_a_stall_does_not_delay_our_own_heartbeat(fresh: Liveness) -> None:
    """The peer did miss us meanwhile, so it must hear from us at once."""
    assert fresh.excused(5.0, 16.0).beat_due(16.0)


@pytest.mark.parametrize(("gap_s", "heard"), [(100.0, 16.0), (0.0, 10.0), (-1.0, 10.0)])
def test_an_excuse_never_claims_the_future_or_takes_time_away(fresh: Liveness, gap_s: float, heard: float) -> None:
    """An excuse that is too long would make a dead peer look alive for ever."""
    assert fresh.excused(gap_s, 16.0).heard == heard


def test_silence_is_measured_from_the_last_sign_of_life(fresh: Liveness) -> None:
    """It is shown to people who ask what a worker sees."""
    assert fresh.silent_s(12.25) == 2.25
