"""Recipe files: YAML and `--set section.key=value` into frozen dataclasses, every value checked in its line.

A recipe class is a frozen dataclass whose fields are sections, and a section is a frozen dataclass of plain
values (`Section`). Which keys exist, their types and their ranges follow from the annotations alone, so this
file knows no key. Errors name file and line: ``recipe.yaml:12: unknown key `optim.learing_rate`; did you mean
`optim.learning_rate`?``.
"""

import dataclasses
import difflib
import importlib
import math
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

R = TypeVar("R")

_EXPONENT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")
"""Numbers such as 1e-3, which YAML 1.1 takes for text."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Where a finite number must lie; the bounds belong to the range unless `open_low` says otherwise."""

    low: float | None = None
    """Smallest allowed value; None means no lower bound."""
    high: float | None = None
    """Largest allowed value; None means no upper bound."""
    open_low: bool = False
    """Whether `low` itself is refused."""

    def holds(self, value: float) -> bool:
        """Whether `value` lies in the range; NaN and infinity lie in none."""
        above = self.low is None or (value > self.low if self.open_low else value >= self.low)
        below = self.high is None or value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        if self.high is None:
            return "be positive" if self.open_low and self.low == 0 else f"be {self.low:g} or more"
        return f"lie in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}]"


@dataclass(frozen=True, kw_only=True)
class FieldsOf:
    """Marks a free mapping whose keys are the fields of a dataclass; it is imported when a recipe uses it."""

    module: str
    """Dotted module of the class."""
    cls: str
    """Name of the class."""

    def load(self) -> Any:
        """Import the class."""
        return getattr(importlib.import_module(self.module), self.cls)


Positive = Range(low=0, open_low=True)
PositiveInt = Annotated[int, Range(low=1)]
NonNegativeInt = Annotated[int, Range(low=0)]
PositiveFloat = Annotated[float, Positive]
NonNegativeFloat = Annotated[float, Range(low=0)]
Fraction = Annotated[float, Range(low=0, high=1)]


class Section:
    """Base of a recipe's sections: checks every field's range when one is made, from a file or in Python."""

    name: ClassVar[str]
    """The key of the section in a recipe."""

    def __post_init__(self) -> None:
        for key, annotation in get_type_hints(type(self), include_extras=True).items():
            if get_origin(annotation) is not ClassVar:
                check_value(getattr(self, key), annotation, f"{self.name}.{key}")


def check_value(value: object, annotation: Any, name: str) -> None:
    """Hold a value to the type and the range that its annotation states.

    Args:
        value: The value as Python has it.
        annotation: A type as `typing.get_type_hints(..., include_extras=True)` gives it.
        name: How messages name the value: "optim.learning_rate".

    Raises:
        TypeError: If the value has another type.
        ValueError: If it lies outside of the range or is none of the choices.
    """
    inner, limits = _strip(annotation)
    options = get_args(inner) if get_origin(inner) in {Union, types.UnionType} else (inner,)
    if value is None and types.NoneType in options:
        return
    for option in options:
        option_inner, option_limits = _strip(option)
        if get_origin(option_inner) is Literal:
            if value not in get_args(option_inner):
                raise ValueError(
                    f"`{name}` must be one of {_listed(get_args(option_inner))}, but is {value!r}."
                )
            return
        if _is_instance(value, option_inner):
            for limit in (*limits, *option_limits):
                if not limit.holds(value):  # type: ignore[arg-type]
                    raise ValueError(f"`{name}` must {limit}, but is {value!r}.")
            return
    raise TypeError(f"`{name}` must be {_spoken(inner)}, but is {value!r}.")


def load_settings(schema: type[R], path: str | Path, overrides: Sequence[str] = ()) -> R:
    """Read a recipe file and lay the overrides over it.

    Args:
        schema: The recipe class: a dataclass whose fields are sections or plain values.
        path: The YAML file.
        overrides: "section.key=value" strings; a later one wins over an earlier one and over the file.

    Returns:
        The recipe, complete with defaults.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no YAML mapping, or a key or a value is wrong; with path and line.
    """
    path = Path(path)
    try:
        tree = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such recipe") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{path}:{line}: must be YAML, but {error.problem or 'cannot be read'}.") from None
    except (UnicodeDecodeError, yaml.YAMLError):
        raise ValueError(f"{path}:1: must be a YAML text file.") from None
    except RecursionError:
        raise ValueError(f"{path}:1: must be YAML, but is nested too deeply.") from None
    entries: dict[str, _Entry] = {}
    if tree is not None:
        _collect(schema, tree, str(path), entries)
    for override in overrides:
        _collect_override(schema, override, entries)
    recipe: R = _build(schema, entries, str(path))
    return recipe


def dump_settings(recipe: object) -> str:
    """Write a recipe as YAML that `load_settings` reads back to an equal recipe.

    Args:
        recipe: A recipe dataclass.

    Returns:
        The YAML text, keys in the order of the class.
    """
    return yaml.safe_dump(_to_plain(recipe), sort_keys=False, allow_unicode=True, width=110)


