"""Turns copies of the public benchmark files into one file of items per suite and a manifest of where they came from; reads them back, checked."""

import gzip
import hashlib
import importlib
import importlib.util
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.evaluation.places import ENDINGS, Place, is_of_another, matching, place_of, readable_files
from azr_nemo.evaluation.suite import Item, Suite, Tools
from azr_nemo.observe.view import Phase

Rows = list[dict[str, Any]]
MANIFEST = "manifest.json"
HUB = Path("hub")
ITEM_KEYS = {"id", "question", "reference"}
AGAIN = "run `azr-nemo data prepare` again"


@dataclass
class Prepared:
    """What became of every suite. notes: a sentence each, in their order; refused: those of the files that could not be read or converted."""

    notes: list[str]
    refused: list[str]


def prepare(
    sources: Sequence[Path],
    to: Path,
    suites: Mapping[str, Suite],
    tools: Tools,
    names: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda sentence: None,
    phase: Phase | None = None,
) -> Prepared:
    """Writes `to/<suite>.jsonl` (id, question, reference) and `to/manifest.json`, each whole or not at all. Suites that were prepared before stay.

    sources: files and folders, searched in this order; `hub` downloads what the others do not have. names: suites, None for all. There is a sentence
    for each: how many items from where, or what is missing and where to get it. It is said as soon as that suite is done, and phase is told. Fewer
    items than the public set has are kept and said. A file that does not convert is said with the reason, and the next that fits is tried. Raises
    UserError for a source that is not there, for what cannot be written, and when no file was found at all.
    """
    chosen = list(suites) if names is None else list(names)
    for name in chosen:
        if name not in suites:
            raise UserError(f"suite {name} is unknown: choose from {', '.join(suites)}")
    hub = HUB in sources
    files = readable_files([source for source in sources if source != HUB])
    manifest = _manifest(to) if (to / MANIFEST).exists() else {}
    done = Prepared([], [])

    def note(sentence: str) -> None:
        done.notes.append(sentence)
        say(sentence)

    if phase:
        phase.expect(len(chosen))
    for name in chosen:
        place = place_of(name)
        candidates: list[list[Path] | Place] = [
            *matching([path for path in files if not is_of_another(path, name, place, suites)], place),
            *([place] if hub and place.hub else []),
        ]
        for origin in candidates:
            try:
                items, origins = _converted(origin, suites[name], tools)
            except UserError as error:
                done.refused.append(f"{_called(origin)} is no file for {name} ({error}): {suites[name].origin}.")
                note(done.refused[-1])
            else:
                note(_keep(to, suites[name], items, origins, manifest))
                break
        if not candidates:
            note(f"{name} is missing: {suites[name].origin}.")
        if phase:
            phase.advance(1)
    if not done.refused and all(" is missing: " in sentence for sentence in done.notes):
        raise UserError(f"no benchmark file was found in {', '.join(map(str, sources)) or 'no folder'}: {' '.join(done.notes)}")
    return done


def _converted(origin: list[Path] | Place, suite: Suite, tools: Tools) -> tuple[list[Item], list[dict[str, str]]]:
    """The items of a suite from its files or from the hub, and what they were made of. Raises UserError."""
    if isinstance(origin, Place):
        rows = from_hub(origin)
        origins = [{"file": _called(origin), "sha256": _rows_hash(rows)}]
    else:
        rows = [row for path in origin for row in read_file(path)]
        origins = [{"file": path.name, "sha256": _file_hash(path)} for path in origin]
    if not rows:
        raise UserError("it has no rows")
    if all(row.keys() == ITEM_KEYS and isinstance(row["reference"], dict) for row in rows):  # written here before
        return [Item(**row) for row in rows], origins
    return suite.convert(rows, tools), origins


