"""The worker of the demo: ``reliable worker reliable.cli.demo_service:worker``."""

from __future__ import annotations

import hashlib
import time

from reliable import Worker

__all__ = ["digest", "worker"]

worker = Worker()


@worker.service("digest", raw=True, idempotent=True)
def digest(content: bytes, pause_s: bytes = b"0") -> bytes:
    """The SHA-256 of ``content`` as hexadecimal text, after a pause.

    The pause stands for work that takes its time: without it a kill would rarely find a request in a worker's hands.
    """
    time.sleep(float(pause_s))
    return hashlib.sha256(content).hexdigest().encode()
