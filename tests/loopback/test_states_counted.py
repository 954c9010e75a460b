"""Workers that are killed at random: what ran, as counted by those who ran it, agrees with what the callers were told.

``RELIABLE_LONG=1`` makes ten thousand calls of each kind; ``--seed`` repeats the choice of victims.
"""

from __future__ import annotations

import random
from typing import Final

import attrs
import pytest

from tests.support.fleet import Fleet, Service, WorkerProcess, sized
from tests.support.fleet_load import Load, judge
from tests.support.loopback import QUICK_CLIENT, ShellKind, Stage, eventually

_CALLS: Final = {False: sized(500, 10_000), True: sized(250, 10_000)}
"""For services that are not idempotent, and for those that are."""
_CALLERS: Final = 8
_WORKERS: Final = 3
# Whether it pays to try again is another question; here as many calls as possible are to see a worker die.
_CONFIG: Final = attrs.evolve(QUICK_CLIENT, retry=attrs.evolve(QUICK_CLIENT.retry, attempts=None, budget=None))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(sized(60, 1_200))]


@pytest.mark.parametrize("idempotent", [False, True], ids=["not idempotent", "idempotent"])
def test_the_workers_own_count_agrees_with_what_callers_were_told(
    stage: Stage, fleet: Fleet, shell: ShellKind, rng: random.Random, idempotent: bool
) -> None:
    """The client cannot be the judge of how often its call ran: the workers write each entry down, then die."""
    broker, calls = stage.broker(), _CALLS[idempotent]
    client = shell.client(broker.endpoint, config=_CONFIG)
    service = Service("any", idempotent=idempotent)

    def worker() -> WorkerProcess:
        return fleet.start(broker.endpoint, service, shell=shell.name, concurrency=2, ready=False)

    workers = [worker() for _ in range(_WORKERS)]
    for each in workers:
        each.wait_ready()
    load = Load(client, "any", (b"sleep", b"0.01"), total=calls)
    kills = 0
    with load.running(_CALLERS):
        while (next_kill := len(load.ends) + rng.randrange(30, 90)) < calls:
            eventually(lambda at=next_kill: len(load.ends) >= at, "calls go on", 45.0)  # type: ignore[misc]
            index = rng.randrange(_WORKERS)
            workers[index].kill()
            workers[index] = worker()
            kills += 1
    counts = judge(load, fleet, once=not idempotent)
    lost = counts.get("WorkerLost UNKNOWN", 0)
    print(f"{kills} kills: {counts}; {broker.broker.snapshot().counters['redelivered']} delivered again")
    assert counts["calls"] == calls
    assert kills >= 3
    if idempotent:
        assert counts["ok"] == calls, "each kill cost a delivery, and no call"
    else:
        assert counts["ok"] + lost == calls, "each call that did not get its reply was in the hands of a dead worker"
        assert lost > 0, "no kill hit a call"
