"""The rooms and their order: imports point one way, nothing heavy happens at import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import unispeech

SOURCE = Path(unispeech.__file__).parent
# A room imports only rooms that stand before it; rooms of one line may not import each other in a circle.
ORDER = [
    ["errors", "frames", "results", "phones"],
    ["text", "tokenizer_files", "metrics"],
    ["configuration", "audio_headers", "audio", "masking", "objectives"],
    ["decoding"],
    ["models"],
    ["data"],
    ["checkpoints", "engines", "registration"],
    ["pipelines"],
    ["formats"],
    ["training"],
    ["serving"],
    ["cli"],
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
FILES = [
    path for path in sorted(SOURCE.rglob("*.py")) if path.parent != SOURCE or not path.stem.startswith("__")
]


def modules(path):
    # Anywhere in the file, those for type checkers included.
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "unispeech")


def room_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path):
    room = room_of(path)
    assert room in LEVEL, f"a new room: give `{room}` its place in ORDER"
    for module in modules(path):
        parts = module.split(".")
        if parts[0] == "unispeech" and len(parts) > 1 and parts[1] in LEVEL and parts[1] != room:
            assert LEVEL[parts[1]] <= LEVEL[room], f"{room} imports {parts[1]}, which stands behind it"


def test_rooms_have_no_circles():
    graph = {}
    for path in FILES:
        for module in modules(path):
            parts = module.split(".")
            if parts[0] == "unispeech" and len(parts) > 1 and parts[1] in LEVEL and parts[1] != room_of(path):
                graph.setdefault(room_of(path), set()).add(parts[1])
    assert len(graph) >= 8
    done = set()
    while rest := {room for room in graph if room not in done}:
        free = {room for room in rest if not (graph[room] & rest)}
        assert free, f"a circle among {sorted(rest)}"
        done |= free


def test_no_drawer_for_everything():
    names = {path.stem for path in FILES}
    assert not names & {"utils", "common", "helpers", "misc"}


def test_the_network_of_transformers_is_imported_nowhere():
    for path in FILES:
        wrong = [
            name for name in modules(path) if name.startswith("transformers.models.") and ".auto" not in name
        ]
        assert wrong == [], path
        names = {
            node.id
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Name)
        }
        assert "Wav2Vec2Model" not in names


@pytest.mark.parametrize(
    "code", ["import unispeech", "import unispeech; dir(unispeech)", "import unispeech.cli"]
)
def test_importing_is_light(code):
    code += (
        "; import sys; print([m for m in ('torch', 'transformers', 'numpy', 'lhotse') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_help_is_light():
    code = (
        "import sys; sys.argv = ['unispeech', '--help']\n"
        "from unispeech.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print([m for m in ('torch', 'transformers', 'lhotse') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("[]")
    assert "unispeech" in result.stdout.lower()


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'unispeech' has no attribute 'UniSpeechForTea'"):
        unispeech.UniSpeechForTea  # noqa: B018


def test_public_names_exist():
    missing = []
    for name in unispeech.__all__:
        try:
            getattr(unispeech, name)
        except ImportError:
            missing.append(name)
    assert missing == []
