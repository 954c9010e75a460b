"""Everything that can be called: what the asyncio client and its views offer alike."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod

from reliable.aio.mapping import AsyncItems, AsyncMapResults
from reliable.aio.pending import AsyncPendingCall
from reliable.aio.pump import AsyncClientPump
from reliable.aio.streams import AsyncStream
from reliable.calling import UNSET, CallOptions, ClientSetup, Hedge, OnProgress, Timeout
from reliable.config import Dialect
from reliable.errors import RequestError
from reliable.mapping import MapProgress, MapWindow, total_of
from reliable.open_calls import OpenCall
from reliable.payload import Codec, encode_call
from reliable.protocol.events import Submit
from reliable.readiness import PING, Readiness, check_answers_mmi, question_options
from reliable.types import Frames
from reliable.wire.mdp import check_service

__all__ = ["AsyncClientCalls", "AsyncClientView", "AsyncServiceProxy"]


class AsyncClientCalls(ABC):
    """The ways to make calls, under given options."""

    def __init__(self, setup: ClientSetup, options: CallOptions) -> None:
        self._setup = setup
        self._options = options

    @abstractmethod
    def _usable(self) -> AsyncClientPump:
        """A pump that calls can be made with."""

    @abstractmethod
    def _current(self) -> AsyncClientPump | None:
        """The pump that calls were made with, if there is one."""

    @abstractmethod
    def _owner(self) -> object:
        """What must not be collected while calls are open."""

    async def request(
        self,
        service: str,
        *frames: bytes,
        timeout: Timeout = UNSET,  # noqa: ASYNC109 - bounds the call at the broker and worker too
        idempotent: bool | None = None,
        fail_fast: bool | None = None,
        hedge: Hedge = UNSET,
        on_progress: OnProgress | None = None,
        trace: bytes | None = None,
    ) -> Frames:
        """Send frames to a service and wait for the frames of its reply.

        Arguments, result and errors are those of ``Client.request``. ``on_progress`` is called in the loop.

        Raises:
            asyncio.CancelledError: The task was cancelled; the broker is told, and no other call is touched.
            RuntimeError: The client belongs to another event loop that still runs.
        """
        options = self._options.changed(
            timeout=timeout,
            idempotent=idempotent,
            fail_fast=fail_fast,
            hedge=hedge,
            on_progress=on_progress,
            trace=trace,
        )
        return (await self._made(service, frames, options)).frames()

    async def call(self, service: str, /, *args: object, **kwargs: object) -> object:
        """Call a service like a function, by the client's codec; ``options`` sets timeout and the like.

        Arguments, result and errors are those of ``Client.call``.
        """
        codec = self._codec()
        return (await self._made(service, encode_call(codec, args, kwargs), self._options)).value(codec)

    def stream(self, service: str, /, *args: object, **kwargs: object) -> AsyncStream:
        """Call a service that answers in parts, and read them as they come: ``async for part in client.stream(...)``.

        The call is made here, within the running loop. Arguments and errors are those of ``Client.stream``.
        """
        codec, options = self._codec(), self._options
        submit = self._submit(service, encode_call(codec, args, kwargs), options, hedged=False)
        parts_max = self._setup.config.limits.stream_parts_max
        return AsyncStream(self._usable(), submit, codec, options.on_progress, parts_max, self._owner())

    def submit(self, service: str, /, *args: object, **kwargs: object) -> AsyncPendingCall:
        """Make a call and do not wait for it: it goes on by itself and ends by its deadline.

        Like ``Client.submit``; to be called within the running loop.

        Returns:
            A future of what ``call`` would return.
        """
        codec, options = self._codec(), self._options
        submit = self._submit(service, encode_call(codec, args, kwargs), options)
        return AsyncPendingCall(self._usable(), submit, codec, options.on_progress, self._owner())

    def map(
        self,
        service: str,
        items: AsyncItems,
        /,
        *,
        ordered: bool = True,
        in_flight: int = 64,
        on_progress: MapProgress | None = None,
        return_errors: bool = False,
        timeout: Timeout = UNSET,
        idempotent: bool | None = None,
        fail_fast: bool | None = None,
        hedge: Hedge = UNSET,
    ) -> AsyncMapResults:
        """Call a service once for each item, which is its only argument, several at once.

        Like ``Client.map``; ``items`` may be an asynchronous iterable too, and results are read by ``async for``.
        """
        check_service(service)
        options = self._options.changed(timeout=timeout, idempotent=idempotent, fail_fast=fail_fast, hedge=hedge)
        codec = options.codec or self._setup.codec
        window = MapWindow(
            ordered=ordered,
            in_flight=in_flight,
            total=total_of(items),
            on_progress=on_progress,
            return_errors=return_errors,
        )
        return AsyncMapResults(
            self._usable,
            lambda item: self._submit(service, encode_call(codec, [item], {}), options),
            items,
            window,
            codec,
            options.on_progress,
        )

    async def send(self, service: str, /, *args: object, **kwargs: object) -> None:
        """Call a service without a reply: returns as soon as a broker holds the call. Like ``Client.send``."""
        if self._setup.config.dialect is not Dialect.MDP:
            raise ValueError(
                f"the dialect {self._setup.config.dialect.value!r} has no one-way calls: use call or submit"
            )
        body = encode_call(self._codec(), args, kwargs)
        call = await self._usable().call(self._submit(service, body, self._options, one_way=True))
        call.frames()

    def cancel(self, call_id: bytes) -> bool:
        """End an open call of this client; whoever waits for it gets ``RequestAbandoned``. From any thread.

        Args:
            call_id: From ``submit`` or ``stream``, or from an observation.

        Returns:
            Whether it was open.
        """
        pump = self._current()
        return pump is not None and pump.cancel_from_anywhere(call_id)

    async def ping(self, *, timeout: Timeout = UNSET) -> float:  # noqa: ASYNC109 - as in Client
        """Seconds of a round trip to the broker; the first one includes connecting. Like ``Client.ping``."""
        check_answers_mmi(self._setup.config.dialect, "ping")
        began = time.monotonic()
        await self._ask(PING, timeout)
        return time.monotonic() - began

    async def wait_ready(
        self,
        service: str,
        workers: int = 1,
        *,
        timeout: Timeout = UNSET,  # noqa: ASYNC109 - as in Client
    ) -> None:
        """Wait until the broker knows live workers for a service; the broker itself may still be to come.

        Arguments and errors are those of ``Client.wait_ready``.
        """
        readiness = Readiness(self._setup.config.dialect, service, workers)
        timeout = self._timeout(timeout)
        end = float("inf") if timeout is None else time.monotonic() + timeout
        while (left_s := end - time.monotonic()) > 0:
            try:
                if readiness.answered(await self._ask(readiness.question(), left_s)):
                    return
            except RequestError as error:
                readiness.failed(error, time_is_up=time.monotonic() >= end)
            await asyncio.sleep(max(0.0, min(readiness.pause_s(), end - time.monotonic())))
        raise readiness.too_late()

    def service(self, name: str) -> AsyncServiceProxy:
        """A service as an object: ``client.service("math").add(1, 2)`` is ``client.call("math.add", 1, 2)``.

        Raises:
            ValueError: A bad name.
        """
        return AsyncServiceProxy(self, name)

    def options(
        self,
        *,
        timeout: Timeout = UNSET,
        idempotent: bool | None = None,
        fail_fast: bool | None = None,
        hedge: Hedge = UNSET,
        codec: Codec | None = None,
        on_progress: OnProgress | None = None,
        trace: bytes | None = None,
    ) -> AsyncClientView:
        """The same client under other options: ``await client.options(timeout=2).call("add", 1, 2)``.

        Arguments are those of ``Client.options``; ``on_progress`` is called in the loop.
        """
        options = self._options.changed(
            timeout=timeout,
            idempotent=idempotent,
            fail_fast=fail_fast,
            hedge=hedge,
            codec=codec,
            on_progress=on_progress,
            trace=trace,
        )
        return AsyncClientView(self, options)

    # --- inner ------------------------------------------------------------------------------------

    def _codec(self) -> Codec:
        return self._options.codec or self._setup.codec

    def _timeout(self, timeout: Timeout) -> float | None:
        """``timeout`` if it is given, else that of the options, else the client's."""
        return self._setup.timeout_of(self._options.changed(timeout=timeout))

    def _submit(
        self,
        service: str,
        body: Frames | tuple[object, ...],
        options: CallOptions,
        *,
        one_way: bool = False,
        hedged: bool = True,
    ) -> Submit:
        return self._setup.submit(service, body, options, time.monotonic(), one_way=one_way, hedged=hedged)

    async def _made(self, service: str, body: Frames | tuple[object, ...], options: CallOptions) -> OpenCall:
        submit = self._setup.submit(service, body, options, time.monotonic())
        return await self._usable().call(submit, options.on_progress)

    async def _ask(self, question: tuple[str, bytes], limit: Timeout) -> Frames:
        service, body = question
        return (await self._made(service, [body], question_options(self._timeout(limit)))).frames()


