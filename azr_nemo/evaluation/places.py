"""Where the public files of each benchmark are found: their usual names, and their data sets on the Hugging Face hub."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from azr_nemo.errors import UserError
from azr_nemo.evaluation.suite import Suite

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet")  # in the order in which they are preferred


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
    "codeio": Place(("codeio", "data/codeio")),
    "humaneval": Place(("humaneval",), "openai/openai_humaneval"),
    # The hub's copies of these have no inputs by themselves, only a text of tests.
    "humaneval_plus": Place(("humanevalplus*", "humaneval_plus*", "humanevalplus/test*", "humanevalplus/data/test*")),
    "mbpp": Place(("mbppplus*", "mbpp_plus*", "mbppplus/test*", "mbppplus/data/test*", "mbpp*")),
    "livecodebench_execution": EXECUTION,
    "lcb_execution": EXECUTION,
    "livecodebench": GENERATION,
    "lcb": GENERATION,
}


def place_of(name: str) -> Place:
    keys = sorted((key for key in PLACES if name.startswith(key)), key=len)
    return PLACES[keys[-1]] if keys else Place((name, f"{name}/test", f"{name}*"))


def readable_files(sources: Sequence[Path]) -> list[Path]:
    """All files with a known ending, by source, then by ending and path. Raises UserError when a source is not there."""
    found: list[Path] = []
    for source in sources:
        if not source.exists():
            raise UserError(f"{source} is not there: give a file or a folder with copies of the public benchmark files")
        inside = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        readable = [(ENDINGS.index(ending), path) for path in inside if (ending := _ending(path))]
        found += [path for _, path in sorted(readable)]
    return found


def matching(files: Sequence[Path], place: Place) -> list[list[Path]]:
    """The files that may hold the suite, the best first: each alone, or with all the others of its folder where a suite has several."""
    found: list[list[Path]] = []
    parts: list[Path] = []  # of one release
    for pattern in place.files:
        fitting = [path for path in files if _fits(path, pattern) and not any(path in group for group in found)]
        if not place.together:
            found += [[path] for path in fitting]
        elif fitting:
            parts += [path for path in fitting if path.parent == fitting[0].parent and _ending(path) == _ending(fitting[0])]
        if parts and not pattern.endswith("/test"):  # further files beside `test` have a pattern of their own
            found.append(parts)
            parts = []
    return [*found, parts] if parts else found


def _fits(path: Path, pattern: str) -> bool:
    count = pattern.count("/") + 1
    return fnmatch("/".join(path.parts[-count:]).lower().removesuffix(_ending(path)), pattern)


def is_of_another(path: Path, name: str, place: Place, suites: Mapping[str, Suite]) -> bool:
    """Whether another suite has a better claim to a file that a wildcard finds: it has its name, or a longer pattern finds it."""
    stem = path.name.lower().removesuffix(_ending(path))
    if stem != name and stem in suites and not any(_fits(path, pattern) for pattern in place.files if "*" not in pattern):
        return True
    own, best = (
        max((len(pattern) for one in places for pattern in one.files if _fits(path, pattern)), default=0)
        for places in ([place], [each for each in PLACES.values() if each is not place])
    )
    return best > own


def _ending(path: Path) -> str:
    return next((ending for ending in sorted(ENDINGS, key=len, reverse=True) if path.name.lower().endswith(ending)), "")
