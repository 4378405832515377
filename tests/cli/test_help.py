"""The help of every verb: examples that can be parsed, options without line breaks or odd negations."""

import re
import shlex
from importlib import import_module
from inspect import cleandoc

import pytest

from unispeech.cli import VERBS, build_app, main


def examples(verb: str) -> list[str]:
    docstring = cleandoc(getattr(import_module(f"unispeech.cli.{verb}"), verb).__doc__)
    found = re.findall(r"(?:^  |^Example: |\| )(unispeech .*)$", docstring, re.MULTILINE)
    return [line.split(" > ")[0] for line in found]


@pytest.mark.parametrize("verb", VERBS)
def test_every_example_can_be_parsed(verb):
    assert examples(verb)
    for line in examples(verb):
        build_app(asked=verb).parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("verb", VERBS)
def test_what_an_option_is_stands_in_one_paragraph(capsys, verb):
    app = build_app(asked=verb)
    for argument in app[verb].assemble_argument_collection(parse_docstring=True):
        assert not re.search(r"\n|  ", argument.parameter.help or ""), argument.names
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert "--empty-" not in capsys.readouterr().out
