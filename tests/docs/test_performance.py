"""The page on performance shows what its commands make, and the reference lists their options."""

from __future__ import annotations

import re
from pathlib import Path

from reliable.cli.bench import bench

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "explanation" / "performance.md").read_text(encoding="utf-8")


def test_each_drawing_is_there_and_names_the_command_beside_it() -> None:
    """A drawing that nobody can make again is decoration."""
    found = re.findall(r"```sh\nreliable bench ([\w-]+) [^\n]*\n```\n\n!\[[^\]]+\]\((performance/[\w-]+\.svg)\)", PAGE)
    assert {name for name, _ in found} == bench.commands.keys()
    for name, file in found:
        drawing = (DOCS / "explanation" / file).read_text(encoding="utf-8")
        assert f"reliable bench {name} " in drawing
        assert len(drawing) < 100_000


def test_every_option_is_in_the_reference() -> None:
    """What is only in the help is found by those who know that it is there."""
    section = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8").partition("## reliable bench")[2]
    section = section.partition("\n## ")[0]
    for name, command in bench.commands.items():
        assert f"| `{name}` |" in section
        for option in command.params:
            assert f"`{option.opts[0]}" in section, option.opts[0]
