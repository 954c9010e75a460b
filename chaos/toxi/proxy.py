"""Proxies and toxics of a running Toxiproxy server, each change read back.

This is the only module that imports the client library (toxiproxy-python), and it does not let it out. What the
library lets through, and what is done about it here:

* The server's address is an attribute of a class, so a second server overwrites the first one's. Every call goes
  through ``_library``, which sets the address under a lock and puts the old one back.
* No HTTP call has a time limit, and an answer of 500 and above is no error (``enable`` on a taken port looks fine while
  the server says otherwise). The library's HTTP module is replaced, inside that lock alone, by a session with a time
  limit that raises on such answers. It also ignores the environment's proxy settings: loopback is loopback.
* Any 400 is called an invalid toxic, any 409 an existing proxy; a stopped server is an error of ``requests``. All of
  them become ``ToxiproxyError`` with the server's own words.
* Attributes that the server does not know are accepted, and ``add_toxic`` returns nothing. Toxics are read back and
  compared as typed values.
* Names go into URLs unquoted, so only plain names are let in.
* The default listening port is chosen by the system; another socket can take it while the proxy is disabled. Here it is
  chosen below the ephemeral range.

Not used at all: ``populate`` (returns only what it made, and moves a proxy with port 0 each time), ``running`` (its
connect has no time limit and proves nothing about the API), ``version`` (calls ``running``), ``Proxy.down`` (an error
while going up again would hide the caller's own).
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import attrs
import requests
import toxiproxy
import toxiproxy.api
import toxiproxy.exceptions

from chaos.injection import FaultUnproven
from chaos.ports import free_port
from chaos.toxi.toxics import Direction, Toxic, from_wire
from reliable.errors import ReliableError

__all__ = ["ActiveToxic", "HasAddress", "ToxiProxy", "ToxiproxyError"]

_TIMEOUT_S = 20.0
"""To take out a toxic the server first lets out what the toxic holds back, at the toxic's own rate."""
_CREATE_TRIES = 5
_TOXICITY_ROUNDING = 1e-6  # The server keeps it in 32 bits.
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_library_lock = threading.Lock()


class ToxiproxyError(ReliableError):
    """The server refused a request, failed on it, or does not answer."""


@attrs.frozen(kw_only=True)
class ActiveToxic:
    """A toxic as the server reports it."""

    name: str
    toxic: Toxic
    direction: Direction
    toxicity: float


