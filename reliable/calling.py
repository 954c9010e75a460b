"""What the blocking and the asyncio client do alike: options of a call, the event that submits it, how it ends."""

from __future__ import annotations

import enum
import logging
import math
import os
import random
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import attrs

from reliable.config import ClientConfig, Dialect, HedgePolicy
from reliable.engine.client import ClientEngine
from reliable.engine.plain import PlainEngine
from reliable.engine.plain_core import PlainCore
from reliable.engine.plain_freelance import FreelanceEngine
from reliable.errors import Outcome, RequestAbandoned, RequestError
from reliable.names import parse_address
from reliable.observing import guarded
from reliable.payload import Codec, check_frames
from reliable.protocol.events import CallFinished, Submit
from reliable.request import Request, request_context
from reliable.types import Frames, IdSource, Observer
from reliable.wire.extension import CALL_ID_BYTES, INSTANCE_BYTES, TRACE_BYTES_MAX
from reliable.wire.mdp import check_service

__all__ = [
    "UNSET",
    "CallOptions",
    "ClientSetup",
    "Hedge",
    "OnProgress",
    "Timeout",
    "TraceSource",
    "Unset",
    "abandoned",
    "check_timeout",
    "unwrap",
]


class Unset(enum.Enum):
    """Told apart from None, which means "no limit"."""

    UNSET = "not given"


UNSET: Final = Unset.UNSET
Timeout: TypeAlias = float | Unset | None
Hedge: TypeAlias = HedgePolicy | Unset | None
OnProgress: TypeAlias = Callable[[Frames], object]
"""Gets the frames of each ``request.progress(...)`` of the handler."""
TraceSource: TypeAlias = Callable[[], bytes]

_log = logging.getLogger("reliable.client")


def check_timeout(timeout: float | None) -> float | None:
    """``timeout`` if it is one.

    Raises:
        ValueError: Zero, negative, or not a number.
    """
    if timeout is not None and not (timeout > 0 and not math.isnan(timeout)):
        raise ValueError(f"a timeout is a positive number of seconds, or None for no limit, not {timeout!r}")
    return None if timeout == math.inf else timeout


_NOTHING_GIVEN = (None, None, None, None, None)


@attrs.frozen(kw_only=True)
class CallOptions:
    """How calls are made; each field that is not given leaves the matter to the next wider setting."""

    timeout: Timeout = UNSET
    idempotent: bool | None = None
    fail_fast: bool | None = None
    hedge: Hedge = UNSET
    codec: Codec | None = None
    on_progress: OnProgress | None = None
    trace: bytes | None = None

    def changed(
        self,
        *,
        timeout: Timeout = UNSET,
        idempotent: bool | None = None,
        fail_fast: bool | None = None,
        hedge: Hedge = UNSET,
        codec: Codec | None = None,
        on_progress: OnProgress | None = None,
        trace: bytes | None = None,
    ) -> CallOptions:
        """These options with those that are given in place of the old ones."""
        given = (idempotent, fail_fast, codec, on_progress, trace)
        if timeout is UNSET and hedge is UNSET and given == _NOTHING_GIVEN:
            return self
        return CallOptions(
            timeout=self.timeout if timeout is UNSET else timeout,
            idempotent=self.idempotent if idempotent is None else idempotent,
            fail_fast=self.fail_fast if fail_fast is None else fail_fast,
            hedge=self.hedge if hedge is UNSET else hedge,
            codec=codec or self.codec,
            on_progress=on_progress or self.on_progress,
            trace=self.trace if trace is None else trace,
        )


