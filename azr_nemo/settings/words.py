"""KEY=VALUE words onto typed settings: text is taken as it was typed, numbers and flags are converted, lists and dictionaries are Hydra's."""

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, get_args, get_origin

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from azr_nemo.errors import UserError
from azr_nemo.settings.field import element_of, leaves, locate

LINE_ENDS = "[\\x85\\u2028\\u2029]"  # YAML folds these where they stand as they are
PROBE = "value"  # the key under which Hydra's grammar is shown a value


def split(words: Iterable[str], noun: str, example: str) -> list[tuple[str, str]]:
    """The keys and values, in order. Raises UserError for a word that has no `=`, and so is no `noun`."""
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UserError(f"{word!r} is not {noun}: write key=value, for example {example}")
        pairs.append((key, value))
    return pairs


def literal(text: str) -> str:
    """Text as OmegaConf must be given it to hold just that: a `${` would else begin an interpolation."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)


def literally(value: Any) -> Any:
    """`literal` of all text within dictionaries and lists."""
    if isinstance(value, Mapping):
        return {key: literally(part) for key, part in value.items()}
    if isinstance(value, list):
        return [literally(part) for part in value]
    return literal(value) if isinstance(value, str) else value


def put(node: Any, kind: Any, key: str, value: str) -> None:
    """Sets one setting of `node`, an OmegaConf of the class `kind`. Raises UserError for a key that is none and a value of another type."""
    found = locate(kind, key)
    if found is None:
        raise UserError(not_a_setting(key, kind))
    parts = key.split(".")
    try:
        with open_dict(node):  # a dictionary of settings takes a new name, a class of settings none
            for depth in range(1, len(parts)):
                if element := element_of(locate(kind, held := ".".join(parts[:depth]))):
                    OmegaConf.select(node, held).setdefault(parts[depth], element())
            OmegaConf.update(node, key, _read(key, value, found), merge=True)
    except OmegaConfBaseException as error:
        raise UserError(sentence(error, kind, f"{key}={value}")) from None


def sentence(error: Exception, kind: Any, where: str = "") -> str:
    """OmegaConf's words about a value in one line that names its key. where: KEY=VALUE as it was given."""
    text = str(error).splitlines()[0]
    key = getattr(error, "full_key", None) or ""
    if text.startswith("Key ") or "not in" in text:
        return not_a_setting(key or where, kind)
    return f"{where or key} has a value of the wrong type: {text}" if where or key else text


def not_a_setting(key: str, kind: Any) -> str:
    """The sentence for an unknown key, with the nearest that is known."""
    known = [leaf.key for leaf in leaves(kind())]
    ended = [name for name in known if name.endswith(f".{key}")]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5) or ended[:1]
    hint = f"did you mean {close[0]}?" if close else f"`azr-nemo {kind.COMMAND} --help-settings` prints all of them"
    return f"{key} is not a setting{'' if kind.COMMAND == 'train' else f' of {kind.COMMAND}'}: {hint}"


class _Quoting(yaml.SafeDumper):
    """Writes text in double quotes, the one style in which every character can be escaped."""


_Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def as_yaml(config: Any) -> str:
    """A configuration as YAML that OmegaConf reads back to just that."""
    content = OmegaConf.create(literally(asdict(config)))
    text = OmegaConf.to_yaml(content)
    if not re.search(LINE_ENDS, text):
        return text
    return yaml.dump(OmegaConf.to_container(content), Dumper=_Quoting, sort_keys=False, default_flow_style=False)


def _read(key: str, value: str, kind: Any) -> Any:
    if kind is str:
        return literal(_unquoted(value))
    if kind in (int, float, bool):
        return _unquoted(value)
    if get_origin(kind) is list and not value.startswith("["):
        return [_read(key, value, get_args(kind)[0])] if value else _refuse_empty(key)
    if kind == list[str]:
        return [literal(part) for part in _texts(key, value)]
    try:
        override = OverridesParser.create().parse_override(f"{PROBE}={value}")
    except HydraException:
        raise UserError(f"{key}={value} cannot be read: {_written(kind)}") from None
    if override.is_sweep_override():
        raise UserError(f"{key}={value} is several values: {_written(kind)}")
    return override.value()


def _unquoted(value: str) -> str:
    """Quotes around the whole of it are Hydra's way to say that it is text, and no part of it."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _texts(key: str, value: str) -> Iterator[str]:
    """The parts of `[a, 'b, c']`: at commas, where they stand in no quotes."""
    lexer = shlex.shlex(value[1:-1], posix=True)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters, lexer.escape = ",", True, "", ""
    try:
        if not value.endswith("]"):
            raise ValueError
        yield from (part.strip() for part in lexer)
    except ValueError:
        raise UserError(f"{key}={value} cannot be read: {_written(list)}") from None


def _refuse_empty(key: str) -> Any:
    raise UserError(f"{key} is empty: write {key}=[] for none")


def _written(kind: Any) -> str:
    if is_dataclass(kind) or get_origin(kind) is dict:
        name = fields(kind)[0].name if is_dataclass(kind) else "name"
        return f"write {{{name}: value, ...}}, or one setting at a time"
    return "write [a,b], with quotes around what holds a comma or a quote: ['a,b',\"it's\"]"
