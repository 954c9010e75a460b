"""A link that breaks under a finished reply: what the worker has, its caller gets."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from tests.support.loopback import ShellKind, Stage, eventually
from tests.support.losing_proxy import losing_proxy
from tests.support.parts_reader import ask


def test_a_reply_that_was_lost_with_its_link_arrives_by_the_next(stage: Stage, shell: ShellKind) -> None:
    """The call may not run twice, so without the resending it would end as unknown: the reply is there, after all."""
    broker = stage.broker()
    with losing_proxy(broker.endpoint) as proxy:
        worker = shell.worker(proxy.endpoint)
        runs: list[bytes] = []

        @worker.service("once", raw=True, idempotent=False)
        def once(frame: bytes) -> bytes:
            runs.append(frame)
            proxy.swallow = True
            return b"reply"

        shell.run(worker)
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(ask, broker.endpoint, "once", body=[b"x"], idempotent=False)
            eventually(lambda: proxy.swallowed_bytes > 0, "the reply is on its way to nowhere")
            stats = worker.stats()
            assert stats is not None
            assert stats.replies_sent == 1
            proxy.swallow = False
            proxy.cut()
            assert call.result(10).reply == [b"reply"]
        assert runs == [b"x"]
        assert stats.replies_resent == 1


def test_a_reply_that_arrived_just_before_its_link_broke_does_no_harm(stage: Stage, shell: ShellKind) -> None:
    """The worker cannot know; the broker can, and the next request is served as if nothing had been."""
    broker = stage.broker()
    with losing_proxy(broker.endpoint) as proxy:
        worker = shell.worker(proxy.endpoint)
        lock, runs = threading.Lock(), []

        @worker.service("once", raw=True, idempotent=False)
        def once(frame: bytes) -> bytes:
            with lock:
                runs.append(frame)
            return frame

        shell.run(worker)
        for number in range(5):
            body = [b"%d" % number]
            assert ask(broker.endpoint, "once", body=body, idempotent=False).reply == body
            proxy.cut()
        assert runs == [b"%d" % number for number in range(5)]