def _keep(to: Path, suite: Suite, items: list[Item], origins: list[dict[str, str]], manifest: dict[str, dict[str, Any]]) -> str:
    """Writes the items of a suite, and adds them to the manifest; a sentence about them. Raises UserError."""
    body = "".join(f"{json.dumps({'id': item.id, 'question': item.question, 'reference': item.reference})}\n" for item in items)
    _write(to / f"{suite.name}.jsonl", body)
    digest = hashlib.sha256(body.encode()).hexdigest()
    manifest[suite.name] = {"items": len(items), "expected": suite.size, "sha256": digest, "sources": origins}
    _write(to / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    of = "" if len(items) == suite.size else f" of {suite.size}"
    return f"{suite.name}: {len(items)}{of} items from {', '.join(origin['file'] for origin in origins)}."


def _called(origin: list[Path] | Place) -> str:
    return f"hub:{origin.hub}" if isinstance(origin, Place) else ", ".join(map(str, origin))


def load(folder: Path, suite: Suite) -> list[Item]:
    """The prepared items of a suite. Raises UserError for a file that is missing or not the one that was prepared."""
    path = folder / f"{suite.name}.jsonl"
    try:
        entry = _manifest(folder)[suite.name]
        body = path.read_bytes()
    except (OSError, KeyError):
        raise UserError(f"{path} is missing: {suite.origin}, then run `azr-nemo data prepare`") from None
    if hashlib.sha256(body).hexdigest() != entry.get("sha256"):
        raise UserError(f"{path} is not what was prepared (its hash differs): {AGAIN}")
    try:
        return [Item(row["id"], row["question"], row["reference"]) for row in map(json.loads, body.splitlines())]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} does not hold items: {AGAIN}") from None


def read_file(path: Path) -> Rows:
    """The rows of a .jsonl, .jsonl.gz, .json (one list) or .parquet file. Raises UserError naming the file, and the line where there is one."""
    if path.name.endswith(".parquet"):
        return _read_parquet(path)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.name.endswith(".gz") else data).decode("utf-8-sig")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}): it is damaged or was not downloaded whole; get it again") from None
    if path.name.endswith(".json"):
        return _objects(path, [("", text)], whole=True)
    # Only at newlines: other line ends may stand unescaped in a JSON text.
    return _objects(path, [(f"line {number} of ", line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()])


def from_hub(place: Place) -> Rows:
    """The rows of a dataset on the Hugging Face hub: by `datasets` where it is installed, else by reading the files of its split. Raises UserError."""
    try:
        if not place.hub_files and importlib.util.find_spec("datasets") is not None:
            return [dict(row) for row in importlib.import_module("datasets").load_dataset(place.hub, split=place.split)]
        client: Any = importlib.import_module("huggingface_hub")
        names = client.HfApi().list_repo_files(place.hub, repo_type="dataset")
        wanted = _hub_files(names, place)
        if not wanted:
            raise UserError(f"the dataset {place.hub} has no file of {place.split} that can be read: give a local copy")
        return [row for name in wanted for row in read_file(Path(client.hf_hub_download(place.hub, name, repo_type="dataset")))]
    except UserError:
        raise
    except Exception as error:  # the client's own, of its transport or of the server: a dozen kinds
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise UserError(f"{place.hub} cannot be downloaded from the Hugging Face hub ({reason}): give a local copy") from None


def _hub_files(names: Iterable[str], place: Place) -> list[str]:
    """Of the repository's files those of the split, in one format."""
    for ending in ENDINGS:
        fitting = sorted(name for name in names if name.endswith(ending))
        patterns = place.hub_files or (f"{place.split}*", f"*/{place.split}*")
        if wanted := [name for pattern in patterns for name in fitting if fnmatch(name, pattern)]:
            return wanted
    return []


def _objects(path: Path, texts: Iterable[tuple[str, str]], whole: bool = False) -> Rows:
    """The JSON objects of texts, each with the words for where it stands; whole: one text that holds a list of them."""
    rows: list[Any] = []
    for where, text in texts:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise UserError(f"{where}{path} is not JSON: it was not downloaded whole; get it again") from None
        rows += value if whole and isinstance(value, list) else [value]
        if not all(isinstance(row, dict) for row in (rows if whole else rows[-1:])):
            raise UserError(f"{where}{path} is not a JSON object: expected the public file; get it again")
    return rows


def _read_parquet(path: Path) -> Rows:
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
    except Exception as error:  # pyarrow's own kinds
        raise UserError(f"{path} cannot be read ({error}): it is damaged or was not downloaded whole; get it again") from None


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Raises OSError when there is none, and UserError when it is damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or not all(isinstance(entry, dict) for entry in manifest.values()):
        raise UserError(f"{folder / MANIFEST} is damaged: delete it and {AGAIN}")
    return manifest


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another folder or free some space") from None


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rows_hash(rows: Rows) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()
