"""The asyncio client."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import warnings
from typing import Final

from reliable.aio.pump import AsyncClientPump
from reliable.calling import UNSET, CallOptions, ClientSetup, Timeout, unwrap
from reliable.config import ClientConfig
from reliable.engine.client import ClientCounters, ClientSnapshot
from reliable.errors import ClosedError
from reliable.payload import MSGPACK, Codec, decode_reply, encode_call
from reliable.types import Frames, Observer

__all__ = ["AsyncClient", "AsyncClientView"]


class AsyncClientView:
    """A client under other options; from ``AsyncClient.options``. It is open as long as its client is."""

    def __init__(self, client: AsyncClient, options: CallOptions) -> None:
        self._client = client
        self._options = options

    async def request(
        self,
        service: str,
        *frames: bytes,
        timeout: Timeout = UNSET,  # noqa: ASYNC109 - bounds the call at the broker and worker too
        idempotent: bool | None = None,
        fail_fast: bool | None = None,
    ) -> Frames:
        """Like ``AsyncClient.request``."""
        options = self._options.changed(timeout, idempotent, fail_fast)
        return await self._client._request(service, frames, options)

    async def call(self, service: str, /, *args: object, **kwargs: object) -> object:
        """Like ``AsyncClient.call``, under the options of this view."""
        return await self._client._call(service, args, kwargs, self._options)

    def options(
        self, *, timeout: Timeout = UNSET, idempotent: bool | None = None, fail_fast: bool | None = None
    ) -> AsyncClientView:
        """A view with some options changed once more."""
        return AsyncClientView(self._client, self._options.changed(timeout, idempotent, fail_fast))


class AsyncClient:
    """Makes calls from the tasks of one event loop, any number at once.

    It belongs to the loop in which its first call is made. A task that is cancelled cancels its own call only.

    Args:
        brokers: Addresses like ``tcp://localhost:5555`` or ``ipc:///run/broker``, in order of preference.
        timeout: Seconds for a call that names none, over all attempts; None is no limit. Not given:
            ``config.timeout_s``, 30 s.
        config: All settings.
        codec: How ``call`` writes arguments and reads results.
        observer: Is told of attempts, failovers and losses; it must not call the client.

    Raises:
        ValueError: No broker, an address that cannot be read, or a bad timeout.
    """

    def __init__(
        self,
        *brokers: str,
        timeout: Timeout = UNSET,
        config: ClientConfig | None = None,
        codec: Codec = MSGPACK,
        observer: Observer | None = None,
    ) -> None:
        self._pump: AsyncClientPump | None = None
        self._closed = False
        self._setup = ClientSetup(brokers, timeout, config, codec, observer)
        self._pid = os.getpid()

    async def request(
        self,
        service: str,
        *frames: bytes,
        timeout: Timeout = UNSET,  # noqa: ASYNC109 - bounds the call at the broker and worker too
        idempotent: bool | None = None,
        fail_fast: bool | None = None,
    ) -> Frames:
        """Send frames to a service and wait for the frames of its reply.

        Arguments, result and errors are those of ``Client.request``.

        Raises:
            asyncio.CancelledError: The task was cancelled; the broker is told, and no other call is touched.
            RuntimeError: The client belongs to another event loop that still runs.
        """
        options = CallOptions(timeout=timeout, idempotent=idempotent, fail_fast=fail_fast)
        return await self._request(service, frames, options)

    async def call(self, service: str, /, *args: object, **kwargs: object) -> object:
        """Call a service like a function, by the client's codec; ``options`` sets timeout and the like.

        Arguments, result and errors are those of ``Client.call``.
        """
        return await self._call(service, args, kwargs, CallOptions())

    def options(
        self, *, timeout: Timeout = UNSET, idempotent: bool | None = None, fail_fast: bool | None = None
    ) -> AsyncClientView:
        """The same client under other options: ``await client.options(timeout=2).call("add", 1, 2)``."""
        return AsyncClientView(self, CallOptions(timeout=timeout, idempotent=idempotent, fail_fast=fail_fast))

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
        """
        self._closed = True
        pump = self._pump
        if pump is None:
            return
        if pump.loop.is_closed():
            pump.close_now()
            return
        try:
            await asyncio.wait_for(pump.close(), timeout)
        except TimeoutError:
            return

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
        return f"<{type(self).__name__}{state} {' '.join(self._setup.brokers)}>"

    # --- inner ------------------------------------------------------------------------------------

    async def _request(self, service: str, body: tuple[object, ...] | Frames, options: CallOptions) -> Frames:
        submit = self._setup.submit(service, body, options, time.monotonic())
        return unwrap(await self._usable().call(submit))

    async def _call(
        self, service: str, args: tuple[object, ...], kwargs: dict[str, object], options: CallOptions
    ) -> object:
        codec = self._setup.codec
        return decode_reply(codec, await self._request(service, encode_call(codec, args, kwargs), options))

    def _usable(self) -> AsyncClientPump:
        """A pump on the running loop: the one at hand, or a new one if its loop, process or engine is no more."""
        if self._closed:
            raise ClosedError("the client is closed")
        if self._pid != os.getpid():
            if self._pump is not None:
                # Kept for ever: if it were collected, its sockets, which are the parent's, would be closed.
                _forgotten.append(self._pump)
            self._pump, self._pid = None, os.getpid()
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


_forgotten: Final[list[AsyncClientPump]] = []