class HasAddress(Protocol):
    """Where a Toxiproxy API listens."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class _BoundedHttp:
    """Stands in for the ``requests`` module inside the library: time limits, and errors for server failures."""

    def get(self, url: str, **options: Any) -> requests.Response:
        return self._send("GET", url, **options)

    def post(self, url: str, **options: Any) -> requests.Response:
        return self._send("POST", url, **options)

    def delete(self, url: str, **options: Any) -> requests.Response:
        return self._send("DELETE", url, **options)

    def _send(self, method: str, url: str, **options: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            response = session.request(method, url, **{**options, "timeout": _TIMEOUT_S})
        if response.status_code >= 500:
            raise ToxiproxyError(f"{method} {url}: {response.status_code} {response.text.strip()[:500]}")
        return response


@contextlib.contextmanager
def _library(host: str, port: int) -> Iterator[None]:
    """The library turned to one server, for one or a few short calls; errors come out as ``ToxiproxyError``."""
    api = toxiproxy.api
    with _library_lock:
        before = api.APIConsumer.host, api.APIConsumer.port, api.requests
        api.APIConsumer.host, api.APIConsumer.port, api.requests = host, port, _BoundedHttp()
        try:
            yield
        except (
            toxiproxy.exceptions.ProxyExists,
            toxiproxy.exceptions.NotFound,
            toxiproxy.exceptions.InvalidToxic,
            requests.RequestException,
            # An answer without the fields that the library takes for granted.
            KeyError,
            ValueError,
        ) as error:
            raise ToxiproxyError(f"toxiproxy at {host}:{port}: {type(error).__name__}: {error}") from error
        finally:
            api.APIConsumer.host, api.APIConsumer.port, api.requests = before


def _plain(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no plain name")
    return name


class ToxiProxy:
    """One proxy in front of one server under test; a context manager that removes it.

    Args:
        server: Host and port of the Toxiproxy API; a ``ToxiproxyServer`` has both.
        upstream: ``host:port`` of the server under test.
        name: Must be new; a plain word.
        listen_port: On 127.0.0.1; a free one by default.
    Raises:
        ToxiproxyError: The server refused it or does not answer.
    """

    def __init__(
        self, server: HasAddress, upstream: str, *, name: str = "proxy", listen_port: int | None = None
    ) -> None:
        self._host, self._port = server.host, server.port
        self.name = _plain(name)
        self.upstream = upstream
        self._proxy = self._create(listen_port)

    def _create(self, listen_port: int | None) -> Any:
        for attempt in range(1, _CREATE_TRIES + 1):
            port = free_port() if listen_port is None else listen_port
            try:
                with _library(self._host, self._port):
                    return toxiproxy.Toxiproxy().create(self.upstream, self.name, f"127.0.0.1:{port}", True)
            except ToxiproxyError as error:
                # Another process may take the port between the look and the bind.
                taken = "address already in use" in str(error)
                if listen_port is not None or not taken or attempt == _CREATE_TRIES:
                    raise
        raise AssertionError("unreachable: the last try raises")

    @property
    def address(self) -> str:
        """``host:port`` where clients connect."""
        return str(self._proxy.listen)

    @property
    def endpoint(self) -> str:
        """The same as a ZeroMQ endpoint."""
        return f"tcp://{self.address}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # An error of the body is what the caller must see, not that the server is gone as well.
        with contextlib.suppress(ToxiproxyError) if error is not None else contextlib.nullcontext():
            self.remove()

    def is_enabled(self) -> bool:
        """Whether it lets clients connect, as the server says."""
        with _library(self._host, self._port):
            found = toxiproxy.Toxiproxy().get_proxy(self.name)
            if found is None:
                raise ToxiproxyError(f"the server knows no proxy {self.name!r}")
            return bool(found.enabled)

    def disable(self) -> None:
        """Break all connections and refuse new ones.

        Raises:
            FaultUnproven: The server still has it enabled.
        """
        with _library(self._host, self._port):
            self._proxy.disable()
        if self.is_enabled():
            raise FaultUnproven(f"proxy {self.name!r} is still enabled")

    def enable(self) -> None:
        """Take connections again, on the same port.

        Raises:
            ToxiproxyError: The server could not, for instance as the port was taken meanwhile.
        """
        with _library(self._host, self._port):
            self._proxy.enable()
        if not self.is_enabled():
            raise ToxiproxyError(f"proxy {self.name!r} is still disabled")

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Disabled inside the block."""
        self.disable()
        try:
            yield
        finally:
            self.enable()

    def toxics(self) -> dict[str, ActiveToxic]:
        """What is active, by name, as the server reports it."""
        with _library(self._host, self._port):
            found: Mapping[str, Any] = self._proxy.toxics()
            return {
                name: ActiveToxic(
                    name=name,
                    toxic=from_wire(toxic.type, toxic.attributes),
                    direction=Direction(toxic.stream),
                    toxicity=float(toxic.toxicity),
                )
                for name, toxic in found.items()
            }

    def add(
        self,
        toxic: Toxic,
        direction: Direction = Direction.TO_CLIENT,
        *,
        toxicity: float = 1.0,
        name: str | None = None,
    ) -> str:
        """Make connections suffer; the toxic's name, under which it is removed.

        Args:
            toxic: What is to happen.
            direction: To which half of the connection.
            toxicity: Share of connections that suffer, above 0 and up to 1.
            name: By default the kind and the direction.
        Raises:
            FaultUnproven: The server reports something else than was asked for.
            ToxiproxyError: It refused.
        """
        if not 0 < toxicity <= 1:
            raise ValueError(f"toxicity must be above 0 and up to 1, not {toxicity!r}")
        known_as = _plain(f"{toxic.kind}_{direction.value}" if name is None else name)
        with _library(self._host, self._port):
            self._proxy.add_toxic(
                type=toxic.kind,
                stream=direction.value,
                name=known_as,
                toxicity=toxicity,
                attributes=toxic.attributes(),
            )
        found = self.toxics().get(known_as)
        if (
            found is None
            or (found.toxic, found.direction) != (toxic, direction)
            or abs(found.toxicity - toxicity) > _TOXICITY_ROUNDING
        ):
            raise FaultUnproven(f"asked for {toxic} {direction.value} at {toxicity}, the server reports {found}")
        return known_as

    def remove_toxic(self, name: str) -> None:
        """Take one toxic away.

        Raises:
            ToxiproxyError: There is none, or the server still reports it.
        """
        with _library(self._host, self._port):
            self._proxy.destroy_toxic(_plain(name))
        if name in self.toxics():
            raise ToxiproxyError(f"toxic {name!r} is still there")

    def heal(self) -> None:
        """Enabled, and no toxics."""
        if not self.is_enabled():
            self.enable()
        for name in self.toxics():
            self.remove_toxic(name)

    @contextlib.contextmanager
    def suffering(
        self, toxic: Toxic, direction: Direction = Direction.TO_CLIENT, *, toxicity: float = 1.0
    ) -> Iterator[None]:
        """Under ``toxic`` inside the block."""
        name = self.add(toxic, direction, toxicity=toxicity)
        try:
            yield
        finally:
            self.remove_toxic(name)

    def remove(self) -> None:
        """Break its connections and forget it at the server."""
        with _library(self._host, self._port):
            self._proxy.destroy()
