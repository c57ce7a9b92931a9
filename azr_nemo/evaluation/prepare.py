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
from azr_nemo.evaluation.suite import Item, Suite, Tools
from azr_nemo.observe.view import Phase

Rows = list[dict[str, Any]]
MANIFEST = "manifest.json"
HUB = Path("hub")
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet")  # in the order in which they are preferred
AGAIN = "run `azr-nemo data prepare` again"


@dataclass(frozen=True)
class Place:
    """Where a suite's rows are found. files: patterns of paths without their ending, lower case, the best first; a path matches by its last parts.
    together: all files of the first pattern that has any make up the suite, in the order of their names. hub: dataset on the Hugging Face hub, with its
    split. hub_files: patterns of its files there; empty for those named after the split. Files that are named are always read as files: the hub's
    reader would have to run the dataset's own script."""

    files: tuple[str, ...]
    hub: str = ""
    split: str = "test"
    hub_files: tuple[str, ...] = ()
    together: bool = False


EXECUTION = Place(
    ("execution/test*", "livecodebench_execution*", "lcb_execution*", "code_execution*", "execution*"), "livecodebench/execution", "test"
)
GENERATION = Place(
    ("code_generation_lite/test", "code_generation_lite/test[2-5]", "release_v5/test*", "release_v5*", "livecodebench*", "lcb*"),
    "livecodebench/code_generation_lite",
    hub_files=("test.jsonl", "test[2-5].jsonl"),
    together=True,
)
# By the beginning of a suite's name, the longest first.
PLACES = {
    "math500": Place(("math500", "math-500", "math500/test", "math-500/test", "math500*", "math-500*"), "HuggingFaceH4/MATH-500"),
    "aime24": Place(("aime24", "aime24/test", "aime24*", "aime_2024*", "aime2024*"), "math-ai/aime24"),
    "aime25": Place(("aime25", "aime25/test", "aime25*", "aime_2025*", "aime2025*"), "math-ai/aime25"),
    "amc23": Place(("amc23", "amc23/test", "amc23*"), "math-ai/amc23"),
    "minerva": Place(("minerva_math", "minerva_math/test", "minervamath/test", "minerva*"), "math-ai/minervamath"),
    "olympiadbench": Place(("olympiadbench", "olympiadbench/test", "olympiadbench*"), "math-ai/olympiadbench"),
    "cruxeval": Place(("cruxeval", "cruxeval/test", "cruxeval/data/cruxeval", "cruxeval*"), "cruxeval-org/cruxeval"),
    "humaneval": Place(("humaneval",), "openai/openai_humaneval"),
    # The hub's copies of these have no inputs by themselves, only a text of tests.
    "humaneval_plus": Place(("humanevalplus*", "humaneval_plus*")),
    "mbpp": Place(("mbppplus*", "mbpp_plus*", "mbpp*")),
    "livecodebench_execution": EXECUTION,
    "lcb_execution": EXECUTION,
    "livecodebench": GENERATION,
    "lcb": GENERATION,
}


def prepare(
    sources: Sequence[Path],
    to: Path,
    suites: Mapping[str, Suite],
    tools: Tools,
    names: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda sentence: None,
    phase: Phase | None = None,
) -> list[str]:
    """Writes `to/<suite>.jsonl` (id, question, reference) and `to/manifest.json`, each whole or not at all. Suites that were prepared before stay.

    sources: files and folders, searched in this order; `hub` downloads what the others do not have. names: suites, None for all. Returns a sentence
    for each: how many items from where, or what is missing and where to get it. It is said as soon as that suite is done, and phase is told. Fewer
    items than the public set has are kept and said. Raises UserError for a file that cannot be read or converted, and when nothing was found.
    """
    chosen = list(suites) if names is None else list(names)
    for name in chosen:
        if name not in suites:
            raise UserError(f"suite {name} is unknown: choose from {', '.join(suites)}")
    hub = HUB in sources
    files = _readable_files([source for source in sources if source != HUB])
    manifest = _manifest(to) if (to / MANIFEST).exists() else {}
    notes: list[str] = []
    found = False

    def note(sentence: str) -> None:
        notes.append(sentence)
        say(sentence)
        if phase:
            phase.advance(1)

    if phase:
        phase.expect(len(chosen))
    for name in chosen:
        suite, place = suites[name], _place(name)
        paths = _matching(files, place)
        if paths:
            rows = [row for path in paths for row in read_file(path)]
            origins = [{"file": path.name, "sha256": _file_hash(path)} for path in paths]
        elif hub and place.hub:
            rows = from_hub(place)
            origins = [{"file": f"hub:{place.hub}", "sha256": _rows_hash(rows)}]
        else:
            note(f"{name} is missing: {suite.origin}.")
            continue
        items = suite.convert(rows, tools)
        if not items:
            raise UserError(f"{origins[0]['file']} has no items for {name}: {suite.origin}")
        body = "".join(f"{json.dumps({'id': item.id, 'question': item.question, 'reference': item.reference})}\n" for item in items)
        _write(to / f"{name}.jsonl", body)
        digest = hashlib.sha256(body.encode()).hexdigest()
        manifest[name] = {"items": len(items), "expected": suite.size, "sha256": digest, "sources": origins}
        _write(to / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        found = True
        of = "" if len(items) == suite.size else f" of {suite.size}"
        note(f"{name}: {len(items)}{of} items from {', '.join(origin['file'] for origin in origins)}.")
    if not found:
        raise UserError(f"no benchmark file was found in {', '.join(map(str, sources)) or 'no folder'}: {' '.join(notes)}")
    return notes


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


def _place(name: str) -> Place:
    keys = sorted((key for key in PLACES if name.startswith(key)), key=len)
    return PLACES[keys[-1]] if keys else Place((name, f"{name}/test", f"{name}*"))


def _readable_files(sources: Sequence[Path]) -> list[Path]:
    """All files with a known ending, by source, then by ending and path. Raises UserError when a source is not there."""
    found: list[Path] = []
    for source in sources:
        if not source.exists():
            raise UserError(f"{source} is not there: give a file or a folder with copies of the public benchmark files")
        inside = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        readable = [(ENDINGS.index(ending), path) for path in inside if (ending := _ending(path))]
        found += [path for _, path in sorted(readable)]
    return found


def _matching(files: Sequence[Path], place: Place) -> list[Path]:
    """The suite's file, or all its files where it has several."""
    found: list[Path] = []
    for pattern in place.files:
        parts = pattern.count("/") + 1
        fitting = [path for path in files if fnmatch("/".join(path.parts[-parts:]).lower().removesuffix(_ending(path)), pattern)]
        if fitting and not place.together:
            return fitting[:1]
        found += [path for path in fitting if path.parent == fitting[0].parent and _ending(path) == _ending(fitting[0])]
        if fitting and not pattern.endswith("/test"):  # further files beside `test` have a pattern of their own
            break
    return found


def _ending(path: Path) -> str:
    return next((ending for ending in sorted(ENDINGS, key=len, reverse=True) if path.name.lower().endswith(ending)), "")


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
