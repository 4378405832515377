"""The `unispeech` command: one verb per file, imported when it is called."""

import errno
import io
import os
import re
import sys
import unicodedata
import warnings
from collections.abc import Sequence
from contextlib import suppress

from cyclopts import App, CycloptsError, UnusedCliTokensError

VERBS = {
    "transcribe": "Write the phones of recordings, with times.",
    "align": "Find when the phones and words of a known text are said.",
    "classify": "Say which labels fit recordings.",
    "embed": "Write the representations of recordings, frame by frame or pooled.",
    "pretrain": "Learn representations from labelled and unlabelled speech.",
    "finetune": "Train a recogniser or a classifier on labelled speech.",
    "evaluate": "Measure error rates on labelled speech.",
    "draw": "Draw a recording: waveform, spectrogram, phones and their probabilities.",
    "plot": "Draw the curves of training runs.",
    "prepare": "Make training data of a corpus and list what cannot be trained on.",
    "synthesise": "Speak text files with espeak-ng, phone times kept.",
    "lm": "Train n-gram models of phones or words, and measure them.",
    "serve": "Serve a model over HTTP, with a page for the browser.",
    "bench": "Measure every engine on this machine.",
    "export": "Write a recogniser as files for other programs: ONNX, OpenVINO, sherpa-onnx, CTranslate2.",
    "convert": "Turn a fairseq UniSpeech checkpoint into a Hugging Face directory.",
}
"""Verb -> one line of help. Each lives in `unispeech.cli.<verb>` as a function of the same name."""

ADVICE = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room on the disk",
    errno.EACCES: "change its permissions or choose another place",
    errno.EPERM: "change its permissions or choose another place",
    errno.EROFS: "choose another place",
    errno.ENOENT: "check the path",
    errno.EISDIR: "name a file in it",
    errno.EEXIST: "choose another place, a file is in the way",
    errno.ENOTDIR: "choose another place, a file is in the way",
    errno.ENAMETOOLONG: "choose a shorter name",
}
"""What to do about an error of the operating system."""


def build_app(asked: str | None = None) -> App:
    """Assemble the command line without importing any verb.

    Args:
        asked: The verb that will be called, whose help is then that of its docstring; None: no one verb.
    """
    from importlib.metadata import version

    app = App(
        name="unispeech",
        help="Phones with honest times from any recording.",
        version=lambda: version("unispeech"),
        help_format="plaintext",
        result_action="return_value",
    )
    for verb, help_line in VERBS.items():
        # With a text given, cyclopts does not import the verb to list it.
        help_text = help_of(verb) if verb == asked else help_line
        app.command(f"unispeech.cli.{verb}:{verb}", name=verb, help=help_text)
    return app


def help_of(verb: str) -> str:
    """Take the help of a verb from its docstring: all that stands before the arguments, examples too.

    Args:
        verb: One of `VERBS`; its file is imported, and each argument is put on one line of the docstring.

    Returns:
        Paragraphs, each on one line for the terminal to wrap; indented lines as they are.
    """
    from importlib import import_module
    from inspect import cleandoc

    function = getattr(import_module(f"unispeech.cli.{verb}"), verb)
    docstring = cleandoc(function.__doc__ or VERBS[verb])
    # cyclopts would keep the line breaks in what is said of a parameter.
    function.__doc__ = re.sub(r"\n {8,}(?=\S)", " ", docstring)
    text = re.split(r"^(?:Args|Returns|Raises):", docstring, flags=re.MULTILINE)[0]
    # cyclopts would drop a section of the name "Examples".
    text = re.sub(r"^Examples:", "For example:", text, flags=re.MULTILINE)
    return re.sub(r"(?<=\S)\n(?=\S)", " ", text).strip()


def is_users_error(error: Exception) -> bool:
    """Whether an error tells the user what to mend, in one line, rather than us.

    Args:
        error: What a verb raised.
    """
    # A configuration out of its range is no ValueError: told by name, since importing it takes half a second.
    is_configuration = type(error).__name__.startswith("StrictDataclass")
    return is_configuration or isinstance(error, (ValueError, TypeError, OSError, ImportError))


def describe(error: Exception, about: str = "") -> str:
    """Say in one line what went wrong, with what to do where the operating system says the rest.

    Args:
        error: A user's error.
        about: Name of the file that it is about, whose line ends are then told as such.
    """
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str):
        advice = f"; {ADVICE[error.errno]}" if error.errno in ADVICE else ""
        return f"{visible(error.filename)}: {one_line(error.strerror.lower())}{advice}."
    return one_line(str(error).replace(about, visible(about)) if about else str(error))


def one_line(text: str) -> str:
    """Put a message of several lines on one.

    Args:
        text: The message.
    """
    return visible(" ".join(part for line in text.splitlines() if (part := line.strip())))


def visible(name: str) -> str:
    """Write what would break a line or steer the terminal as escapes; the rest stays as it is.

    Args:
        name: The name of a file, or any text.
    """
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in {"Cc", "Zl", "Zp"}
        else character
        for character in name
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and leave with its exit status.

    0 done, 1 some input failed, 2 wrong usage or unusable input, 130 interrupted. A user's error is
    one line on stderr; `--debug` anywhere shows the traceback instead. Results are UTF-8 on any machine,
    and when nobody reads them any more (`| head`) the status is 1.

    Args:
        argv: Arguments after the program's name; None takes the process's own.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    warnings.showwarning = _show_warning
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Phones do not fit into other encodings, and a path goes out by the bytes that it came in with.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        app = build_app(asked=next(iter(arguments), None))
        status = app(arguments, exit_on_error=False, print_error=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except UnusedCliTokensError as error:
        # cyclopts would show a list of Python.
        unused = one_line(" ".join(error.unused_tokens or ()))
        print(
            f"unispeech: there is no place for {unused}; see unispeech {arguments[0]} --help.",
            file=sys.stderr,
        )
        sys.exit(2)
    except CycloptsError as error:
        print(f"unispeech: {one_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        _drop_unwritten()
        sys.exit(1)
    except Exception as error:
        if debug or not is_users_error(error):
            raise
        print(f"unispeech: {describe(error)}", file=sys.stderr)
        _drop_unwritten()
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)


def _drop_unwritten() -> None:
    """Give up what stdout cannot take, which Python would else try to write again at its exit."""
    with suppress(AttributeError, OSError, ValueError):
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(message: Warning | str, *_where: object, **_place: object) -> None:
    """Show a warning as one line, without the place in the code."""
    print(f"unispeech: {one_line(str(message))}", file=sys.stderr)
