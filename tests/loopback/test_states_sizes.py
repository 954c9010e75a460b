"""What is larger than somebody's limit: a typed error at once, once, and nobody is taken for dead because of it."""

from __future__ import annotations

import time
from typing import Final

import attrs
import pytest

from reliable import MessageTooLarge, Outcome
from reliable.config import Limits
from tests.support.fleet import Fleet, Service
from tests.support.loopback import QUICK_BROKER, QUICK_CLIENT, ShellKind, Stage

_LIMIT: Final = 100_000
_ABOVE: Final = 200_000
_CLIENT: Final = attrs.evolve(QUICK_CLIENT, limits=Limits(message_bytes_max=_LIMIT))


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["the worker's", "the broker's", "the client's"])
def test_a_message_above_any_limit_costs_its_own_call_and_nothing_else(
    stage: Stage, fleet: Fleet, shell: ShellKind, whose: str
) -> None:
    """Request and reply; the error says whether it ran, nothing is delivered again, and every connection stays."""
    broker = stage.broker(
        config=attrs.evolve(QUICK_BROKER, message_bytes_max=_LIMIT) if whose == "the broker's" else QUICK_BROKER
    )
    client = shell.client(broker.endpoint, config=_CLIENT if whose == "the client's" else QUICK_CLIENT)
    fleet.start(
        broker.endpoint,
        Service("once", idempotent=False),
        Service("again", idempotent=True),
        shell=shell.name,
        message_bytes_max=_LIMIT if whose == "the worker's" else 0,
    )
    began = time.monotonic()
    for service in ("once", "again"):
        with pytest.raises(MessageTooLarge) as request:
            client.request(service, b"echo", b"request", bytes(_ABOVE))
        assert request.value.outcome is Outcome.NOT_EXECUTED
        with pytest.raises(MessageTooLarge) as reply:
            client.request(service, b"size", service.encode(), b"%d" % _ABOVE)
        assert reply.value.outcome is Outcome.EXECUTED
    assert client.request("once", b"echo", b"after")[0] == b"after"
    assert time.monotonic() - began < 2.0
    assert fleet.runs() == {"once": 1, "again": 1, "after": 1}
    snapshot = broker.broker.snapshot()
    counted = [snapshot.counters[name] for name in ("workers_registered", "workers_gone", "redelivered")]
    assert counted == [1, 0, 0]
    assert [view.state for view in snapshot.workers] == ["idle"]
