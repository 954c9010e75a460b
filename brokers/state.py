"""The tables of one broker and its outbox, shared by the parts of the engine; almost no decisions here."""

from __future__ import annotations

import math
from collections import deque

from brokers.config import BrokerConfig
from brokers.counters import BrokerCounters
from brokers.peers import PeerTable, ProbeTimer, Tombstones, Worker
from brokers.records import QUEUED, Call, CallTable, HandOver, LateTokens
from brokers.services import Service, ServiceTable
from brokers.wheel import Wheel
from reliable.types import Frames
from reliable.wire.extension import Delivery, DeliveryKind
from reliable.wire.mdp import Version, WorkerDisconnect, WorkerHeartbeat, worker_request

__all__ = ["BrokerState"]


class BrokerState:
    """Everything a broker knows."""

    def __init__(self, config: BrokerConfig, life: bytes, now: float) -> None:
        self.config = config
        self.life = life
        self.started_at = now
        self.now = now
        """The moment of the event that is being handled."""
        self.outbox: deque[Frames] = deque()
        self.counters = BrokerCounters()
        self.wheel = Wheel(now)
        self.calls = CallTable(
            now,
            finished_max=config.finished_calls_max,
            reply_bytes_max=config.reply_cache_bytes_max,
            fences_max=config.fences_max,
        )
        self.services = ServiceTable(offered_max=config.services_max, unknown_max=config.unknown_services_max)
        self.peers = PeerTable(config.sessions_max)
        self.workers: dict[bytes, Worker] = {}
        self.siblings: dict[bytes, dict[Worker, None]] = {}
        """Our workers by instance id: several connections of one process."""
        self.tombstones = Tombstones(config.tombstones_max, config.heartbeat.timeout_s)
        self.probe = ProbeTimer()
        self.probed_at = now
        self.late = LateTokens(config.late_tokens_max)
        self.limbo: dict[bytes, HandOver] = {}
        """By token; each has a deadline of ``limbo_s``."""
        self.streams: dict[bytes, dict[Call, None]] = {}
        """Plain requests with partial replies under way, by client: only to find those that lose one."""
        self.queued = 0
        self.queued_by_client: dict[bytes, int] = {}
        self.held_bytes = 0
        self.stopped = False
        """It leaves, and takes nothing new (``brokers.leaving``)."""
        self.left = False
        """Everything has its end; workers are told to go."""
        self.draining_since = now
        """Means something once ``stopped``."""
        self.leave_by = math.inf
        """When it goes at the latest."""
        self.heard_new_at = -math.inf
        """When, while leaving, a new call was last refused or a client last told."""
        self.missed_s = 2 * config.heartbeat.interval_s
        """A silence longer than this is a gap."""
        self._token = 0

    def next_token(self) -> bytes:
        """A name for one delivery that no other life uses."""
        self._token += 1
        return self.life + self._token.to_bytes(8, "big")

    def retry_after_s(self) -> float:
        """What a refused client is told to wait. The longer a drain lasts already, the longer it is likely to."""
        least_s = self.config.retry_after_s
        return max(least_s, 2 * (self.now - self.draining_since)) if self.stopped else least_s

    # --- the queues, counted ---

    def enqueue(self, call: Call) -> None:
        """Let a request wait at its service."""
        call.state = QUEUED
        call.service.queue.push(call)
        self.queued += 1
        self.queued_by_client[call.client_key] = self.queued_by_client.get(call.client_key, 0) + 1

    def dequeue(self, call: Call) -> None:
        """Take this one out of its queue."""
        call.service.queue.remove(call)
        self._left_queue(call)

    def pop(self, service: Service) -> Call:
        """Take the next one out of a queue that is not empty."""
        call = service.queue.pop()
        self._left_queue(call)
        return call

    def _left_queue(self, call: Call) -> None:
        self.queued -= 1
        left = self.queued_by_client[call.client_key] - 1
        if left:
            self.queued_by_client[call.client_key] = left
        else:
            del self.queued_by_client[call.client_key]

    # --- sending to workers ---

    def to_worker(self, worker: Worker, address: bytes, body: Frames) -> None:
        """A REQUEST of MDP."""
        self.outbox.append(worker_request((worker.peer,), worker.version, address, body))
        worker.last_sent = self.now

    def control(self, worker: Worker, kind: DeliveryKind, token: bytes) -> None:
        """A word to one of our workers that is no request to run."""
        self.to_worker(worker, Delivery(token, kind).encode(), [b""])

    def heartbeat(self, worker: Worker) -> None:
        """7/MDP: both sides, idle or busy."""
        self.outbox.append([worker.peer, *WorkerHeartbeat(worker.version).encode()])
        worker.last_sent = self.now
        self.counters.heartbeats_sent += 1

    def tell_to_go(self, peer: bytes, version: Version) -> None:
        """One DISCONNECT, and then nothing more: the peer is ignored until it begins a new session."""
        self.outbox.append([peer, *WorkerDisconnect(version).encode()])
        self.tombstones.add(peer, self.now)
        self.counters.disconnects_sent += 1
