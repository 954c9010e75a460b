"""What the blocking and the asyncio client do alike: options of a call, the event that submits it, how it ends."""

from __future__ import annotations

import enum
import math
import os
import random
from collections.abc import Sequence
from typing import Final, TypeAlias

import attrs

from reliable.config import ClientConfig
from reliable.engine.client import ClientEngine
from reliable.errors import Outcome, RequestAbandoned, RequestError
from reliable.names import parse_address
from reliable.payload import Codec, check_frames
from reliable.protocol.events import CallFinished, Submit
from reliable.request import inherited_deadline
from reliable.types import Frames, IdSource, Observer
from reliable.wire.extension import CALL_ID_BYTES, INSTANCE_BYTES
from reliable.wire.mdp import check_service

__all__ = ["UNSET", "CallOptions", "ClientSetup", "Timeout", "Unset", "abandoned", "check_timeout", "unwrap"]


class Unset(enum.Enum):
    """Told apart from None, which means "no limit"."""

    UNSET = "not given"


UNSET: Final = Unset.UNSET
Timeout: TypeAlias = float | Unset | None


def check_timeout(timeout: float | None) -> float | None:
    """``timeout`` if it is one.

    Raises:
        ValueError: Zero, negative, or not a number.
    """
    if timeout is not None and not (timeout > 0 and not math.isnan(timeout)):
        raise ValueError(f"a timeout is a positive number of seconds, or None for no limit, not {timeout!r}")
    return None if timeout == math.inf else timeout


@attrs.frozen(kw_only=True)
class CallOptions:
    """How calls are made; each field that is not given leaves the matter to the next wider setting."""

    timeout: Timeout = UNSET
    idempotent: bool | None = None
    fail_fast: bool | None = None

    def changed(self, timeout: Timeout, idempotent: bool | None, fail_fast: bool | None) -> CallOptions:
        """These options with those that are given in place of the old ones."""
        return CallOptions(
            timeout=self.timeout if timeout is UNSET else timeout,
            idempotent=self.idempotent if idempotent is None else idempotent,
            fail_fast=self.fail_fast if fail_fast is None else fail_fast,
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

    Raises:
        ValueError: No broker, an address that cannot be read, or a bad timeout.
    """

    def __init__(
        self,
        brokers: Sequence[str],
        timeout: Timeout,
        config: ClientConfig | None,
        codec: Codec,
        observer: Observer | None,
        ids: IdSource = os.urandom,
    ) -> None:
        if not brokers:
            raise ValueError("name at least one broker, like 'tcp://localhost:5555'")
        self.brokers = tuple(parse_address(broker).text for broker in brokers)
        config = config or ClientConfig()
        self.config = config if timeout is UNSET else attrs.evolve(config, timeout_s=check_timeout(timeout))
        self.codec = codec
        self._observer = observer
        self._ids = ids

    def engine(self) -> ClientEngine:
        """A new engine, under a new client id."""
        # A generator of its own, seeded by the system: after fork the module's would repeat itself in parent and child.
        return ClientEngine(
            self.brokers,
            self.config,
            client_id=self._ids(INSTANCE_BYTES),
            jitter=random.Random(self._ids(16)).random,
            observer=self._observer,
        )

    def submit(self, service: str, body: Sequence[object], options: CallOptions, now: float) -> Submit:
        """The event that makes a call.

        Raises:
            ValueError: A bad service name or timeout.
            PayloadError: A frame that is not bytes.
        """
        timeout = self.config.timeout_s if options.timeout is UNSET else check_timeout(options.timeout)
        deadline = None if timeout is None else now + timeout
        inherited = inherited_deadline()
        if inherited is not None:
            deadline = inherited if deadline is None else min(deadline, inherited)
        return Submit(
            call_id=self._ids(CALL_ID_BYTES),
            service=check_service(service),
            body=check_frames(body),
            deadline=deadline,
            idempotent=options.idempotent,
            fail_fast=bool(options.fail_fast),
        )


def abandoned(call_id: bytes, reason: str) -> CallFinished:
    """The end of a call whose engine is no more."""
    return CallFinished(call_id, RequestAbandoned(reason, call_id=call_id, outcome=Outcome.UNKNOWN), Outcome.UNKNOWN)


def unwrap(finished: CallFinished) -> Frames:
    """The reply of a call, or its error raised."""
    if isinstance(finished.result, RequestError):
        raise finished.result
    return finished.result