def first_difference(one: object, other: object, prefix: str = "") -> str | None:
    """Name the first key in which two recipes differ.

    Args:
        one: A recipe dataclass.
        other: Another one of the same class.
        prefix: Dotted name of what `one` is within a recipe; empty for the recipe itself.

    Returns:
        The dotted key, or None where they are equal.
    """
    if not dataclasses.is_dataclass(one):
        return None if one == other else prefix
    for part in dataclasses.fields(one):
        name = f"{prefix}.{part.name}" if prefix else part.name
        found = first_difference(getattr(one, part.name), getattr(other, part.name), name)
        if found:
            return found
    return None


@dataclass(frozen=True)
class _Entry:
    """A value as the file has it, and where."""

    value: Any
    where: str
    lines: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Where each key of a free mapping stands."""


def _collect(schema: Any, node: yaml.Node, path: str, entries: dict[str, _Entry], prefix: str = "") -> None:
    """Walk the YAML tree along the schema and note every value under its dotted key."""
    where = f"{path}:{node.start_mark.line + 1}"
    label = f"`{prefix}`" if prefix else "a recipe"
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"{where}: {label} must be a mapping of keys to values, but is {_shown(node)}.")
    seen: set[str] = set()
    for key_node, value_node in node.value:
        where = f"{path}:{key_node.start_mark.line + 1}"
        key = f"{prefix}.{key_node.value}" if prefix else str(key_node.value)
        if key in seen:
            raise ValueError(f"{where}: `{key}` must stand once, but stands twice.")
        seen.add(key)
        annotation = _lookup(schema, key, prefix, where)
        if _is_section(annotation):
            # An empty section ("masking:") is one that keeps its defaults.
            if not _is_null(value_node):
                _collect(annotation, value_node, path, entries, key)
        else:
            lines: dict[str, str] = {}
            if isinstance(value_node, yaml.MappingNode):
                lines = {
                    str(inner.value): f"{path}:{inner.start_mark.line + 1}" for inner, _ in value_node.value
                }
            entries[key] = _Entry(_convert(value_node, annotation, key, where), where, lines)


def _collect_override(schema: Any, override: str, entries: dict[str, _Entry]) -> None:
    """Note one "section.key=value" from the command line."""
    where = f"--set {override}"
    key, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"{where}: must have the form section.key=value.")
    annotation, prefix, field_name = schema, "", ""
    for part in key.split("."):
        if not _is_section(annotation):
            if _fields_of(annotation) is None or field_name:
                raise ValueError(f"{where}: unknown key `{key}`; `{prefix}` holds a value, not keys.")
            field_name = part
            continue
        parent, prefix = prefix, f"{prefix}.{part}" if prefix else part
        annotation = _lookup(annotation, prefix, parent, where)
    if _is_section(annotation):
        raise ValueError(f"{where}: `{key}` is a section; name a key in it: {_listed(_keys(annotation))}.")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        raise ValueError(f"{where}: the value must be YAML.") from None
    value = None if node is None else _to_value(node, key, where)
    if field_name:
        # A key of a free mapping is laid over the mapping that the file has.
        base = entries.get(prefix, _Entry({}, where))
        entries[prefix] = _Entry(
            {**(base.value or {}), field_name: value}, where, {**base.lines, field_name: where}
        )
    else:
        value = _tuples(value, annotation)
        _checked(value, annotation, key, where)
        entries[key] = _Entry(value, where)


def _lookup(schema: Any, key: str, prefix: str, where: str) -> Any:
    """The annotation of a dotted key, or an error with the nearest one."""
    known = _keys(schema)
    name = key.rpartition(".")[2]
    if name in known:
        return get_type_hints(schema, include_extras=True)[name]
    near = difflib.get_close_matches(name, known, n=1)
    full = f"{prefix}.{near[0]}" if near and prefix else (near[0] if near else "")
    advice = f"did you mean `{full}`?" if full else f"the keys here are {_listed(known)}."
    raise ValueError(f"{where}: unknown key `{key}`; {advice}")


def _convert(node: yaml.Node, annotation: Any, name: str, where: str) -> Any:
    """A YAML node as the Python value that the annotation asks for, checked."""
    value = _tuples(_to_value(node, name, where), annotation)
    _checked(value, annotation, name, where)
    return value


def _check_fields(cls: Any, entry: _Entry, name: str) -> None:
    """Hold a free mapping to the class whose fields it fills: key by key, then all values together."""
    known = _keys(cls)
    for key, line in entry.lines.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            advice = f"did you mean `{name}.{near[0]}`?" if near else f"it is no field of {cls.__name__}."
            raise ValueError(f"{line}: unknown key `{name}.{key}`; {advice}")
    try:
        cls(**entry.value)
    except Exception as error:  # the validators of configuration classes have an error class of their own
        reason = str(error).splitlines()[-1].strip().removeprefix("ValueError: ").removeprefix("TypeError: ")
        named = [
            line for key, line in entry.lines.items() if f"'{key}'" in str(error) or f"`{key}`" in str(error)
        ]
        where = named[0] if named else entry.where
        for key in entry.lines:  # a message about one field, as our configuration words it
            if reason.startswith(f"`{key}` must"):
                raise ValueError(f"{where}: `{name}.{key}`{reason.removeprefix(f'`{key}`')}") from None
        raise ValueError(f"{where}: `{name}` must fit: {reason}") from None


def _checked(value: object, annotation: Any, name: str, where: str) -> None:
    try:
        check_value(value, annotation, name)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def _to_value(node: yaml.Node, name: str, where: str) -> object:
    """The plain value of a node; unlike YAML 1.1, an unquoted 1e-3 is a number."""
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _to_value(value, name, where) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_to_value(value, name, where) for value in node.value]
    is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
    if is_plain and node.tag == "tag:yaml.org,2002:str" and _EXPONENT.fullmatch(node.value):
        return float(node.value)
    try:
        value: object = yaml.SafeLoader("").construct_object(node, deep=True)
    except yaml.YAMLError:
        raise ValueError(f"{where}: `{name}` must be a plain value, but has the tag {node.tag}.") from None
    return value


def _build(schema: Any, entries: Mapping[str, _Entry], path: str, prefix: str = "") -> Any:
    """Make the dataclasses of the noted values, sections first."""
    values: dict[str, Any] = {}
    for key, annotation in get_type_hints(schema, include_extras=True).items():
        name = f"{prefix}.{key}" if prefix else key
        if _is_section(annotation):
            values[key] = _build(annotation, entries, path, name)
        elif name in entries:
            values[key] = entries[name].value
            target = _fields_of(annotation)
            if target is not None and values[key] is not None:
                _check_fields(target.load(), entries[name], name)
    for part in dataclasses.fields(schema):
        is_required = part.default is part.default_factory is dataclasses.MISSING
        if is_required and part.name not in values:
            raise ValueError(
                f"{path}: `{f'{prefix}.' if prefix else ''}{part.name}` must be given, but is missing."
            )
    try:
        return schema(**values)
    except (TypeError, ValueError) as error:
        # A relation between keys: the line is that of the last of them that the file gives.
        named = [entry.where for key, entry in entries.items() if f"`{key}`" in str(error)]
        raise ValueError(f"{named[-1] if named else path}: {error}") from None


def _fields_of(annotation: Any) -> FieldsOf | None:
    """The class that a free mapping fills, if the annotation marks one."""
    marks = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((mark for mark in marks if isinstance(mark, FieldsOf)), None)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def _is_null(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"


def _keys(schema: Any) -> list[str]:
    return [part.name for part in dataclasses.fields(schema)]


def _strip(annotation: Any) -> tuple[Any, tuple[Range, ...]]:
    """Take an annotation apart into type and ranges."""
    if get_origin(annotation) is Annotated:
        inner, *extras = get_args(annotation)
        return inner, tuple(extra for extra in extras if isinstance(extra, Range))
    return annotation, ()


def _is_instance(value: object, annotation: Any) -> bool:
    """Whether a value has a type; an int passes for a float, a bool passes for neither."""
    origin = get_origin(annotation) or annotation
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is tuple:
        kinds = get_args(annotation)
        if not isinstance(value, tuple):
            return False
        if kinds[-1] is Ellipsis:
            return all(_is_instance(item, kinds[0]) for item in value)
        return len(value) == len(kinds) and all(map(_is_instance, value, kinds))
    return isinstance(value, origin)


def _tuples(value: Any, annotation: Any) -> Any:
    """Lists become tuples where the annotation wants those; a lone value becomes a tuple of one."""
    options = get_args(annotation) if get_origin(annotation) in {Union, types.UnionType} else (annotation,)
    wanted = next((option for option in options if get_origin(option) is tuple), None)
    if wanted is None or value is None:
        return value
    if isinstance(value, list):
        return tuple(value)
    return (value,) if get_args(wanted)[-1] is Ellipsis else value


def _to_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {part.name: _to_plain(getattr(value, part.name)) for part in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _to_plain(item) for key, item in value.items()}
    return value


def _spoken(annotation: Any) -> str:
    """A type in words: "a number or null"."""
    words = {
        float: "a number",
        int: "a whole number",
        str: "text",
        bool: "true or false",
        types.NoneType: "null",
    }
    inner, _ = _strip(annotation)
    if get_origin(inner) in {Union, types.UnionType}:
        return " or ".join(_spoken(option) for option in get_args(inner))
    if get_origin(inner) is tuple:
        kinds = get_args(inner)
        return f"a list of {_spoken(kinds[0])}" if kinds[-1] is Ellipsis else f"a list of {len(kinds)} values"
    return words.get(inner, "a mapping")


def _shown(node: yaml.Node) -> str:
    return repr(node.value) if isinstance(node, yaml.ScalarNode) else "a list"


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
