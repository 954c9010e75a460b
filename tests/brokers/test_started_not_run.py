"""A worker that said "started" and then that it did not run it, as when a handler process cannot be started."""

from __future__ import annotations

import pytest

from reliable.errors import Outcome
from reliable.status import Status
from reliable.wire.extension import ReportKind
from tests.support.broker_bench import Bench, OurClient, OurWorker
from tests.support.broker_verdicts import NO, verdict


@pytest.mark.parametrize(("started", "outcome"), [(False, Outcome.NOT_EXECUTED), (True, Outcome.UNKNOWN)])
def test_worker_that_says_it_did_not_run_it_is_believed_unless_it_said_started(started: bool, outcome: Outcome) -> None:
    """A handler process may fail to come up after its worker said "started": it claims no run, and proves nothing."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench, b"w1").ready()
    client.submit(flags=NO)
    token = worker.job().token
    if started:
        worker.report(token, ReportKind.STARTED)
    worker.error(token, b"ProcessNotStarted", executed=False)
    assert verdict(client) == (Status.HANDLER_ERROR, outcome)
