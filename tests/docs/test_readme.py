"""The README's Python runs, and its commands are those that exist."""

import re
import shlex
from pathlib import Path

import pytest

from unispeech.cli import VERBS, build_app

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


# What stands in the log is history.
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "log.md"], ids=lambda page: page.name
)
def test_the_commands_of_the_pages_can_be_parsed(page):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    indented = re.findall(r"^    (?:\$ )?(unispeech .*)$", text, re.MULTILINE)
    within = re.findall(r"`(unispeech \S+ [^`]* -o [^`]*)`", text)
    for line in [*indented, *within]:
        tokens = shlex.split(line.split(" > ")[0], comments=True)
        # What stands in brackets may be left out.
        tokens = [token for token in tokens if not token.startswith("[") and not token.endswith("]")]
        assert tokens[1] in VERBS, line
        build_app(asked=tokens[1]).parse_args(tokens[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_the_tree_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    for link in links:
        assert (page.parent / link).exists(), link
