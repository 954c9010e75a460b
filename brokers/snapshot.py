"""What the broker shows of itself: frozen values that msgspec turns into JSON, and how they are taken."""

from __future__ import annotations

from functools import cache
from importlib import metadata

import attrs

from brokers.counters import BrokerCounters
from brokers.peers import Worker
from brokers.services import Service
from brokers.state import BrokerState

__all__ = ["BrokerCounters", "BrokerSnapshot", "ServiceView", "WorkerView", "take_snapshot"]


@attrs.frozen(kw_only=True)
class ServiceView:
    """One service."""

    name: str
    workers: int
    """Registered for it, in any state."""
    idle: int
    working: int
    stuck: int
    queued: int
    idempotent: bool | None
    """What its workers declare; False if any says so."""


@attrs.frozen(kw_only=True)
class WorkerView:
    """One registered worker."""

    peer: str
    """Routing id in hex."""
    instance: str
    """Instance id in hex, empty for a worker that is not ours."""
    services: tuple[str, ...]
    state: str
    """``idle``, ``working``, ``stuck``, or ``unverified``: a worker that holds a request and has never shown that it
    heartbeats meanwhile."""
    in_hand: int
    credit: int
    ours: bool
    version: str
    last_heard_s: float
    """Seconds since it was last heard."""


@attrs.frozen(kw_only=True)
class BrokerSnapshot:
    """A frozen view of the broker at one moment; JSON by ``msgspec.json.encode``."""

    life: str
    """In hex; a new one for each run of the broker."""
    uptime_s: float
    draining: bool
    """It was told to stop: it takes nothing new, and waits for what workers hold."""
    version: str
    """Of this library."""
    services: tuple[ServiceView, ...]
    workers: tuple[WorkerView, ...]
    counters: dict[str, int]
    limits: dict[str, int]
    """Settings that end in ``_max``."""
    usage: dict[str, int]
    """How full the bounded tables are now."""


def take_snapshot(state: BrokerState, now: float) -> BrokerSnapshot:
    """Look at everything once; names that are not text are shown with escapes."""
    config = attrs.asdict(state.config, recurse=False)
    return BrokerSnapshot(
        life=state.life.hex(),
        uptime_s=round(now - state.started_at, 3),
        draining=state.stopped,
        version=_library_version(),
        services=tuple(_service_view(service) for service in state.services.by_name.values()),
        workers=tuple(_worker_view(worker, now) for worker in state.workers.values()),
        counters=attrs.asdict(state.counters),
        limits={name: value for name, value in config.items() if name.endswith("_max")},
        usage={
            **state.calls.usage(),
            "queued": state.queued,
            "held_bytes": state.held_bytes,
            "late_tokens": len(state.late),
            "limbo": len(state.limbo),
            "streams": len(state.streams),
            "sessions": len(state.peers),
            "tombstones": len(state.tombstones),
            "deadlines": len(state.wheel),
        },
    )


@cache
def _library_version() -> str:
    try:
        return metadata.version("reliable")
    except metadata.PackageNotFoundError:
        return "unknown"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _service_view(service: Service) -> ServiceView:
    workers = list(service.offers)
    stuck = sum(1 for worker in workers if worker.stuck)
    idle = sum(1 for worker in workers if not worker.stuck and not worker.in_hand)
    return ServiceView(
        name=_text(service.name),
        workers=len(workers),
        idle=idle,
        working=len(workers) - stuck - idle,
        stuck=stuck,
        queued=service.queue.length,
        idempotent=service.idempotent,
    )


def _worker_state(worker: Worker) -> str:
    if worker.stuck:
        return "stuck"
    if not worker.in_hand:
        return "idle"
    return "working" if worker.ours or worker.beats_while_busy else "unverified"


def _worker_view(worker: Worker, now: float) -> WorkerView:
    return WorkerView(
        peer=worker.peer.hex(),
        instance=worker.instance.hex(),
        services=tuple(_text(service.name) for service in worker.services),
        state=_worker_state(worker),
        in_hand=len(worker.in_hand),
        credit=worker.credit,
        ours=worker.ours,
        version=worker.version.value,
        last_heard_s=round(now - worker.last_heard, 3),
    )
