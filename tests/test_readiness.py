"""``reliable.readiness``: how a broker is asked for its workers."""

from __future__ import annotations

import json

import pytest

from reliable.config import Dialect
from reliable.errors import BrokerUnreachable, DeadlineExceeded, NotAuthorised, RequestAbandoned, ServiceNotFound
from reliable.readiness import Readiness, question_options


def _status(*services: tuple[str, int, int]) -> list[bytes]:
    shown = [{"name": name, "workers": workers, "stuck": stuck, "idle": 0} for name, workers, stuck in services]
    return [b"200", json.dumps({"life": "ab", "services": shown}).encode()]


def test_workers_that_are_stuck_do_not_count() -> None:
    """They are registered, and no request would come through."""
    readiness = Readiness(Dialect.MDP, "echo", 2)
    assert readiness.question() == ("mmi.reliable.status", b"")
    assert not readiness.answered(_status())
    assert not readiness.answered(_status(("other", 5, 0), ("echo", 2, 1)))
    assert readiness.answered(_status(("echo", 3, 1)))


def test_a_broker_that_does_not_know_the_question_is_asked_as_the_rfc_has_it() -> None:
    """It is somebody else's; for one worker 8/MMI is enough."""
    readiness = Readiness(Dialect.MDP, "echo", 1)
    assert not readiness.answered([b"501"])
    assert readiness.question() == ("mmi.service", b"echo")
    assert not readiness.answered([b"404"])
    assert readiness.answered([b"200"])
    with pytest.raises(ValueError, match="workers=1"):
        Readiness(Dialect.MDP, "echo", 2).answered([b"501"])


def test_pauses_grow_up_to_a_quarter_of_a_second() -> None:
    """Quick where it is a matter of milliseconds, and no load where it takes minutes."""
    readiness = Readiness(Dialect.MDP02, "echo", 1)
    pauses = [readiness.pause_s() for _ in range(10)]
    assert pauses[0] == 0.02
    assert pauses == sorted(pauses)
    assert pauses[-1] == 0.25


def test_what_is_missing_at_the_end_is_told() -> None:
    """The broker if it never answered, else the workers; and what no waiting mends is told at once."""
    readiness = Readiness(Dialect.MDP, "echo", 1)
    readiness.failed(BrokerUnreachable("nobody"), time_is_up=False)
    with pytest.raises(DeadlineExceeded):
        readiness.failed(DeadlineExceeded("late"), time_is_up=True)
    readiness.answered(_status())
    with pytest.raises(ServiceNotFound, match="0 of 1"):
        readiness.failed(DeadlineExceeded("late"), time_is_up=True)
    with pytest.raises(BrokerUnreachable):
        readiness.failed(BrokerUnreachable("gone"), time_is_up=True)
    for error in (NotAuthorised("no"), RequestAbandoned("closed")):
        with pytest.raises(type(error)):
            readiness.failed(error, time_is_up=False)


def test_questions_may_be_asked_again() -> None:
    """Whatever the user's options say of calls."""
    options = question_options(2.0)
    assert (options.timeout, options.idempotent, options.hedge) == (2.0, True, None)
