"""The README's Python runs, and its commands are those that exist."""

import re
import shlex
from pathlib import Path

import pytest

from unispeech.cli import VERBS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def test_the_python_of_the_readme_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = blocks(ROOT / "README.md", "python")
    assert len(found) == 2
    for block in found:
        exec(compile(block, "README.md", "exec"), {})


def test_the_commands_of_the_pages_exist():
    lines = [
        line.strip()
        for page in PAGES
        for line in page.read_text(encoding="utf-8").splitlines()
        if re.match(r"(    |\$ )unispeech ", line)
    ]
    assert len(lines) >= 5
    for line in lines:
        assert shlex.split(line.removeprefix("$ "), comments=True)[1] in VERBS, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_the_tree_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    for link in links:
        assert (page.parent / link).exists(), link
