"""``chaos.toxi.proxy`` against a real server: each toxic is there as asked, each change is proven, each call ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import toxiproxy.api

from chaos.injection import FaultUnproven
from chaos.ports import free_port
from chaos.toxi import ToxiproxyServer
from chaos.toxi import proxy as proxy_module
from chaos.toxi.proxy import ActiveToxic, ToxiProxy, ToxiproxyError
from chaos.toxi.toxics import (
    Bandwidth,
    Blackhole,
    Direction,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Toxic,
)
from tests.toxiproxy.conftest import EchoServer

pytestmark = pytest.mark.toxiproxy

TOXICS: list[Toxic] = [
    Latency(latency_s=0.05, jitter_s=0.01),
    Bandwidth(bytes_per_s=100_000),
    SlowClose(delay_s=0.1),
    Blackhole(),
    Blackhole(close_after_s=0.2),
    ResetPeer(after_s=0.1),
    Slicer(average_bytes=20, variation_bytes=10, delay_s=0.0002),
    LimitData(limit_bytes=100),
]


@pytest.fixture
def proxy(toxiproxy: ToxiproxyServer, echo: EchoServer) -> Iterator[ToxiProxy]:
    with ToxiProxy(toxiproxy, echo.address, name="echo") as made:
        yield made


def _connect(proxy: ToxiProxy) -> socket.socket:
    name, _, port = proxy.address.rpartition(":")
    return socket.create_connection((name, int(port)), timeout=5)


def _echoes(proxy: ToxiProxy, timeout_s: float = 5.0) -> bool:
    try:
        with _connect(proxy) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(b"hello")
            return connection.recv(100) == b"hello"
    except OSError:
        return False


def _ask_the_server(server: ToxiproxyServer, path: str) -> object:
    """Past the library and past our wrapper."""
    with contextlib.closing(http.client.HTTPConnection(server.host, server.port, timeout=5)) as connection:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("toxic", TOXICS, ids=repr)
def test_each_toxic_is_read_back_as_it_was_asked_for(
    toxiproxy: ToxiproxyServer, proxy: ToxiProxy, toxic: Toxic, direction: Direction
) -> None:
    """A fault that is not there makes every test under it pass."""
    name = proxy.add(toxic, direction, toxicity=0.3)
    found = proxy.toxics()[name]
    assert attrs.evolve(found, toxicity=0.3) == ActiveToxic(name=name, toxic=toxic, direction=direction, toxicity=0.3)
    raw = _ask_the_server(toxiproxy, "/proxies/echo/toxics")
    assert isinstance(raw, list)
    assert [(entry["type"], entry["stream"], entry["attributes"]) for entry in raw] == [
        (toxic.kind, direction.value, toxic.attributes())
    ]
    proxy.remove_toxic(name)
    assert proxy.toxics() == {}


def test_latency_delays_an_echo_by_that_much(proxy: ToxiProxy) -> None:
    """The units are right at the far end, too."""
    assert _echoes(proxy)
    with proxy.suffering(Latency(latency_s=0.3)):
        begun = time.monotonic()
        assert _echoes(proxy)
        assert 0.25 < time.monotonic() - begun < 3
    assert proxy.toxics() == {}


def test_blackhole_keeps_the_connection_and_loses_the_data(proxy: ToxiProxy) -> None:
    """The fault that no error reveals."""
    with proxy.suffering(Blackhole()), _connect(proxy) as connection:
        connection.settimeout(0.5)
        connection.sendall(b"hello")
        with pytest.raises(TimeoutError):
            connection.recv(100)
    assert _echoes(proxy)


def test_disabled_proxy_refuses_and_comes_back_on_its_port(proxy: ToxiProxy) -> None:
    """A server that restarts keeps its address."""
    address = proxy.address
    with proxy.down():
        assert not proxy.is_enabled()
        with pytest.raises(ConnectionRefusedError):
            _connect(proxy)
    assert proxy.is_enabled()
    assert proxy.address == address
    assert _echoes(proxy)


def test_enabling_on_a_port_that_was_taken_is_an_error(proxy: ToxiProxy) -> None:
    """The bare library says "enabled" here while the server says otherwise."""
    proxy.disable()
    name, _, port = proxy.address.rpartition(":")
    with socket.create_server((name, int(port))), pytest.raises(ToxiproxyError, match="address already in use"):
        proxy.enable()
    proxy.heal()
    assert _echoes(proxy)


def test_creating_on_a_port_in_use_is_an_error(toxiproxy: ToxiproxyServer, echo: EchoServer) -> None:
    """The bare library dies of a missing key here."""
    with pytest.raises(ToxiproxyError, match="address already in use"):
        ToxiProxy(toxiproxy, echo.address, name="taken", listen_port=int(echo.address.rpartition(":")[2]))


def test_name_in_use_is_an_error(toxiproxy: ToxiproxyServer, echo: EchoServer, proxy: ToxiProxy) -> None:
    """Two tests on one proxy would break each other."""
    with pytest.raises(ToxiproxyError, match="ProxyExists"):
        ToxiProxy(toxiproxy, echo.address, name=proxy.name)


@pytest.mark.parametrize("name", ["", "a/b", "a?b", "a b", "x" * 65])
def test_only_plain_names_are_let_in(toxiproxy: ToxiproxyServer, name: str) -> None:
    """They end up in URLs, unquoted."""
    with pytest.raises(ValueError, match="no plain name"):
        ToxiProxy(toxiproxy, "127.0.0.1:9", name=name)


def test_toxic_that_the_server_changed_is_unproven(proxy: ToxiProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attribute that the server does not know is dropped by it without a word."""
    monkeypatch.setattr(Latency, "attributes", lambda self: {"lateny": 300})
    with pytest.raises(FaultUnproven, match="asked for Latency"):
        proxy.add(Latency(latency_s=0.3))


