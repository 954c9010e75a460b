"""A real Toxiproxy in front of a broker: for its clients, its workers, or both."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from chaos.injection import NotInjected
from chaos.toxi import ToxiproxyServer, toxiproxy_binary
from reliable.names import parse_address
from reliable.testing.brokers import HasEndpoint, endpoint_of

if TYPE_CHECKING:
    from chaos.toxi.proxy import HasAddress, ToxiProxy

__all__ = ["running_proxy", "running_toxiproxy"]

_FAULT: Final = "Toxiproxy"
_HOW_SERVER: Final = (
    "no server program: put toxiproxy-server on PATH, or run `python -m chaos.toxi` once, which builds it with Go"
)
_HOW_LIBRARY: Final = "no client library: pip install 'reliable[chaos]'"


@contextlib.contextmanager
def running_toxiproxy() -> Iterator[ToxiproxyServer]:
    """A Toxiproxy server inside the block; one is enough for any number of proxies.

    Raises:
        NotInjected: There is none here; the text says how to get it. Nothing is downloaded or built by this.
        StartFailed: It does not answer.
    """
    try:
        import chaos.toxi.proxy  # noqa: F401 - asked for here, as without the library the server is of no use
    except ImportError as error:
        raise NotInjected(_FAULT, _HOW_LIBRARY) from error
    try:
        program = toxiproxy_binary(build=False)
    except NotInjected as absence:
        raise NotInjected(_FAULT, _HOW_SERVER) from absence
    with ToxiproxyServer(binary=program) as server:
        yield server


@contextlib.contextmanager
def running_proxy(broker: str | HasEndpoint, server: HasAddress | None = None) -> Iterator[ToxiProxy]:
    """A proxy in front of a broker inside the block: connect to its ``endpoint``, and let that connection suffer.

        with running_proxy(broker) as link, Client(link.endpoint) as client, link.suffering(Latency(0.2)):
            client.call("add", 2, 3)

    Args:
        broker: A TCP address, or what has one as ``endpoint``.
        server: The Toxiproxy to use; None starts one for this block.

    Raises:
        NotInjected: There is no Toxiproxy here; the text says how to get it.
        ValueError: The broker's address is not TCP.
    """
    address = parse_address(endpoint_of(broker)).text
    scheme, _, upstream = address.partition("://")
    if scheme != "tcp":
        raise ValueError(f"a proxy needs a broker at a TCP address, not at {address}")
    with contextlib.ExitStack() as stack:
        serving = stack.enter_context(running_toxiproxy()) if server is None else server
        from chaos.toxi.proxy import ToxiProxy

        yield stack.enter_context(ToxiProxy(serving, upstream, name=f"broker-{upstream.rpartition(':')[2]}"))
