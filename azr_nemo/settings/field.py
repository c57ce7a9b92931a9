"""What a setting says of itself: meaning, choices and bounds stand on its dataclass field, and checks, help and docs/settings.md read them there."""

import math
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin

from azr_nemo.errors import UserError

LARGEST = 2**31 - 1  # of every whole number that names no other bound
Registered = Mapping[str, Collection[str]]  # the names that a kind of plug-in has, by the kind's: what is known only above the settings


@dataclass(frozen=True)
class About:
    """meaning: what it is, its unit and what special values do. choices: the words it may be; registered: the kind of plug-in whose names they are.
    least, above, most, below: its bounds; noun: what such a number is called, "share" or "probability". needed: what to give where it is empty.
    path: a leading ~ means a home directory."""

    meaning: str
    choices: tuple[str, ...] = ()
    registered: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    noun: str = ""
    needed: str = ""
    path: bool = False

    def bounds(self) -> str:
        """Its bounds in words, such as "at least 0 and below 1"."""
        parts = (("at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below))
        return " and ".join(f"{words} {_number(bound)}" for words, bound in parts if bound is not None)

    def words(self, registered: Registered) -> Collection[str]:
        """The words it may be; none where every word is one."""
        return [*self.choices, *registered.get(self.registered, ())] if self.registered in registered or not self.registered else ()


@dataclass(frozen=True)
class Leaf:
    """One setting of a configuration: its dotted key, its type, what it says of itself, and its value."""

    key: str
    type: Any
    about: About
    value: Any


def setting(default: Any, meaning: str, **about: Any) -> Any:
    """A field with this default (copied where it is a list or a dictionary) that says what it is: see About."""
    said = {"about": About(meaning, **about)}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: deepcopy(default), metadata=said)
    return field(default=default, metadata=said)


def section(kind: type, **defaults: Any) -> Any:
    """A field that holds settings of its own. defaults: where they differ from the kind's."""
    return field(default_factory=lambda: kind(**defaults))


def leaves(config: Any, prefix: str = "", by_name: bool = True) -> Iterator[Leaf]:
    """All settings of a configuration in the order of their fields. by_name: of a dictionary each of its names, else NAME once, for any."""
    for part in fields(config):
        key, value = prefix + part.name, getattr(config, part.name)
        if is_dataclass(value):
            yield from leaves(value, f"{key}.", by_name)
        elif element := element_of(part.type):
            for name, inner in value.items() if by_name else [("NAME", element())]:
                yield from leaves(inner, f"{key}.{name}.")
        else:
            yield Leaf(key, part.type, part.metadata["about"], value)


def element_of(kind: Any) -> Any:
    """The settings' class that a dictionary holds by name; None for other types."""
    return get_args(kind)[1] if get_origin(kind) is dict else None


def locate(kind: Any, key: str) -> Any:
    """The type at a dotted key below a class of settings, or None where there is no such setting."""
    for name in key.split("."):
        if (element := element_of(kind)) is not None:
            if not name.isidentifier():
                return None
            kind = element
            continue
        found: list[Field[Any]] = [part for part in fields(kind) if part.name == name] if is_dataclass(kind) else []
        if not found:
            return None
        kind = found[0].type
    return kind


def at_home(config: Any) -> None:
    """Writes out the home directory that a path begins with as ~: a shell does so only where a word begins with it."""
    for part in fields(config):
        value = getattr(config, part.name)
        if is_dataclass(value):
            at_home(value)
        elif (about := part.metadata.get("about")) and about.path:
            setattr(config, part.name, [_home(text) for text in value] if isinstance(value, list) else _home(value))


def check(config: Any, registered: Registered, prefix: str = "") -> None:
    """Raises UserError for the first setting that is none of its choices or out of its bounds."""
    for leaf in leaves(config, prefix):
        check_value(leaf.key, leaf.value, leaf.about, registered)


def check_value(key: str, value: Any, about: About, registered: Registered | None = None) -> None:
    """Raises UserError naming the key when the value is none of its choices, out of its bounds, empty where it is needed, or no text."""
    words = about.words(registered or {})
    if isinstance(value, list):
        if words and (unknown := [part for part in value if part not in words]):
            raise UserError(f"{key}={value}: {unknown[0]} is unknown: choose from {', '.join(words)}")
        for part in value:
            check_value(key, part, replace(about, choices=(), registered=""), registered)
    elif isinstance(value, str):
        _check_text(key, value, about, words)
    elif not isinstance(value, bool) and (wrong := _out_of_bounds(value, about)):
        raise UserError(f"{key}={wrong}")


def _check_text(key: str, value: str, about: About, words: Collection[str]) -> None:
    if words and value not in words:
        quotes = '; in YAML "on" and "off" need quotes' if "on" in words else ""
        raise UserError(f"{key}={value} is unknown: choose one of {', '.join(words)}{quotes}")
    if about.needed and not value:
        raise UserError(f"{key} is empty: {about.needed}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{key}={value!a} is not UTF-8 text: set PYTHONUTF8=1, or a locale of UTF-8 such as LC_ALL=C.UTF-8") from None
    if "\0" in value:
        raise UserError(f"{key}={value!a} holds a zero byte, which no path or name can")


def _out_of_bounds(value: float, about: About) -> str:
    """The number and what is wrong with it, or nothing."""
    if not math.isfinite(value):
        return f"{value} is no finite number: it must be {about.bounds()}"
    most = LARGEST if isinstance(value, int) and about.most is None else about.most
    small = (about.least is not None and value < about.least) or (about.above is not None and value <= about.above)
    large = (most is not None and value > most) or (about.below is not None and value >= about.below)
    if not small and not large:
        return ""
    if about.noun == "share" and about.most == 1:
        return f"{value:g} is no share: give a number from 0 (none) to 1 (all)"
    if small and about.least is not None:
        return f"{value} is too small: it must be {about.bounds()}"
    if large and about.noun:
        return f"{value} is a {about.noun}: it must be {replace(about, least=None).bounds()}, or 0 for off"
    return f"{value} must be {about.bounds() if about.most is not None or about.below is not None or small else f'at most {most}'}"


def _number(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def _home(text: str) -> str:
    try:
        return str(Path(text).expanduser()) if text.startswith("~") else text
    except RuntimeError:  # no such user, or no home at all
        return text