class ClientSetup:
    """The arguments of a client, checked once, and what is made from them for each life of it.

    Args:
        brokers: Addresses, at least one.
        timeout: Seconds for a call that names none, in place of ``config.timeout_s``.
        config: All settings.
        codec: Of ``call``.
        observer: Gets the engine's observations.
        ids: Gives bytes that nobody else has.
        dialect: What is spoken, in place of ``config.dialect``.
        trace_source: Gives the W3C trace context of a call that is given none.

    Raises:
        ValueError: No broker, an address that cannot be read, a bad timeout or an unknown dialect.
    """

    def __init__(
        self,
        brokers: Sequence[str],
        timeout: Timeout,
        config: ClientConfig | None,
        codec: Codec,
        observer: Observer | None,
        ids: IdSource = os.urandom,
        dialect: str | Dialect | Unset = UNSET,
        trace_source: TraceSource | None = None,
    ) -> None:
        if not brokers:
            raise ValueError("name at least one broker, like 'tcp://localhost:5555'")
        self.brokers = tuple(parse_address(broker).text for broker in brokers)
        config = config or ClientConfig()
        if dialect is not UNSET:
            config = attrs.evolve(config, dialect=dialect)
        self.config = config if timeout is UNSET else attrs.evolve(config, timeout_s=check_timeout(timeout))
        self.codec = codec
        self._observer = guarded(observer)
        self._ids = ids
        self._trace_source = trace_source

    def engine(self) -> ClientEngine | PlainCore:
        """A new engine for the dialect, under a new client id."""
        kind: type[ClientEngine | PlainEngine | FreelanceEngine] = ClientEngine
        if self.config.dialect is not Dialect.MDP:
            kind = FreelanceEngine if self.config.dialect is Dialect.FREELANCE else PlainEngine
        # A generator of its own, seeded by the system: after fork the module's would repeat itself in parent and child.
        return kind(
            self.brokers,
            self.config,
            client_id=self._ids(INSTANCE_BYTES),
            jitter=random.Random(self._ids(16)).random,
            observer=self._observer,
        )

    def timeout_of(self, options: CallOptions) -> float | None:
        """Seconds for a call in all; None is no limit.

        Raises:
            ValueError: It is not one.
        """
        return self.config.timeout_s if options.timeout is UNSET else check_timeout(options.timeout)

    def submit(
        self,
        service: str,
        body: Sequence[object],
        options: CallOptions,
        now: float,
        *,
        one_way: bool = False,
        hedged: bool = True,
    ) -> Submit:
        """The event that makes a call.

        Args:
            service: Its name.
            body: Its frames.
            options: How it is made.
            now: Reading of the clock that deadlines are on.
            one_way: It ends well as soon as a broker has it.
            hedged: Whether it may be, if the options say so.

        Raises:
            ValueError: A bad service name or timeout, a trace context that is too long, or hedging a call that is not
                declared idempotent.
            PayloadError: A frame that is not bytes.
        """
        timeout = self.config.timeout_s if options.timeout is UNSET else check_timeout(options.timeout)
        deadline = None if timeout is None else now + timeout
        handled = request_context.get(None)
        if handled is not None and handled.deadline is not None:
            # A call made by a handler should not outlive the request that it is made for.
            deadline = handled.deadline if deadline is None else min(deadline, handled.deadline)
        hedge = None
        if (options.idempotent or options.hedge is not UNSET) and hedged and not one_way:
            hedge = self._hedge(options)
        return Submit(
            call_id=self._ids(CALL_ID_BYTES),
            service=check_service(service),
            body=check_frames(body),
            deadline=deadline,
            idempotent=options.idempotent,
            fail_fast=bool(options.fail_fast),
            wants_progress=options.on_progress is not None and not one_way,
            trace=self._trace(options, handled),
            one_way=one_way,
            hedge=hedge,
            hedge_id=self._ids(CALL_ID_BYTES) if hedge is not None else b"",
        )

    def _hedge(self, options: CallOptions) -> HedgePolicy | None:
        if options.hedge is UNSET:
            return self.config.hedge if options.idempotent else None
        if options.hedge is not None and not options.idempotent:
            raise ValueError("a hedged call may run twice at the same time: declare it with idempotent=True")
        return options.hedge

    def _trace(self, options: CallOptions, handled: Request | None) -> bytes:
        if options.trace is not None:
            return _checked_trace(options.trace)
        if self._trace_source is not None:
            try:
                trace = _checked_trace(self._trace_source())
            except Exception:
                _log.exception("trace_source failed; the call goes without what it should have given")
            else:
                if trace:
                    return trace
        # A call made by a handler belongs to the trace of the request that it is made for.
        return b"" if handled is None else handled.trace


def _checked_trace(trace: object) -> bytes:
    (checked,) = check_frames([trace], "trace context")
    if len(checked) > TRACE_BYTES_MAX:
        raise ValueError(f"a trace context has at most {TRACE_BYTES_MAX} bytes, not {len(checked)}")
    return checked


def abandoned(call_id: bytes, reason: str) -> CallFinished:
    """The end of a call whose engine is no more."""
    return CallFinished(call_id, RequestAbandoned(reason, call_id=call_id, outcome=Outcome.UNKNOWN), Outcome.UNKNOWN)


def unwrap(finished: CallFinished) -> Frames:
    """The reply of a call, or its error raised."""
    if isinstance(finished.result, RequestError):
        raise finished.result
    return finished.result
