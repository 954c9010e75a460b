"""The small arithmetic of single benchmarks."""

from __future__ import annotations

import pytest

from reliable.bench.crowd import shares
from reliable.bench.mesh import sawtooth
from reliable.bench.peers import PEERS, Peer, missing
from reliable.bench.peers_others import CALLERS as OTHER_CALLERS
from reliable.bench.peers_others import STAGES as OTHER_STAGES
from reliable.bench.peers_ours import CALLERS as OUR_CALLERS
from reliable.bench.peers_ours import STAGES as OUR_STAGES


@pytest.mark.parametrize(("many", "processes", "each"), [(1, 4, [1]), (5, 2, [3, 2]), (100, 3, [34, 33, 33])])
def test_work_is_shared_evenly(many: int, processes: int, each: list[int]) -> None:
    """And nobody is started for nothing."""
    assert shares(many, processes) == each


def test_a_sawtooth_is_told_from_a_smooth_curve() -> None:
    """The word is only used where the figures have the shape."""
    assert sawtooth([100.0, 120.0, 100.0, 120.0, 100.0]) == pytest.approx(20 / 108)
    assert sawtooth([120.0, 100.0, 120.0, 100.0, 120.0]) == pytest.approx(-20 / 112)
    assert sawtooth([100.0, 90.0, 80.0, 70.0]) == 0.0
    assert abs(sawtooth([100.0, 100.0, 140.0, 180.0, 180.0, 180.0])) < 0.08
    assert sawtooth([1.0, 2.0]) == 0.0


def test_every_contestant_is_complete() -> None:
    """They are named by text, which no type checker reads."""
    stages, callers = {**OUR_STAGES, **OTHER_STAGES}, {**OUR_CALLERS, **OTHER_CALLERS}
    assert {stage for peer in PEERS for stage in peer.stages} == stages.keys()
    assert {peer.caller for peer in PEERS} == callers.keys()
    assert all(peer.install for peer in PEERS if peer.modules or peer.programs)


def test_what_a_contestant_lacks_is_named() -> None:
    """A list of ratios in which one is silently missing misleads."""
    peer = Peer("x", "", ("rep",), "req", ("zmq", "no_such_module"), ("sh", "no-such-program"))
    assert missing(peer) == "no module 'no_such_module', no program 'no-such-program'"
    assert missing(PEERS[0]) is None