def test_two_toxics_of_one_name_are_refused(proxy: ToxiProxy) -> None:
    """The second would otherwise be believed to act."""
    proxy.add(Latency(latency_s=0.1))
    with pytest.raises(ToxiproxyError):
        proxy.add(Latency(latency_s=0.2))
    with pytest.raises(ValueError, match="toxicity"):
        proxy.add(Latency(latency_s=0.2), toxicity=7)


def test_removing_a_toxic_that_is_not_there_is_an_error(proxy: ToxiProxy) -> None:
    """A healed link that was never sick proves nothing."""
    with pytest.raises(ToxiproxyError, match="NotFound"):
        proxy.remove_toxic("no-such")


def test_heal_removes_all(proxy: ToxiProxy) -> None:
    """One call after which a scenario may demand success."""
    proxy.add(Blackhole(), Direction.TO_SERVER)
    proxy.add(Latency(latency_s=0.1))
    proxy.disable()
    proxy.heal()
    assert (proxy.is_enabled(), proxy.toxics()) == (True, {})
    assert _echoes(proxy)


def test_two_servers_in_one_process_are_not_mixed_up(toxiproxy: ToxiproxyServer, echo: EchoServer) -> None:
    """The library keeps the address on a class; threads of one process would cut each other's links."""
    with ToxiproxyServer() as other:
        assert other.port != toxiproxy.port
        problems: list[BaseException] = []

        def work(server: ToxiproxyServer, latency_s: float) -> None:
            try:
                with ToxiProxy(server, echo.address, name="shared") as made:
                    for _ in range(10):
                        with made.suffering(Latency(latency_s=latency_s)):
                            assert [found.toxic for found in made.toxics().values()] == [Latency(latency_s=latency_s)]
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=work, args=pair) for pair in ((toxiproxy, 0.1), (other, 0.2))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(50)
            assert not thread.is_alive()
        assert problems == []


def test_library_is_left_as_it_was(proxy: ToxiProxy) -> None:
    """Other users of the library in this process must not notice us."""
    before = (toxiproxy.api.APIConsumer.host, toxiproxy.api.APIConsumer.port, toxiproxy.api.requests)
    proxy.add(Latency(latency_s=0.1))
    with pytest.raises(ToxiproxyError):
        proxy.remove_toxic("no-such")
    assert (toxiproxy.api.APIConsumer.host, toxiproxy.api.APIConsumer.port, toxiproxy.api.requests) == before


@attrs.frozen
class _Address:
    host: str
    port: int


def test_server_that_accepts_and_stays_mute_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bare library waits for ever here."""
    monkeypatch.setattr(proxy_module, "_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        begun = time.monotonic()
        with pytest.raises(ToxiproxyError, match="Timeout"):
            ToxiProxy(_Address("127.0.0.1", mute.getsockname()[1]), "127.0.0.1:9")
        assert time.monotonic() - begun < 5


def test_server_that_is_gone_is_an_error_of_ours() -> None:
    """Callers catch one class, whatever HTTP library is inside."""
    with pytest.raises(ToxiproxyError, match="ConnectionError"):
        ToxiProxy(_Address("127.0.0.1", free_port()), "127.0.0.1:9")


def test_environment_does_not_divert_the_calls(
    toxiproxy: ToxiproxyServer, echo: EchoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On machines behind an HTTP proxy, loopback must stay loopback."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "")
    with ToxiProxy(toxiproxy, echo.address, name="undiverted") as made:
        assert made.is_enabled()


def test_error_of_the_block_is_not_hidden_by_a_dead_server(toxiproxy_program: Path, echo: EchoServer) -> None:
    """The first error is the one that explains."""
    with (
        pytest.raises(ZeroDivisionError),
        ToxiproxyServer(binary=toxiproxy_program) as server,
        ToxiProxy(server, echo.address),
    ):
        server.stop()
        raise ZeroDivisionError
