"""The second step of the tutorial prints what it says, each block as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.process import ChildProcess
from tests.support.commands import ROOT
from tests.support.loopback import eventually
from tests.support.ports import free_endpoint

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial" / "when-things-fail.md").read_text(encoding="utf-8")
SHOP, FOUR_ENDS, STORY, AWAY, DECIDE, SLOW = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ENDS, DECIDED = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.slow
_ADDRESS = "tcp://127.0.0.1:5555"
_WAIT_S_MAX = 40.0


class _Shop:
    """The two processes of the page, and what its scripts say to them."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        (folder / "faulty_shop.py").write_text(self.moved(SHOP), encoding="utf-8")
        command = ("-m", "reliable", "worker", "faulty_shop:worker")
        env = {"PYTHONPATH": str(ROOT)}
        self.worker = ChildProcess.python(*command, ready=None, cwd=folder, env=env)
        self.broker = self._broker()

    def moved(self, text: str) -> str:
        assert _ADDRESS in text
        return text.replace(_ADDRESS, self.url)

    def _broker(self) -> ChildProcess:
        return ChildProcess.python("-m", "reliable", "broker", "--bind", self.url, ready="listening", cwd=ROOT)

    def wait_open(self) -> None:
        eventually(lambda: "ready" in self.worker.output(), "the worker is registered", _WAIT_S_MAX)

    def restart_broker(self) -> None:
        self.broker.close()
        self.broker = self._broker()

    def output(self, text: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", self.moved(text)],
            capture_output=True,
            text=True,
            timeout=_WAIT_S_MAX,
            cwd=ROOT,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def close(self) -> None:
        self.worker.close()
        self.broker.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Shop]:
    """Open."""
    shop = _Shop(free_endpoint(), tmp_path_factory.mktemp("shop"))
    try:
        shop.wait_open()
        yield shop
    finally:
        shop.close()


@pytest.mark.parametrize(("text", "printed"), [(FOUR_ENDS, ENDS), (DECIDE, DECIDED)], ids=["four ends", "decide"])
def test_outcomes_are_those_of_the_page(text: str, printed: str, shop: _Shop) -> None:
    """It teaches what to do by them."""
    assert shop.output(text) == printed


def test_the_error_tells_its_story(shop: _Shop) -> None:
    """Also where the call was last seen: with the worker."""
    first, second, *story = shop.output(STORY).splitlines()
    assert first.startswith("buy: ") and first.endswith("(it may have run)")
    assert re.fullmatch(r"attempts: 1, last seen: running, after \d\.\d s", second)
    assert any(line.endswith(f"sent ({shop.url})") for line in story)


def test_a_call_waits_for_a_broker_that_is_away(shop: _Shop) -> None:
    """Started while nobody listens, it is answered when the broker is back."""
    shop.broker.close()
    with ChildProcess.python("-u", "-c", shop.moved(AWAY), cwd=ROOT) as client:
        eventually(lambda: "link" in client.output().lower(), "the client has tried in vain", _WAIT_S_MAX)
        shop.restart_broker()
        assert client.wait(_WAIT_S_MAX) == 0
        assert "9.99" in client.output().splitlines()


def test_hedging_hides_the_slow_one(shop: _Shop) -> None:
    """How much faster it is a busy machine may blur; which of the two answers came first it may not."""
    printed = shop.output(SLOW)
    figures = re.fullmatch(r"without hedging (\S+) s\nhedged          \S+ s\n(\d+) of (\d+) hedges won\n", printed)
    assert figures is not None, printed
    assert float(figures[1]) >= 0.5
    assert int(figures[3]) >= int(figures[2]) >= 4
