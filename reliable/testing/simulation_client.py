"""A client of a simulated world: calls as ``Client`` makes them, on virtual time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs

from chaos.history import Call
from chaos.sim.actors import ClientActor
from chaos.sim.process import Surroundings
from reliable.calling import UNSET, Unset
from reliable.config import ClientConfig
from reliable.errors import Outcome, RequestError
from reliable.payload import MSGPACK, decode_reply, encode_call
from reliable.protocol.events import CallFinished
from reliable.types import Frames

__all__ = ["CallOptions", "KeepingClient", "SimulatedCall", "SimulatedClient", "Surrounding"]

_CALL_S: Final = 10.0


class KeepingClient(ClientActor):
    """Keeps the errors themselves: the history has only their names."""

    def __init__(self, around: Surroundings, name: str, brokers: Sequence[str], config: ClientConfig) -> None:
        super().__init__(around, name, brokers, config)
        self.errors: dict[bytes, RequestError] = {}

    def _finish(self, effect: CallFinished) -> None:
        if isinstance(effect.result, RequestError):
            self.errors[self._calls[effect.call_id].key] = effect.result
        super()._finish(effect)


class Surrounding(Protocol):
    """What a client needs of its simulation."""

    def begin(self, actor: KeepingClient, service: str, body: Frames, options: CallOptions) -> Call:
        """Make a call."""

    def until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Let time pass until a condition holds; whether it does."""

    def runs_of(self, call: Call) -> int:
        """How often a handler was entered for it."""


@attrs.frozen(kw_only=True)
class CallOptions:
    """How calls are made."""

    timeout: float = attrs.field(default=_CALL_S, validator=attrs.validators.gt(0))
    idempotent: bool | None = None
    fail_fast: bool = False


class SimulatedCall:
    """A call that was made; it ends when the world's time gets there."""

    def __init__(self, around: Surrounding, actor: KeepingClient, call: Call) -> None:
        self._around = around
        self._actor = actor
        self.history = call
        """What the checkers see of it."""

    def __repr__(self) -> str:
        ending = self.history.ending
        said = "open" if ending is None else ending.error or "ok"
        return f"<{type(self).__name__} {self.history.key.decode()} to {self.history.service}: {said}>"

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.history.ending is not None

    @property
    def outcome(self) -> Outcome | None:
        """What the client was told of its execution; None as long as it is open."""
        return None if self.history.ending is None else self.history.ending.outcome

    @property
    def error(self) -> RequestError | None:
        """The error that it ended with, or None."""
        return self._actor.errors.get(self.history.key)

    @property
    def runs(self) -> int:
        """How often its handler was entered so far."""
        return self._around.runs_of(self.history)

    def result(self) -> object:
        """Let time pass until it ends; what the handler returned.

        Raises:
            RequestError: As ``Client.call``.
            AssertionError: It did not end by its deadline.
            RuntimeError: From within the simulation, as in a function given to ``at``, no time can pass.
        """
        deadline_s = self.history.deadline_s
        assert deadline_s is not None
        self._around.until(lambda: self.ended or self.history.abandoned, deadline_s)
        if not self.ended:
            why = "has no end, as its client was killed" if self.history.abandoned else "did not end by its deadline"
            raise AssertionError(f"{self!r} {why}")
        if self.error is not None:
            raise self.error
        assert self.history.ending is not None
        # Its key comes first, for the checkers, and then all frames as one.
        frames = MSGPACK.decode(self.history.ending.reply[1])
        assert isinstance(frames, list)
        return decode_reply(MSGPACK, frames)


class SimulatedClient:
    """Makes calls as ``Client`` does: ``call`` lets time pass until the reply is there, ``submit`` does not.

    Args:
        around: The simulation.
        actor: The process in it.
        options: How calls are made.
    """

    def __init__(self, around: Surrounding, actor: KeepingClient, options: CallOptions | None = None) -> None:
        self._around = around
        self._actor = actor
        self._options = options or CallOptions()

    @property
    def name(self) -> str:
        """Of the process, for faults that hit it."""
        return self._actor.name

    def options(
        self,
        *,
        timeout: float | Unset = UNSET,
        idempotent: bool | Unset | None = UNSET,
        fail_fast: bool | Unset = UNSET,
    ) -> SimulatedClient:
        """The same client under other options.

        Args:
            timeout: Virtual seconds for a call; 10 if nothing is said.
            idempotent: Whether the work may be done more than once.
            fail_fast: Whether to give up at once where no worker is there.
        """
        before = self._options
        options = CallOptions(
            timeout=before.timeout if isinstance(timeout, Unset) else timeout,
            idempotent=before.idempotent if isinstance(idempotent, Unset) else idempotent,
            fail_fast=before.fail_fast if isinstance(fail_fast, Unset) else fail_fast,
        )
        return SimulatedClient(self._around, self._actor, options)

    def submit(self, service: str, /, *args: object, **kwargs: object) -> SimulatedCall:
        """Make a call now, and let no time pass."""
        body = encode_call(MSGPACK, args, kwargs)
        return SimulatedCall(self._around, self._actor, self._around.begin(self._actor, service, body, self._options))

    def call(self, service: str, /, *args: object, **kwargs: object) -> object:
        """Make a call, and let time pass until it ends.

        Raises:
            RequestError: As ``Client.call``.
        """
        return self.submit(service, *args, **kwargs).result()
