"""Tables of peers: bounded, forgetting the right ones first."""

from __future__ import annotations

from brokers.peers import BeatTimer, ClientPeer, PeerTable, Tombstones, WatchTimer, Worker, peer_key
from reliable.wire.extension import Hello, Role
from reliable.wire.mdp import Version


def test_peers_behind_a_proxy_have_keys_of_their_own() -> None:
    """One connection may carry many clients; a hello of one must not set the clock of another."""
    assert peer_key(b"p", []) == b"p"
    assert peer_key(b"p", [b"a"]) != peer_key(b"p", [b"b"])
    assert peer_key(b"p", [b"a", b"b"]) != peer_key(b"p", [b"ab"])


def test_peer_is_made_once() -> None:
    """Its version and its hello are what it is remembered for."""
    table = PeerTable(10)
    assert table.get(b"a") is None
    peer = table.make(b"a")
    assert table.make(b"a") is peer
    assert table.get(b"a") is peer
    assert len(table) == 1


def test_silent_peers_are_forgotten_first() -> None:
    """A flood of new names must not push out those who talk."""
    table = PeerTable(4)
    talker = table.make(b"talker")
    for number in range(100):
        table.make(str(number).encode())
        assert table.get(b"talker") is talker
        assert len(table) <= 4
    assert table.get(b"0") is None


def test_lost_peer_is_forgotten_and_marked() -> None:
    """Its queued plain requests can be answered to nobody; whoever has the id next is somebody else."""
    table = PeerTable(4)
    young = table.make(b"young")
    table.lost(b"young")
    table.lost(b"young")
    assert young.gone
    assert table.make(b"young") is not young
    old = table.make(b"old")
    table.make(b"1")
    table.make(b"2")
    table.lost(b"old")
    assert old.gone
    assert table.get(b"old") is None


def test_size_limit_of_a_peer_counts_if_it_named_one() -> None:
    """Zero means no limit, and a plain client has none."""
    peer = ClientPeer()
    assert not peer.too_large(10**9)
    peer.hello = Hello(Role.CLIENT, bytes(16), 0)
    assert not peer.too_large(10**9)
    peer.hello = Hello(Role.CLIENT, bytes(16), 100)
    assert not peer.too_large(100)
    assert peer.too_large(101)


def test_tombstone_lasts_its_lifetime() -> None:
    """Shorter and a worker is told twice; longer and it cannot come back."""
    stones = Tombstones(10, 3.0)
    assert not stones.has(b"w", 0.0)
    stones.add(b"w", 1.0)
    assert stones.has(b"w", 3.9)
    assert not stones.has(b"other", 3.9)
    assert not stones.has(b"w", 4.0)
    assert len(stones) == 0
    stones.add(b"w", 5.0)
    stones.add(b"w", 7.0)
    assert stones.has(b"w", 9.0), "told again lasts longer"
    stones.remove(b"w")
    stones.remove(b"w")
    assert not stones.has(b"w", 9.0)


def test_expired_tombstones_before_a_live_one_are_cleared() -> None:
    """Nobody may have to ask for each one to get rid of it."""
    stones = Tombstones(10, 3.0)
    stones.add(b"a", 0.0)
    stones.add(b"b", 1.0)
    stones.add(b"c", 9.0)
    assert not stones.has(b"b", 10.0)
    assert len(stones) == 1


def test_tombstones_are_bounded() -> None:
    """A flood of strangers costs memory once."""
    stones = Tombstones(3, 3.0)
    for number in range(10):
        stones.add(bytes([number]), 0.0)
    assert len(stones) == 3
    assert stones.has(bytes([9]), 1.0)


def test_new_worker_is_idle_and_heard() -> None:
    """READY is a sign of life, and makes it eligible."""
    worker = Worker(b"w", Version.MDP01, 5.0)
    assert not worker.ours
    assert worker.live()
    assert worker.right_shelf() == 0
    assert worker.last_heard == worker.last_sent == worker.back_at == 5.0
    assert isinstance(worker.beat, BeatTimer) and worker.beat.worker is worker
    assert isinstance(worker.watch, WatchTimer) and worker.watch.worker is worker


def test_instance_makes_a_worker_ours() -> None:
    """Only a READY with our extension carries one."""
    assert Worker(b"w", Version.MDP02, 0.0, instance=bytes(15) + b"1", credit=4).ours
