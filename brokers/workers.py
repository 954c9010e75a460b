"""Workers: how they register, how their silence is judged, and how they go.

Silence means different things. A foreign idle worker that is silent for ``timeout_s`` is forgotten without a word, so
that its next command gets the DISCONNECT which makes it register anew. A foreign busy one may be single-threaded, as
the Guide's are, and is judged only if it has heartbeated while busy before. One of ours heartbeats whatever its
handlers do, so two intervals beyond the timeout it is *stuck*: its loop stands still, while libzmq still takes messages
for it. A stuck worker keeps its place and gets no new work; what may be repeated goes elsewhere. It is *gone* only when
a send finds it unreachable.
"""

from __future__ import annotations

from typing import Final

from brokers.delivery import Dispatcher
from brokers.peers import ClientPeer, Worker
from brokers.records import HandOver
from brokers.state import BrokerState
from reliable.wire.extension import ReadyExtension, ServiceOffer, token_counter
from reliable.wire.mdp import WorkerReady
from reliable.wire.mmi import is_reserved

__all__ = ["WorkerDesk"]

_PROBE_S_PER_WORKER: Final = 0.0005
"""Pause between two probes, for each worker: clients that come and go in crowds must not make us beat all day."""
_SECOND_LOOK_S: Final = 0.05
_CLOSED_TOKENS_MAX: Final = 2_000
"""What one worker may name beyond what it holds; ours is in doubt about half as many reports at most."""


