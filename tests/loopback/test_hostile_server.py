"""The promise against links and servers that do their worst: each call ends in time, with its own reply or an error."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs
import pytest

from reliable import ClientConfig, Outcome, RequestError, RequestTimeout
from reliable.config import Backoff, RetryPolicy
from tests.support.answering import DIALECTS, SERVICE, answering
from tests.support.hostile import (
    BIG_BYTES,
    HostileProcess,
    Mischief,
    hostile_server,
    relay_process,
    server_process,
)
from tests.support.load import (
    LATE_S_MAX,
    Ended,
    Lag,
    Plan,
    assert_nothing_is_left,
    calls_wanted,
    make_calls,
    one_call,
)
from tests.support.loopback import QUICK_CLIENT, QUICK_TRANSPORT, AnyClient, ShellKind

_CALLS: Final = calls_wanted(5_000)
_CALLERS: Final = 48
_MISCHIEF: Final = {
    "mdp": Mischief(drop=0.02, duplicate=0.05, delay=0.15, delay_s_max=0.05),
    "req": Mischief(drop=0.02, duplicate=0.1, duplicate_requests=False, delay=0.15, delay_s_max=0.05),
}
_FIRST_CALLS: Final = 2 * _CALLERS
_TURNS: Final = 5
"""How often a call among many waits for its turn with the interpreter or a lock, where a timer waits once."""
_PATIENT_S: Final = 4.0
_HASTY_S: Final = 0.02
_LOAD_CLIENT: Final = ClientConfig(
    timeout_s=_PATIENT_S,
    hello_timeout_s=0.3,
    retry=RetryPolicy(
        attempts=None, attempt_timeout_s=0.25, backoff=Backoff(initial_s=0.01, delay_s_max=0.1), budget=None
    ),
    reconnect=Backoff(initial_s=0.02, delay_s_max=0.2),
    transport=QUICK_TRANSPORT,
)
_EAGER: Final = attrs.evolve(
    QUICK_CLIENT,
    hello_timeout_s=0.2,
    retry=RetryPolicy(attempts=None, attempt_timeout_s=0.1, backoff=Backoff(initial_s=0.01, delay_s_max=0.05)),
)
_STEADY: Final = attrs.evolve(QUICK_CLIENT, retry=RetryPolicy.never())
_TRICKS: Final = [
    *((dialect, trick) for dialect in DIALECTS for trick in ("late 0.4", "never", "garbage")),
    # Replies of the others do not name their service.
    ("mdp", "service"),
]
_MANNERS: Final = {"one attempt": _STEADY, "many attempts": _EAGER}
_WAYS: Final = [
    pytest.param("one attempt", False, id="sent once"),
    pytest.param("many attempts", True, id="sent again"),
    pytest.param("many attempts", False, id="asked again"),
]


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    """What the client speaks."""
    return str(request.param)


def _client(shell: ShellKind, dialect: str, endpoint: str, config: ClientConfig) -> AnyClient:
    return shell.client(endpoint, config=attrs.evolve(config, dialect=dialect))


# --- under load -----------------------------------------------------------------------------------


@attrs.define
class _Verdict:
    """What became of the calls; each is looked at when it ends, so that a hundred thousand take no memory."""

    can_ask: bool
    """Whether a call that must not run twice can be asked after, by its id; else it is lost with its one message."""
    ends: Counter[str] = attrs.Factory(Counter)
    wrong: list[str] = attrs.Factory(list)
    late: list[Ended] = attrs.Factory(list)
    latest_s: float = -math.inf
    proven_idle: list[str] = attrs.Factory(list)
    """Calls that must not have run, by the word of their error."""
    given_up: list[str] = attrs.Factory(list)
    """Calls that had all the time to be sent again and again, and failed all the same."""

    def note(self, ended: Ended) -> None:
        body = ended.plan.body[1]
        if isinstance(ended.result, RequestError):
            self.ends[f"{type(ended.result).__name__} {ended.result.outcome.name}"] += 1
            if ended.result.outcome is Outcome.NOT_EXECUTED:
                self.proven_idle.append(body.decode())
            if ended.plan.timeout == _PATIENT_S and (self.can_ask or ended.plan.idempotent):
                self.given_up.append(f"{body!r} {ended.result}")
        else:
            self.ends["ok"] += 1
            if ended.result != [b"re", body]:
                self.wrong.append(f"{body!r} got {ended.result!r}")
        self.latest_s = max(self.latest_s, ended.late_s)
        if ended.late_s > LATE_S_MAX:
            self.late.append(ended)

    def assert_promise(self, lag: Lag, calls: int) -> None:
        assert self.ends.total() == calls
        assert self.wrong == []
        excess = [(lag.excess_s(ended, _TURNS), ended) for ended in self.late]
        too_late = [f"{excess_s:.3f} s {ended}" for excess_s, ended in excess if excess_s > LATE_S_MAX]
        assert too_late == []
        assert len(self.given_up) <= calls / 1_000, self.given_up


def _plans(name: str, calls: int) -> Iterator[Plan]:
    """Every third may run twice; every tenth has a deadline that it often misses, so that replies come late. The first
    ones have not, since all callers at once open their links then."""
    for number in range(calls):
        idempotent = number % 3 == 0
        body = f"{name}-{number}-{'again' if idempotent else 'once'}".encode()
        timeout = _HASTY_S if number % 10 == 0 and number > _FIRST_CALLS else _PATIENT_S
        yield Plan(SERVICE, [b"well", body], timeout, idempotent=idempotent)


@pytest.mark.slow
@pytest.mark.timeout(60 + _CALLS // 100)
def test_every_call_through_a_hostile_link_ends_in_time_and_with_its_own_reply(
    shell: ShellKind, dialect: str, seed: int, tmp_path: Path
) -> None:
    """Messages are dropped, doubled, delayed and reordered: no reply reaches another call, nothing runs twice that
    must not, and none hangs. ``RELIABLE_CALLS`` says how many calls; a hundred thousand take some minutes."""
    # Each timeout costs a connection where replies have no number, so these calls take longer.
    calls = _CALLS if dialect == "mdp" else _CALLS // 3
    verdict = _Verdict(dialect == "mdp")
    with ExitStack() as stack:
        service = stack.enter_context(answering(dialect, tmp_path))
        relay = stack.enter_context(relay_process(service.endpoint, _MISCHIEF[dialect], seed))
        client = _client(shell, dialect, relay.endpoint, _LOAD_CLIENT)
        began = time.monotonic()
        lag = make_calls(shell, client, _plans(shell.name, calls), _CALLERS, verdict.note)
        took_s = time.monotonic() - began
        assert_nothing_is_left(client)
        ran_again, runs = service.ran_again(), service.runs()
        figures = relay.figures()
    print(
        f"{shell.name} {dialect}: {calls} calls in {took_s:.1f} s, latest {verdict.latest_s:+.3f} s after its deadline"
    )
    print(f"ends {dict(verdict.ends)}, given up {len(verdict.given_up)}")
    print(f"relay {figures}, worker {sum(runs.values())} runs")
    verdict.assert_promise(lag, calls)
    assert ran_again == 0
    assert [body for body in verdict.proven_idle if body in runs] == []
    kinds = {"dropped", "delayed", "overtook", "duplicated"}
    assert min(figures[kind] for kind in kinds) > calls // 200, figures


# --- one call at a time ---------------------------------------------------------------------------


def _timed(shell: ShellKind, client: AnyClient, plan: Plan) -> tuple[Ended, Lag]:
    """One call, and how late a timer was that ran beside it."""
    ends: list[Ended] = []
    lag = make_calls(shell, client, iter([plan]), 1, ends.append)
    (ended,) = ends
    return ended, lag


def _assert_typed_and_in_time(ended: Ended, lag: Lag) -> RequestError:
    assert isinstance(ended.result, RequestError), ended
    assert lag.excess_s(ended) <= LATE_S_MAX, f"{ended.late_s:.3f} s late: {ended}"
    return ended.result


def _assert_right(client: AnyClient, word: bytes, timeout: float = 5.0) -> None:
    ended = one_call(client, Plan(SERVICE, [b"well", word], timeout, idempotent=True))
    assert ended.result == [b"re", word]


@pytest.mark.parametrize(("manner", "idempotent"), _WAYS)
@pytest.mark.parametrize(("dialect", "trick"), _TRICKS)
def test_a_server_that_does_not_answer_rightly_costs_one_call_and_only_until_its_deadline(
    shell: ShellKind, dialect: str, trick: str, manner: str, idempotent: bool
) -> None:
    """Too late, never, garbage, or for another service: the caller gets a timeout when due, and the next one its own
    reply, also while the late reply of the first comes in."""
    with hostile_server(dialect) as server:
        client = _client(shell, dialect, server.endpoint, _MANNERS[manner])
        _assert_right(client, b"before")
        ended, lag = _timed(shell, client, Plan(SERVICE, [trick.encode(), b"wrong"], 0.3, idempotent=idempotent))
        error = _assert_typed_and_in_time(ended, lag)
        assert isinstance(error, RequestTimeout)
        assert ended.late_s >= 0, "it gave up before the deadline"
        assert error.outcome is Outcome.UNKNOWN
        for number in range(20):
            _assert_right(client, b"%d" % number)
            time.sleep(0.007)  # The late reply is due while these are made.
        assert server.counts[trick.split()[0]] >= 1
        assert_nothing_is_left(client)


@pytest.mark.parametrize("dialect", ["mdp"])
@pytest.mark.parametrize("manner", _MANNERS)
def test_a_server_that_answers_twice_answers_no_call_but_the_one_it_was_asked(
    shell: ShellKind, dialect: str, manner: str
) -> None:
    """The second copy arrives while the next call waits, and must not be taken for its reply."""
    with hostile_server(dialect) as server:
        client = _client(shell, dialect, server.endpoint, _MANNERS[manner])
        for number in range(100):
            trick = b"twice" if number % 2 else b"well"
            plan = Plan(SERVICE, [trick, b"%d" % number], 5.0, idempotent=True)
            assert one_call(client, plan).result == [b"re", b"%d" % number]
        assert server.counts["twice"] == 50
        assert_nothing_is_left(client)


# --- a server that is stopped, with a large body under way ----------------------------------------


@pytest.fixture
def stopped(dialect: str) -> Iterator[HostileProcess]:
    """A server in a process of its own, for SIGSTOP."""
    with server_process(dialect) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize(("manner", "idempotent"), _WAYS[:2])
@pytest.mark.parametrize("direction", ["request", "reply"])
def test_a_server_that_is_stopped_amid_a_large_body_holds_no_call_past_its_deadline(
    shell: ShellKind, dialect: str, direction: str, manner: str, idempotent: bool, stopped: HostileProcess
) -> None:
    """TCP takes what fits and then nothing more: neither the send nor the half-read reply may block anybody, and after
    SIGCONT, or at another server, calls are right again."""
    body = [b"stop", b"x"] if direction == "reply" else [b"well", bytes(BIG_BYTES)]
    with hostile_server(dialect) as healthy:
        client = _client(shell, dialect, stopped.endpoint, _MANNERS[manner])
        _assert_right(client, b"before")
        if direction == "request":
            stopped.child.pause()
        ended, lag = _timed(shell, client, Plan(SERVICE, body, 0.6, idempotent=idempotent))
        _assert_typed_and_in_time(ended, lag)
        assert stopped.stands_still()
        _assert_right(_client(shell, dialect, healthy.endpoint, _MANNERS[manner]), b"elsewhere")
        ended, lag = _timed(shell, client, Plan(SERVICE, [b"well", b"still stopped"], 0.3, idempotent=idempotent))
        _assert_typed_and_in_time(ended, lag)
        stopped.child.resume()
        for number in range(10):
            _assert_right(client, b"after %d" % number, timeout=10.0)
        assert_nothing_is_left(client)


@pytest.mark.slow
def test_a_server_that_is_stopped_delays_no_call_that_another_can_take(
    shell: ShellKind, dialect: str, stopped: HostileProcess
) -> None:
    """With a second server in the list an idempotent call outlives the first one's sleep."""
    with hostile_server(dialect) as healthy:
        config = attrs.evolve(_EAGER, dialect=dialect)
        client = shell.client(stopped.endpoint, healthy.endpoint, config=config)
        _assert_right(client, b"before")
        stopped.child.pause()
        for number in range(5):
            _assert_right(client, b"%d" % number)
        assert stopped.stands_still()
        stopped.child.resume()
        _assert_right(client, b"after")
        assert_nothing_is_left(client)
