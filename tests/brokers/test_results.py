"""The reply that everybody waits for takes a short way through the broker; whatever is not quite one must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from reliable.status import Status
from reliable.wire.extension import RESULT_BYTES, TOKEN_BYTES, Report, ReportKind
from reliable.wire.mdp import Version
from tests.support.broker_bench import Bench, ForeignClient, ForeignWorker, OurClient, OurWorker
from tests.support.broker_verdicts import NO, final, no_final

_HEADERS: Final = {Version.MDP01: (b"", b"MDPW01", b"\3"), Version.MDP02: (b"MDPW02", b"\4")}
_BROKEN: Final[dict[str, Callable[[bytes], list[bytes]]]] = {
    "no delimiter": lambda address: [address, b"body", b"body"],
    "nothing behind the delimiter": lambda address: [address, b""],
    "nothing behind the address": lambda address: [address],
    "no address": lambda _: [b"", b"", b"body"],
    "nothing at all": lambda _: [],
}


@pytest.mark.parametrize("broken", _BROKEN)
@pytest.mark.parametrize("version", list(Version))
def test_a_reply_with_the_right_address_and_the_wrong_frames_is_malformed(version: Version, broken: str) -> None:
    """A token that is held proves who speaks, not that what is said can be read."""
    bench = Bench()
    client, worker = ForeignClient(bench), ForeignWorker(bench, version=version).ready()
    client.request(b"echo", b"work")
    worker.send(*_HEADERS[version], *_BROKEN[broken](worker.request().address))
    assert worker.disconnects() == 1 and bench.state(worker) is None
    assert client.replies() == [] and bench.count("dropped_invalid") == 1


@pytest.mark.parametrize("version", list(Version))
def test_a_reply_in_the_other_version_is_malformed(version: Version) -> None:
    """18/MDP and 7/MDP number their commands differently: who mixes them may mean anything."""
    bench = Bench()
    client, worker = ForeignClient(bench), ForeignWorker(bench, version=version).ready()
    client.request(b"echo", b"work")
    (other,) = (header for known, header in _HEADERS.items() if known is not version)
    worker.send(*other, worker.request().address, b"", b"body")
    assert worker.disconnects() == 1 and client.replies() == []


def test_the_result_of_a_worker_that_was_stuck_puts_it_back_to_work() -> None:
    """It lives, and somebody may be waiting for it."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench).ready()
    client.submit(flags=NO, timeout_s=1000.0)
    token = worker.job().token
    bench.fall_silent(worker)
    bench.advance(bench.stuck_s + bench.heartbeat_s)
    assert bench.state(worker) == "stuck"
    worker.result(token, b"late, and right")
    assert final(client).body == [b"late, and right"]
    client.submit(body=[b"next"], flags=NO)
    assert worker.job().body == [b"next"]


def test_a_result_counts_only_under_a_token_of_this_very_worker() -> None:
    """Whoever learns a token, from a log say, must not be able to answer with it."""
    bench = Bench()
    client, workers = OurClient(bench), [OurWorker(bench, name).ready() for name in (b"one", b"two")]
    client.submit(flags=NO)
    (one, ones), (two, twos) = ((worker, worker.jobs()) for worker in workers)
    holder, other, (job,) = (one, two, ones) if ones else (two, one, twos)
    other.result(job.token, b"mine")
    no_final(client)
    assert other.disconnects() == 1
    holder.result(job.token, b"ours")
    assert final(client).body == [b"ours"]


def test_what_stands_behind_the_token_of_a_plain_result_is_what_workers_send() -> None:
    """The short way compares bytes: a worker that wrote others would be served by the long one alone, unnoticed."""
    token = bytes(range(TOKEN_BYTES))
    assert Report(token, ReportKind.RESULT).encode() == token + RESULT_BYTES


@pytest.mark.parametrize("limit", [4, 5])
def test_a_result_larger_than_its_client_takes_is_refused(limit: int) -> None:
    """The same bound as for every reply: libzmq would cut the connection of the client instead."""
    bench = Bench()
    client, worker = OurClient(bench, max_message_bytes=limit), OurWorker(bench).ready()
    client.submit(flags=NO)
    worker.result(worker.job().token, b"12345")
    assert final(client).status is (Status.OK if limit == 5 else Status.TOO_LARGE)
