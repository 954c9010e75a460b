"""One call to a plain server: when it may be sent again, and what its errors say."""

from __future__ import annotations

import math

import pytest

from reliable.config import Backoff, RetryCause, RetryPolicy
from reliable.errors import AttemptsExhausted, BrokerLost, BrokerUnreachable, DeadlineExceeded, Outcome
from reliable.protocol import plain_endings as endings
from reliable.protocol.plain_call import PlainCall, Stage, retry_at, silent_at

POLICY = RetryPolicy(attempts=3, attempt_timeout_s=2.0, backoff=Backoff(initial_s=1.0, factor=2.0, delay_s_max=8.0))


def call(*, repeatable: bool = True, deadline: float | None = 130.0) -> PlainCall:
    return PlainCall(b"c" * 16, b"echo", [b"x"], deadline, 100.0, repeatable, 100.0)


def sent(made: PlainCall, now: float, address: str = "a", due: float = math.inf) -> PlainCall:
    made.attempts += 1
    made.ran_max += 1
    made.sent(now, address, due)
    return made


@pytest.mark.parametrize(
    ("repeatable", "policy", "when"),
    [
        (True, POLICY, 102.0),
        (False, POLICY, math.inf),
        (True, RetryPolicy.never(), math.inf),
        (True, RetryPolicy(causes=[RetryCause.LOST]), math.inf),
        (True, RetryPolicy(attempts=None, attempt_timeout_s=9.0), 109.0),
    ],
)
def test_silence_counts_only_where_something_could_follow(repeatable: bool, policy: RetryPolicy, when: float) -> None:
    """Else giving an attempt up would only lose a reply that is late."""
    assert silent_at(call(repeatable=repeatable), policy, 100.0) == when


def test_pauses_grow_and_the_number_of_attempts_is_exact() -> None:
    """LP-5, LP-6: N attempts have N - 1 pauses between them, each with full jitter."""
    made = call()
    assert retry_at(made, POLICY, RetryCause.SILENT, 100.0, 0.5) == 100.5
    made.failures = 1
    assert retry_at(made, POLICY, RetryCause.LOST, 100.0, 0.5) == 101.0
    made.failures = 2
    assert retry_at(made, POLICY, RetryCause.SILENT, 100.0, 0.5) is None
    assert retry_at(made, RetryPolicy(attempts=None), RetryCause.SILENT, 100.0, 0.0) == 100.0
    assert retry_at(call(), RetryPolicy(causes=[]), RetryCause.LOST, 100.0, 0.0) is None


def test_only_an_idempotent_call_without_a_part_may_repeat() -> None:
    """After a part the caller would see the beginning twice."""
    made = call()
    assert made.may_repeat and not call(repeatable=False).may_repeat
    made.partial = True
    assert not made.may_repeat


def test_the_alarm_is_the_deadline_or_whatever_is_due_before() -> None:
    """Neither may be missed for the other."""
    made = call()
    assert made.alarm() == 130.0 and not made.over(129.9) and made.over(130.0)
    made.due = 102.0
    assert made.alarm() == 102.0
    endless = call(deadline=None)
    assert endless.alarm() == math.inf and not endless.over(1e9)


def test_time_is_split_into_unsent_and_silent() -> None:
    """LP-3: the error says where the time went, also for copies that went out side by side."""
    made = sent(call(), 101.0)
    made.sent(101.5, "b", math.inf)
    made.failed(103.0, "nothing was heard", Stage.PAUSED)
    sent(made, 104.0, "a")
    spent = endings.at_deadline(made, 106.0, "").spent
    assert (spent.unsent_s, spent.silent_s) == (2.0, 4.0)
    made.failed(106.0, "nothing was heard", Stage.PAUSED)
    spent = endings.exhausted(made, 107.0, "").spent
    assert (spent.unsent_s, spent.silent_s) == (3.0, 4.0)


def test_the_deadline_has_an_error_for_each_reason() -> None:
    """Never sent because nobody was there, never sent because there was no time, sent in vain."""
    nobody = endings.at_deadline(call(), 130.0, "a: refused")
    assert type(nobody) is BrokerUnreachable and nobody.outcome is Outcome.NOT_EXECUTED
    assert nobody.last_state == "not sent" and nobody.attempts == 0 and nobody.brokers == ()
    assert nobody.message == "echo: no server could be reached within 30.00 s: a: refused"
    late = endings.at_deadline(call(deadline=100.0), 100.0, "")
    assert type(late) is DeadlineExceeded and late.outcome is Outcome.NOT_EXECUTED
    in_vain = endings.at_deadline(sent(sent(call(), 101.0, "a"), 102.0, "b"), 130.0, "")
    assert type(in_vain) is DeadlineExceeded and in_vain.outcome is Outcome.UNKNOWN
    assert in_vain.message == "echo: no reply within 30.00 s: asked 2 times, the last time at b"
    assert in_vain.brokers == ("a", "b") and in_vain.last_state == "sent"


def test_every_error_names_its_call() -> None:
    """What a log line needs, whatever the matter is."""
    made = sent(call(), 101.0)
    made.failures = 1
    errors = [
        endings.server_lost(made, 102.0, "gone"),
        endings.exhausted(made, 102.0, "silent"),
        endings.abandoned(made, 102.0, "closed"),
        endings.too_large(made, 102.0, 10, 5),
        endings.queue_full(made, 102.0, 1),
    ]
    assert [type(error) for error in errors[:2]] == [BrokerLost, AttemptsExhausted]
    for error in errors:
        assert (error.service, error.call_id, error.elapsed_s) == ("echo", b"c" * 16, 2.0)
        assert error.message.startswith("echo: ") and error.outcome is Outcome.UNKNOWN
        assert error.story == ("   1.000 s  sent (a)",)
    assert errors[1].message == "echo: gave up after one attempt failed: silent"
