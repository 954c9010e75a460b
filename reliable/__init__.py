"""Request/reply over ZeroMQ that always ends: with its reply, or with an error that says what may have run.

A worker offers services, a client calls them, a broker (``reliable broker``) stands between.

    worker = Worker("tcp://127.0.0.1:5555")

    @worker.service("add", idempotent=True)
    def add(a: int, b: int) -> int:
        return a + b

    worker.run()

and elsewhere

    with Client("tcp://127.0.0.1:5555") as client:
        client.call("add", 2, 3)

``AsyncClient`` and ``AsyncWorker`` are the same for asyncio.
"""

from __future__ import annotations

from reliable.aio.calls import AsyncServiceProxy
from reliable.aio.client import AsyncClient, AsyncClientView
from reliable.aio.mapping import AsyncMapResults
from reliable.aio.pending import AsyncPendingCall
from reliable.aio.streams import AsyncStream
from reliable.aio.worker import AsyncWorker
from reliable.config import (
    Backoff,
    BreakerPolicy,
    ClientConfig,
    Dialect,
    Freelance,
    Heartbeat,
    HedgePolicy,
    Limits,
    RetryBudget,
    RetryCause,
    RetryPolicy,
    TransportConfig,
    WorkerConfig,
)
from reliable.engine.client import ClientCounters, ClientSnapshot
from reliable.engine.worker import WorkerCounters, WorkerSnapshot
from reliable.errors import (
    AttemptsExhausted,
    BrokerLost,
    BrokerUnreachable,
    CallIdConflict,
    ClosedError,
    DeadlineExceeded,
    LocalProtocolError,
    MessageTooLarge,
    NotAuthorised,
    Outcome,
    PayloadError,
    ProtocolError,
    QueueFull,
    ReliableError,
    RemoteProtocolError,
    ReplyEvicted,
    RequestAbandoned,
    RequestError,
    RequestRefused,
    RequestTimeout,
    ServiceNotFound,
    Spent,
    WorkerFailed,
    WorkerLost,
)
from reliable.handling import offer
from reliable.payload import JSON, MSGPACK, RAW, Codec
from reliable.request import Request, current_request
from reliable.sync.calls import ServiceProxy
from reliable.sync.client import Client, ClientView
from reliable.sync.mapping import MapResults
from reliable.sync.pending import PendingCall
from reliable.sync.streams import Stream
from reliable.sync.worker import Worker
from reliable.types import Frames, Observer

__all__ = [
    "JSON",
    "MSGPACK",
    "RAW",
    "AsyncClient",
    "AsyncClientView",
    "AsyncMapResults",
    "AsyncPendingCall",
    "AsyncServiceProxy",
    "AsyncStream",
    "AsyncWorker",
    "AttemptsExhausted",
    "Backoff",
    "BreakerPolicy",
    "BrokerLost",
    "BrokerUnreachable",
    "CallIdConflict",
    "Client",
    "ClientConfig",
    "ClientCounters",
    "ClientSnapshot",
    "ClientView",
    "ClosedError",
    "Codec",
    "DeadlineExceeded",
    "Dialect",
    "Frames",
    "Freelance",
    "Heartbeat",
    "HedgePolicy",
    "Limits",
    "LocalProtocolError",
    "MapResults",
    "MessageTooLarge",
    "NotAuthorised",
    "Observer",
    "Outcome",
    "PayloadError",
    "PendingCall",
    "ProtocolError",
    "QueueFull",
    "ReliableError",
    "RemoteProtocolError",
    "ReplyEvicted",
    "Request",
    "RequestAbandoned",
    "RequestError",
    "RequestRefused",
    "RequestTimeout",
    "RetryBudget",
    "RetryCause",
    "RetryPolicy",
    "ServiceNotFound",
    "ServiceProxy",
    "Spent",
    "Stream",
    "TransportConfig",
    "Worker",
    "WorkerConfig",
    "WorkerCounters",
    "WorkerFailed",
    "WorkerLost",
    "WorkerSnapshot",
    "current_request",
    "offer",
]
