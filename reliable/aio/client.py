"""The asyncio client."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
import weakref
from typing import Final

from reliable.aio.calls import AsyncClientCalls, AsyncClientView
from reliable.aio.pump import AsyncClientPump
from reliable.calling import UNSET, CallOptions, ClientSetup, Timeout, TraceSource, Unset
from reliable.config import ClientConfig, Dialect
from reliable.engine.client import ClientCounters, ClientSnapshot
from reliable.errors import ClosedError
from reliable.payload import MSGPACK, Codec
from reliable.types import Observer

__all__ = ["AsyncClient", "AsyncClientView"]


class AsyncClient(AsyncClientCalls):
    """Makes calls from the tasks of one event loop, any number at once.

    It belongs to the loop in which its first call is made. A task that is cancelled cancels its own call only.

    Args:
        brokers: Addresses like ``tcp://localhost:5555`` or ``ipc:///run/broker``, in order of preference.
        timeout: Seconds for a call that names none, over all attempts; None is no limit. Not given:
            ``config.timeout_s``, 30 s.
        config: All settings.
        codec: How ``call`` writes arguments and reads results.
        observer: Is told of attempts, failovers and losses; it must not call the client.
        dialect: What is spoken, in place of ``config.dialect``: ``"mdp"`` to a broker of this library, ``"mdp/0.1"`` or
            ``"mdp/0.2"`` to any Majordomo broker, ``"req"`` to a REP or ROUTER server, ``"ppp"`` to a Paranoid Pirate
            queue, ``"freelance"`` to servers of 10/FLP. In all but the first no services are declared, so a call runs
            more than once only if the call says ``idempotent=True``.
        trace_source: Gives the W3C trace context of each call that is given none.

    Raises:
        ValueError: No broker, an address that cannot be read, a bad timeout or an unknown dialect.
    """

    def __init__(
        self,
        *brokers: str,
        timeout: Timeout = UNSET,
        config: ClientConfig | None = None,
        codec: Codec = MSGPACK,
        observer: Observer | None = None,
        dialect: str | Dialect | Unset = UNSET,
        trace_source: TraceSource | None = None,
    ) -> None:
        self._pump: AsyncClientPump | None = None
        self._closed = False
        setup = ClientSetup(brokers, timeout, config, codec, observer, dialect=dialect, trace_source=trace_source)
        super().__init__(setup, CallOptions())
        _clients.add(self)

    def stats(self) -> ClientCounters:
        """What the client did since it was made; a copy."""
        return self._pump.stats() if self._pump is not None else ClientCounters()

    def snapshot(self) -> ClientSnapshot | None:
        """What the client holds now: brokers, links, calls. None before the first call."""
        return self._pump.snapshot() if self._pump is not None else None

    async def close(self, timeout: float = 1.0) -> None:  # noqa: ASYNC109 - as in Client
        """End every call with ``RequestAbandoned`` and close all sockets. A second time does nothing.

        Args:
            timeout: Seconds that this may take; what is not given back by then is left to the system.

        Raises:
            RuntimeError: The client belongs to another event loop that still runs.
        """
        self._closed = True
        pump = self._pump
        if pump is None:
            return
        if pump.loop.is_closed():
            pump.close_now()
            return
        if pump.loop is not asyncio.get_running_loop():
            raise RuntimeError("this AsyncClient belongs to another event loop, which has to close it")
        closing = pump.start_closing()
        if closing is not None:
            await asyncio.wait([closing], timeout=timeout)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __del__(self) -> None:
        if self._pump is not None and not self._closed and not sys.is_finalizing():
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)
            self._pump.close_now()

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        brokers = " ".join(self._setup.brokers) if hasattr(self, "_setup") else ""
        return f"<{type(self).__name__}{state} {brokers}>"

    # --- inner ------------------------------------------------------------------------------------

    def _current(self) -> AsyncClientPump | None:
        return self._pump

    def _owner(self) -> object:
        return self

    def _usable(self) -> AsyncClientPump:
        """A pump on the running loop: the one at hand, or a new one if its loop, process or engine is no more."""
        if self._closed:
            raise ClosedError("the client is closed")
        pump = self._pump
        if pump is not None and pump.loop is not asyncio.get_running_loop():
            if not pump.loop.is_closed():
                raise RuntimeError("this AsyncClient belongs to another event loop")
            pump.close_now()
            pump = None
        if pump is not None and pump.over:
            pump.close_now()
            pump = None
        if pump is None:
            pump = self._pump = AsyncClientPump(self._setup)
        return pump

    def _after_fork(self) -> None:
        if self._pump is not None:
            self._pump.forget()
            # Kept for ever: if it were collected, its sockets, which are the parent's, would be closed.
            _forgotten.append(self._pump)
        self._pump = None


_clients: Final[weakref.WeakSet[AsyncClient]] = weakref.WeakSet()
_forgotten: Final[list[AsyncClientPump]] = []


def _after_fork() -> None:
    for client in list(_clients):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
