"""8/MMI: questions that the broker answers itself. They fix no role, make no service record and queue nothing.

``mmi.service`` tells the truth: 200 only if a worker is registered that a request can be expected to reach.
``mmi.reliable`` is the hello of our peers, ``mmi.reliable.time`` says how long ago it was, ``mmi.reliable.status`` is
the snapshot as JSON. Everything else is 501.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from brokers import answers
from brokers.peers import peer_key
from brokers.snapshot import BrokerSnapshot
from brokers.state import BrokerState
from reliable.errors import Outcome, RemoteProtocolError
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import HELLO_SERVICE, AnswerFrame, CallFrame, Hello, HelloAnswer, Role, is_extension
from reliable.wire.mdp import ClientReply, ClientRequest
from reliable.wire.mmi import (
    FOUND,
    NOT_FOUND,
    NOT_IMPLEMENTED,
    SERVICE_QUERY,
    STATUS_QUERY,
    TIME_QUERY,
    TIME_STAMP_BYTES,
    time_answer,
)

__all__ = ["Management"]

_JSON: Final = msgspec.json.Encoder()


class Management:
    """Answers everything that starts with ``mmi.``.

    Args:
        state: The broker's tables; nothing but sessions is changed.
        snapshot: Gives what ``mmi.reliable.status`` shows.
    """

    def __init__(self, state: BrokerState, snapshot: Callable[[], BrokerSnapshot]) -> None:
        self._state = state
        self._snapshot = snapshot

    def receive(self, peer: bytes, request: ClientRequest) -> None:
        """Answer one question, in the dialect of the asker."""
        state = self._state
        stack = request.stack
        if stack and is_extension(stack[-1]):
            try:
                frame = CallFrame.decode(stack[-1])
            except RemoteProtocolError:
                state.counters.dropped_invalid += 1
                return
            answer = AnswerFrame(Status.OK, frame.attempt, frame.call_id, state.life, Outcome.EXECUTED)
            addresses, stack = stack[:-1], [*stack[:-1], answer.encode()]
        else:
            addresses = stack
        body = self._body(peer, addresses, request)
        state.counters.management += 1
        state.outbox.append([peer, *ClientReply(request.version, request.service, body, stack).encode()])
        if state.stopped and request.service == HELLO_SERVICE:
            self._tell_that_we_leave(peer, addresses)

    def _tell_that_we_leave(self, peer: bytes, addresses: Frames) -> None:
        """Others were told when the drain began; who comes later learns it right behind the answer to its hello."""
        state = self._state
        client = state.peers.get(peer_key(peer, addresses))
        if client is not None and client.hello is not None and client.hello.role is Role.CLIENT:
            pause_s = max(0.0, state.leave_by - state.now)
            state.outbox.append(answers.leaving(peer, addresses, client.version, state.life, pause_s))
            state.heard_new_at = state.now

    def _body(self, peer: bytes, addresses: Frames, request: ClientRequest) -> Frames:
        name = request.service
        if name == SERVICE_QUERY and len(request.body) == 1:
            service = self._state.services.get(request.body[0])
            serves = service is not None and service.has_live_worker() and not self._state.stopped
            return [FOUND if serves else NOT_FOUND]
        if name == HELLO_SERVICE and len(request.body) == 1:
            return self._hello(peer, addresses, request.body[0])
        if name == TIME_QUERY and len(request.body) == 1 and len(request.body[0]) == TIME_STAMP_BYTES:
            return self._time(peer, addresses, request.body[0])
        if name == STATUS_QUERY:
            return [FOUND, _JSON.encode(self._snapshot())]
        return [NOT_IMPLEMENTED]

    def _hello(self, peer: bytes, addresses: Frames, frame: bytes) -> Frames:
        """Note the moment from which this peer's deadlines are reckoned, and say who we are.

        A hello that we cannot read gets 501, on which its sender goes on in plain MDP.
        """
        state = self._state
        try:
            hello = Hello.decode(frame)
        except RemoteProtocolError:
            return [NOT_IMPLEMENTED]
        client = state.peers.make(peer_key(peer, addresses))
        client.hello = hello
        client.greeted_at = state.now
        state.counters.hellos += 1
        return [FOUND, *HelloAnswer(state.life, state.config.message_bytes_max).encode()]

    def _time(self, peer: bytes, addresses: Frames, stamp: bytes) -> Frames:
        """How long ago the hello was from which this peer's times are reckoned; 404 if it is forgotten, or never was.

        The zero itself stays where it is: frames that are under way must not change their meaning.
        """
        state = self._state
        worker = state.workers.get(peer)
        if worker is not None:
            # What its deliveries say is reckoned from the hello before its READY, whatever came later.
            return [FOUND, *time_answer(stamp, _ms(state.now - worker.greeted_at))] if worker.ours else [NOT_FOUND]
        client = state.peers.get(peer_key(peer, addresses))
        if client is None or client.hello is None:
            return [NOT_FOUND]
        return [FOUND, *time_answer(stamp, _ms(state.now - client.greeted_at))]


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
