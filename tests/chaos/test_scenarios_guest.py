"""``chaos run --worker``: somebody else's worker is broken in place of the suite's own, as the tutorial shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import attrs
import pytest

from chaos.process import ChildProcess
from chaos.running import checks
from chaos.running.model import Guest
from reliable.cli.main import main
from tests.chaos.test_scenarios_checks import SCENARIO, broken, evidence, facts
from tests.support.commands import ROOT

_PAGE = (ROOT / "docs" / "tutorial" / "break-it-yourself.md").read_text(encoding="utf-8")
(_SHOP,) = re.findall(r"^```python\n(.*?)^```", _PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The worker of the tutorial, in the current directory under a name of its own."""
    name = "shop_to_break"
    (tmp_path / f"{name}.py").write_text(_SHOP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"{name}:worker"


@pytest.mark.slow
def test_worker_of_the_tutorial_is_killed_and_its_calls_go_on(shop: str, tmp_path: Path) -> None:
    """Users want to know what becomes of their own services, not of ours."""
    report = tmp_path / "report.json"
    calls = [part for call in ('price ["lamp"]', 'buy ["lamp"]') for part in ("--call", call)]
    command = ["-m", "chaos", "run", "worker-crash", "--short", "--seed", "1", "--worker", shop, *calls]
    argv = [*command, "--json", str(report)]
    with ChildProcess.python(*argv, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}) as running:
        assert running.wait(50) == 0, running.output()
    (run,) = json.loads(report.read_bytes())["runs"]
    assert {call["service"] for call in run["calls"]} == {"price", "buy"}
    assert {call["end"] for call in run["calls"] if call["phase"] == "healed"} == {"ok"}
    assert len(run["faults"]) == 3


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["worker-crash", "--worker", "{shop}x"], "module 'shop_to_break' has no 'workerx'"),
        (["worker-crash", "--worker", "{shop}", "--call", "sell"], "offers no 'sell'; it offers price, buy"),
        (["worker-crash", "--worker", "{shop}", "--call", "buy x"], "what follows the service is no JSON list"),
        (["worker-crash", "--worker", "shop_to_break:time"], "is a module, neither a worker nor a function"),
        (["poison-request", "--worker", "{shop}"], "no other worker can take part in poison-request"),
        (["server-dies", "--worker", "{shop}"], "no other worker can take part in server-dies"),
        (["worker-crash", "--call", "buy"], "--call is for --worker"),
    ],
)
def test_what_cannot_be_run_is_one_line(
    args: list[str], line: str, shop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a dozen processes are started that would all fail."""
    assert main(["chaos", "run", *(arg.format(shop=shop) for arg in args)]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


@pytest.mark.slow
def test_worker_that_fails_before_any_fault_is_told_apart_from_one_that_fails_of_it(
    shop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that is broken here is to blame: the arguments are missing, and the line says where to put them."""
    assert main(["chaos", "run", "worker-crash", "--short", "--seed", "1", "--worker", shop]) == 1
    said = capsys.readouterr().out
    assert "before any fault price() failed" in said
    assert "missing a required argument: 'article'" in said
    assert "--call" in said


def test_executions_of_a_guest_are_not_judged() -> None:
    """Nobody writes them down, and what is not seen must not be called wrong, nor right."""

    guest = attrs.evolve(SCENARIO, guest=Guest(target="shop:worker", calls=(("buy", ()),)))
    found = checks.judge(evidence(facts(), scenario=guest))
    assert broken(found) == []
    assert found[-1].figure == "not seen, so not judged"
    assert "EXECUTED is true" not in {line.name for line in found}
    assert broken(checks.judge(evidence(facts(), scenario=SCENARIO))) == ["EXECUTED is true"]
