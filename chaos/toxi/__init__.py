"""A real Toxiproxy between client and server: typed toxics in seconds and bytes, each proven to be there.

``ToxiProxy`` is in ``chaos.toxi.proxy`` and is not imported here: it needs the extra ``chaos``, the rest does not.
"""

from chaos.toxi.server import ToxiproxyServer, toxiproxy_binary
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

__all__ = [
    "Bandwidth",
    "Blackhole",
    "Direction",
    "Latency",
    "LimitData",
    "ResetPeer",
    "Slicer",
    "SlowClose",
    "Toxic",
    "ToxiproxyServer",
    "toxiproxy_binary",
]