class AsyncClientView(AsyncClientCalls):
    """A client under other options; from ``AsyncClient.options``. It is open as long as its client is."""

    def __init__(self, client: AsyncClientCalls, options: CallOptions) -> None:
        super().__init__(client._setup, options)
        self._client = client

    def _usable(self) -> AsyncClientPump:
        return self._client._usable()

    def _current(self) -> AsyncClientPump | None:
        return self._client._current()

    def _owner(self) -> object:
        return self._client._owner()


class AsyncServiceProxy:
    """A service, and by its attributes those that are named after it; from ``AsyncClient.service``.

    A method of the service that is called ``options`` is hidden by ours: use ``AsyncClient.call("math.options")``.
    """

    def __init__(self, calls: AsyncClientCalls, name: str) -> None:
        self._calls = calls
        self._name = check_service(name).decode()

    async def __call__(self, /, *args: object, **kwargs: object) -> object:
        """Call the service itself, like ``AsyncClient.call``."""
        return await self._calls.call(self._name, *args, **kwargs)

    def options(
        self,
        *,
        timeout: Timeout = UNSET,
        idempotent: bool | None = None,
        fail_fast: bool | None = None,
        hedge: Hedge = UNSET,
        codec: Codec | None = None,
        on_progress: OnProgress | None = None,
        trace: bytes | None = None,
    ) -> AsyncServiceProxy:
        """The same service under other options; see ``AsyncClient.options``."""
        view = self._calls.options(
            timeout=timeout,
            idempotent=idempotent,
            fail_fast=fail_fast,
            hedge=hedge,
            codec=codec,
            on_progress=on_progress,
            trace=trace,
        )
        return AsyncServiceProxy(view, self._name)

    def __getattr__(self, name: str) -> AsyncServiceProxy:
        if name.startswith("_"):
            # Whoever looks for them (copy, pickle, a debugger) must not end up with a remote call.
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return AsyncServiceProxy(self._calls, f"{self._name}.{name}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"
