"""The pages on deployment: what they tell people to run can be run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from reliable.cli.main import cli
from tests.support.ports import free_endpoint
from tests.support.served import broker_at

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
PAGES = ("graceful-deploys.md", "kubernetes.md")
ADDRESS = "tcp://127.0.0.1:5555"
_SHELL_ENDS = re.compile(r"[>&|;)]")
_WAIT_S_MAX = 40.0


def _commands(page: str) -> list[list[str]]:
    """Every ``reliable …`` in blocks of shell, and in commands and probes of manifests."""
    text = (HOWTO / page).read_text(encoding="utf-8")
    lines = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    found = [shlex.split(_SHELL_ENDS.split(line)[0]) for line in re.findall(r"\breliable (?:.*)", lines)]
    listed = [json.loads(words) for words in re.findall(r"command: (\[.*?\])[},\n]", text)]
    return [words[1:] for words in found + listed if words[0] == "reliable"]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_is_one(page: str) -> None:
    """An option that was renamed would be found by whoever deploys at night."""
    commands = _commands(page)
    assert len(commands) >= 3, commands
    for name, *arguments in commands:
        command = cli.commands[name]
        with click.Context(cli, info_name="reliable") as parent:
            command.make_context(name, list(arguments), parent)


def test_the_program_of_the_page_drains() -> None:
    """It is what people copy into their own."""
    (program,) = re.findall(
        r"^```python\n(.*?)^```", (HOWTO / "graceful-deploys.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert ADDRESS in program
    endpoint = free_endpoint()
    with broker_at(endpoint):
        run = subprocess.run(
            [sys.executable, "-c", program.replace(ADDRESS, endpoint)],
            capture_output=True,
            text=True,
            timeout=_WAIT_S_MAX,
            check=False,
        )
    assert (run.returncode, run.stdout, run.stderr) == (0, "all done: True\n", "")
