"""The `unispeech` command: one verb per file, imported when it is called."""

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

VERBS = {
    "transcribe": "Write the phones of recordings, with times.",
    "finetune": "Train a recogniser or a classifier on labelled speech.",
    "evaluate": "Measure error rates on labelled speech.",
    "prepare": "Make training data of a corpus and list what cannot be trained on.",
    "synthesise": "Speak text files with espeak-ng, phone times kept.",
    "convert": "Turn a fairseq UniSpeech checkpoint into a Hugging Face directory.",
}
"""Verb -> one line of help. Each lives in `unispeech.cli.<verb>` as a function of the same name."""


def build_app() -> App:
    """Assemble the command line without importing any verb."""
    from importlib.metadata import version

    app = App(
        name="unispeech",
        help="Phones with honest times from any recording.",
        version=lambda: version("unispeech"),
        help_format="plaintext",
        result_action="return_value",
    )
    for verb, help_line in VERBS.items():
        app.command(f"unispeech.cli.{verb}:{verb}", name=verb, help=help_line)
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and leave with its exit status.

    0 done, 1 some input failed, 2 wrong usage or unusable input, 130 interrupted. A user's error is
    one line on stderr; `--debug` anywhere shows the traceback instead.

    Args:
        argv: Arguments after the program's name; None takes the process's own.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        status = build_app()(arguments, exit_on_error=False, print_error=True)
    except CycloptsError:
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, TypeError, OSError, ImportError) as error:
        if debug:
            raise
        print(f"unispeech: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)
