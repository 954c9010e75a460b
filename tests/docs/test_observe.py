"""The examples of the page about logs, metrics and traces run as they stand there."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from reliable import Worker
from reliable.prometheus import PrometheusObserver
from tests.support.loopback import QUICK_WORKER, RunningWorker
from tests.support.ports import free_endpoint, free_port
from tests.support.served import broker_at

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "observe.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LOGS, METRICS, TRACED_CLIENT, TRACED_WORKER, SEVERAL, OWN = BLOCKS
_WAIT_S_MAX = 30.0


@pytest.fixture
def url() -> Iterator[str]:
    """Where a broker serves."""
    endpoint = free_endpoint()
    with broker_at(endpoint):
        yield endpoint


@contextmanager
def _adding(url: str) -> Iterator[None]:
    worker = Worker(url, config=QUICK_WORKER)

    @worker.service("add", idempotent=True)
    def add(a: int, b: int) -> int:
        return a + b

    running = RunningWorker(worker, None)
    running.wait_ready()
    try:
        yield
    finally:
        running.stop(0.0)


@contextmanager
def _script(text: str, url: str, *others: tuple[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The snippet as a process, its addresses replaced; gone at the end."""
    for old, new in (("tcp://127.0.0.1:5555", url), *others):
        assert old in text
        text = text.replace(old, new)
    with subprocess.Popen(
        [sys.executable, "-u", "-c", text],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def _output(text: str, url: str) -> tuple[str, str]:
    with _script(text, url) as child:
        printed, errors = child.communicate(timeout=_WAIT_S_MAX)
        assert child.returncode == 0, errors
        return printed, errors


def test_the_log_example_logs(url: str) -> None:
    """Whoever turns it on for the first time must see something."""
    with _adding(url):
        printed, errors = _output(LOGS, url)
    assert printed == "5\n"
    assert re.search(rf"^DEBUG reliable: call [0-9a-f]{{8}}: attempt 1 through {url}$", errors, re.MULTILINE)
    assert re.search(r"^DEBUG reliable: call [0-9a-f]{8} of add: ok, EXECUTED, 1 attempts", errors, re.MULTILINE)


def test_the_metrics_example_can_be_scraped(url: str) -> None:
    """Names in the page that are not in the scrape make alarms that never ring."""
    port = free_port()
    with _adding(url), _script(METRICS, url, ("9109", str(port))) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "5\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_WAIT_S_MAX) as answer:
            scraped = answer.read().decode().splitlines()
        _, errors = child.communicate("\n", timeout=_WAIT_S_MAX)
    assert (child.returncode, errors) == (0, "")
    assert 'reliable_calls_total{error="",outcome="executed",service="add"} 1.0' in scraped
    assert 'reliable_client_late_replies_total{name="shop"} 0.0' in scraped


def test_the_table_lists_every_metric_with_its_labels() -> None:
    """It is the only place where they are written down."""
    registry = CollectorRegistry()
    PrometheusObserver(registry)
    found = {
        family.name + ("_total" if family.type == "counter" else ""): set(vars(collector)["_labelnames"])
        for collector in registry._collector_to_names
        for family in collector.collect()
    }
    rows = re.findall(r"^\| `(reliable_\w+)` \| (.*?) \|", PAGE, re.MULTILINE)
    assert {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == found


def _spans(printed: str) -> list[dict[str, object]]:
    decoder, spans, rest = json.JSONDecoder(), [], printed.strip()
    while rest:
        span, end = decoder.raw_decode(rest)
        spans.append(span)
        rest = rest[end:].strip()
    return spans


def test_the_tracing_examples_make_one_trace(url: str) -> None:
    """Two scripts, two processes, one trace: that is what it is for."""
    with _script(TRACED_WORKER, url) as worker:
        (call,) = _spans(_output(TRACED_CLIENT, url)[0])
        worker.send_signal(signal.SIGTERM)
        printed, errors = worker.communicate(timeout=_WAIT_S_MAX)
    assert (worker.returncode, errors) == (0, "")
    (handler,) = _spans(printed)
    assert (call["name"], call["kind"], handler["kind"]) == ("add", "SpanKind.CLIENT", "SpanKind.SERVER")
    assert isinstance(call["context"], dict) and isinstance(handler["context"], dict)
    assert handler["parent_id"] == call["context"]["span_id"]
    assert handler["context"]["trace_id"] == call["context"]["trace_id"]


@pytest.mark.parametrize("text", [SEVERAL, OWN], ids=["several", "own"])
def test_the_other_examples_make_calls(text: str, url: str) -> None:
    """They end before a call; this adds it."""
    with _adding(url):
        printed, _ = _output(text + '\nprint(client.call("add", 2, 3))\nclient.close()\n', url)
    assert printed.endswith("5\n")