class WorkerDesk:
    """Registers, watches and removes workers."""

    def __init__(self, state: BrokerState, dispatcher: Dispatcher) -> None:
        self._state = state
        self._dispatcher = dispatcher

    # --- registering ---

    def register(self, peer: bytes, command: WorkerReady, client: ClientPeer | None) -> bool:
        """A valid READY of a peer that is not registered.

        Returns:
            False if it cannot be registered: a reserved name, a limit, or an extension without a hello.

        Raises:
            RemoteProtocolError: The extension frame is malformed.
        """
        state = self._state
        extension = ReadyExtension.decode(command.extension) if command.extension else None
        offers = [ServiceOffer(command.service)] if extension is None else list(extension.services)
        by_name = {offer.name: offer.idempotent for offer in offers}
        names = list(by_name)
        if (
            self._shut_to(extension)
            or command.service not in by_name
            or any(map(is_reserved, names))
            or len(state.workers) >= state.config.workers_max
            or not state.services.room_for(names)
            or (extension is not None and (client is None or client.hello is None))
        ):
            return False
        if extension is None or client is None:
            worker = Worker(peer, command.version, state.now)
        else:
            worker = Worker(
                peer,
                command.version,
                state.now,
                instance=extension.instance,
                credit=min(extension.credit, state.config.credit_max),
                greeted_at=client.greeted_at,
                max_message_bytes=extension.max_message_bytes,
            )
        worker.rooms = {offer.name: offer.at_once for offer in offers if offer.at_once is not None} or None
        for name, idempotent in by_name.items():
            service = state.services.offer(name)
            service.offer(worker, idempotent)
            worker.services.append(service)
        self._enter(worker, extension)
        return True

    def _shut_to(self, extension: ReadyExtension | None) -> bool:
        """A broker that leaves only lets in who comes back with what it was given here."""
        state = self._state
        if not state.stopped:
            return False
        return state.left or extension is None or extension.last_life != state.life

    def _enter(self, worker: Worker, extension: ReadyExtension | None) -> None:
        state = self._state
        state.workers[worker.peer] = worker
        state.tombstones.remove(worker.peer)
        state.counters.workers_registered += 1
        state.wheel.set(worker.beat, state.now + state.config.heartbeat.interval_s)
        state.wheel.set(worker.watch, state.now + self._patience_s(worker))
        if extension is not None:
            state.siblings.setdefault(worker.instance, {})[worker] = None
            if extension.last_life == state.life:
                if extension.newest is not None:
                    self._disprove(worker, extension.newest, extension.tokens)
                self._recall(worker, extension.tokens)
            self._doubt_siblings(worker)
        self._dispatcher.serve(worker)

    def _recall(self, worker: Worker, tokens: tuple[bytes, ...]) -> None:
        """Move what a worker says it still holds to its new connection, if it was given to the same process.

        A token held by an older connection proves that that one is over.
        """
        state = self._state
        replaced: dict[Worker, None] = {}
        for token in tokens:
            hand_over = state.limbo.get(token) or state.late.find(token)
            for sibling in state.siblings[worker.instance]:
                if sibling is not worker and token in sibling.in_hand:
                    hand_over = sibling.in_hand[token]
                    replaced[sibling] = None
            if hand_over is None:
                # Its report arrived before the old connection broke, which the worker cannot know: it comes once more.
                if len(worker.closed_tokens) < _CLOSED_TOKENS_MAX:
                    worker.closed_tokens.add(token)
            elif hand_over.instance == worker.instance and len(worker.in_hand) < state.config.credit_max:
                self._dispatcher.take_back(hand_over, worker)
        for sibling in replaced:
            self.gone(sibling)

    def _disprove(self, worker: Worker, newest: int, tokens: tuple[bytes, ...]) -> None:
        """Take back what was handed to this process and never reached it; the proof is in "who may repeat what".

        Only what was handed over before this connection's hello came in: later ones may be on their way on a connection
        that the process opened after it had written this READY.
        """
        state = self._state
        siblings = [sibling for sibling in state.siblings[worker.instance] if sibling is not worker]
        lost = [hand_over for sibling in siblings for hand_over in sibling.in_hand.values()]
        lost += [hand_over for hand_over in state.limbo.values() if hand_over.instance == worker.instance]
        for sibling in siblings:
            sibling.held_back = True
            sibling.reshelve()
        for hand_over in lost:
            if (
                token_counter(hand_over.token) > newest
                and hand_over.at < worker.greeted_at
                and not (hand_over.started or hand_over.token in tokens)
            ):
                state.counters.never_arrived += 1
                self._dispatcher.undo(hand_over)

    def _doubt_siblings(self, worker: Worker) -> None:
        """A process that connects anew may have lost its older connection: no work goes there until it is heard.

        The heartbeat is there to be found undeliverable, which tells the truth at once.
        """
        for sibling in self._state.siblings[worker.instance]:
            if sibling is not worker:
                sibling.held_back = True
                sibling.reshelve()
                self._state.heartbeat(sibling)

    # --- being heard ---

    def heard(self, worker: Worker) -> bool:
        """A command of it arrived.

        Returns:
            Whether it may take work again that it could not take before; to be served after the command.
        """
        state = self._state
        if state.now - worker.last_heard > state.missed_s:
            worker.back_at = state.now
        worker.last_heard = state.now
        if not (worker.stuck or worker.held_back):
            return False
        if worker.stuck:
            worker.stuck = False
            worker.back_at = state.now
            state.wheel.set(worker.watch, state.now + self._patience_s(worker))
        worker.held_back = False
        return True

    def heartbeat(self, worker: Worker) -> None:
        """A HEARTBEAT of it. One that comes well after a request went out shows that it beats while busy."""
        if worker.in_hand and not worker.beats_while_busy:
            oldest = next(iter(worker.in_hand.values()))
            if self._state.now - oldest.at >= self._state.config.heartbeat.interval_s / 2:
                worker.beats_while_busy = True

    def _patience_s(self, worker: Worker) -> float:
        heartbeat = self._state.config.heartbeat
        return heartbeat.timeout_s + (2 * heartbeat.interval_s if worker.ours else 0.0)

    # --- probing ---

    def want_probe(self) -> None:
        """Some connection ended: soon look which worker it was, and once more a little later.

        However many end, there is one look at a time. The second one is for ZeroMQ, which may report the end of a
        connection before its ROUTER has noticed that the peer is gone.
        """
        state = self._state
        state.probe.looks = 2
        if state.probe.bucket < 0 and state.workers:
            pause_s = _PROBE_S_PER_WORKER * len(state.workers)
            state.wheel.set(state.probe, max(state.now, state.probed_at + pause_s))

    def probe(self) -> None:
        """Send every worker a heartbeat: the one that is gone cannot be reached, and that tells.

        7/MDP allows a HEARTBEAT at any time after READY, so this is right for foreign workers, too.
        """
        state = self._state
        state.probed_at = state.now
        state.counters.probes += 1
        state.probe.looks -= 1
        if state.probe.looks > 0:
            pause_s = max(_SECOND_LOOK_S, _PROBE_S_PER_WORKER * len(state.workers))
            state.wheel.set(state.probe, state.now + pause_s)
        for worker in state.workers.values():
            state.heartbeat(worker)

    # --- standing deadlines ---

    def beat_due(self, worker: Worker) -> None:
        """Send a heartbeat if nothing was sent for an interval."""
        state = self._state
        interval_s = state.config.heartbeat.interval_s
        if worker.last_sent + interval_s <= state.now:
            state.heartbeat(worker)
        state.wheel.set(worker.beat, worker.last_sent + interval_s)

    def watch_due(self, worker: Worker) -> None:
        """Judge its silence."""
        state = self._state
        until = worker.last_heard + self._patience_s(worker)
        if until > state.now:
            state.wheel.set(worker.watch, until)
        elif worker.ours:
            worker.stuck = True
            worker.reshelve()
            state.counters.workers_stuck += 1
            self._dispatcher.retire_from_stuck(worker)
        elif worker.in_hand and not worker.beats_while_busy:
            state.wheel.set(worker.watch, state.now + state.config.heartbeat.interval_s)
        else:
            state.counters.workers_expired += 1
            self.gone(worker)

    def hand_over_due(self, hand_over: HandOver) -> None:
        """Limbo is over, or a request was not started in time, or a run is overdue."""
        state = self._state
        worker = hand_over.worker
        if hand_over.limbo:
            del state.limbo[hand_over.token]
            hand_over.limbo = False
            self._dispatcher.abandon(hand_over)
        elif hand_over.current:
            self._not_started(hand_over)
        elif worker.ours:
            self._dispatcher.retire(hand_over)
            self._dispatcher.serve(worker)
        else:
            self.disconnect(worker)

    def _not_started(self, hand_over: HandOver) -> None:
        """One of ours has not said that it started. If it heartbeats, it does not have the request."""
        state = self._state
        worker = hand_over.worker
        since = max(hand_over.at, worker.back_at)
        timeout_s = state.config.delivery_timeout_s
        if worker.stuck or state.now - worker.last_heard > state.missed_s:
            state.wheel.set(hand_over, state.now + state.config.heartbeat.interval_s)
        elif since + timeout_s > state.now:
            state.wheel.set(hand_over, since + timeout_s)
        else:
            state.counters.delivery_timeouts += not hand_over.recalled
            worker.held_back = True
            self._dispatcher.recall(hand_over)
            worker.reshelve()

    def stalled(self, gap_s: float) -> None:
        """We stood still: nobody's silence meanwhile counts, and who is to come back has its time from now on."""
        state = self._state
        for worker in state.workers.values():
            worker.last_heard = min(state.now, worker.last_heard + gap_s)
        for hand_over in state.limbo.values():
            state.wheel.set(hand_over, state.now + state.config.limbo_s)

    # --- going ---

    def disconnect(self, worker: Worker) -> None:
        """Remove it, with one DISCONNECT."""
        self.gone(worker)
        self._state.tell_to_go(worker.peer, worker.version)

    def gone(self, worker: Worker) -> None:
        """Remove it without a word, and see to what it held."""
        state = self._state
        state.counters.workers_gone += 1
        state.wheel.drop(worker.beat)
        state.wheel.drop(worker.watch)
        worker.held_back = True
        worker.reshelve()
        self._dispatcher.purge_outbox(worker.peer)
        del state.workers[worker.peer]
        if worker.ours:
            siblings = state.siblings[worker.instance]
            del siblings[worker]
            if not siblings:
                del state.siblings[worker.instance]
        for service in worker.services:
            service.withdraw(worker)
        in_hand = list(worker.in_hand.values())
        worker.in_hand.clear()
        for hand_over in in_hand:
            self._dispatcher.lost(hand_over)
        for service in worker.services:
            state.services.settle(service)
        worker.services = []
