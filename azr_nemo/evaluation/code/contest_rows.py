"""The tests in a row of LiveCodeBench's code generation file."""

import base64
import json
import pickletools
import zlib
from dataclasses import astuple, dataclass

from azr_nemo.evaluation.code.in_jail import literal
from azr_nemo.evaluation.code.rows import Row

STRINGS = frozenset({"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"})
AROUND = frozenset({"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"})


@dataclass(frozen=True)
class ContestTest:
    """input: an argument text, or what a script reads. output: a value (`in_jail.literal`), or what a script should print."""

    input: str
    output: str


def tests_of(row: Row) -> tuple[str, list[ContestTest]]:
    """The name of the method that is tested, empty for scripts, and all tests, public ones first. Raises UserError naming the row."""
    try:
        metadata = json.loads(row.get("metadata", str) or "{}")
        method = metadata.get("func_name") or ""
        cases = [*_cases(row.get("public_test_cases", str)), *_cases(row.get("private_test_cases", str))]
        tests = [ContestTest(case["input"], case["output"]) for case in cases]
        functional = {case["testtype"] for case in cases}
        if functional != {"functional" if method else "stdin"} or not all(
            isinstance(part, str) for case in tests for part in astuple(case)
        ):
            raise ValueError(f"tests must be texts, and all {'functional' if method else 'stdin'}")
        return method, [_valued(test) for test in tests] if method else tests
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error) as error:
        raise row.error(f"its tests cannot be read ({error.__class__.__name__}: {str(error)[:100]})") from None


def packed(tests: list[ContestTest]) -> str:
    """Tests as base64 of compressed JSON: contests have inputs of megabytes."""
    return base64.b64encode(zlib.compress(json.dumps([astuple(test) for test in tests]).encode())).decode()


def unpacked(tests: str) -> list[ContestTest]:
    """What `packed` was given."""
    return [ContestTest(*pair) for pair in json.loads(zlib.decompress(base64.b64decode(tests)))]


def _cases(field: str) -> list[dict[str, str]]:
    """A field of tests: JSON, or base64 of compressed, pickled JSON."""
    if not field.lstrip().startswith("["):
        field = _pickled_text(zlib.decompress(base64.b64decode(field, validate=True)))
    return json.loads(field)


def _pickled_text(data: bytes) -> str:
    """The text in a pickle of one text. Its opcodes are read, nothing is unpickled: a pickle may run anything. Raises ValueError for any other."""
    found = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in STRINGS:
            found.append(argument)
        elif opcode.name not in AROUND:
            raise ValueError(f"the pickle holds {opcode.name}, expected one text")
    if len(found) != 1:
        raise ValueError(f"the pickle holds {len(found)} texts, expected one")
    return str(found[0])


def _valued(test: ContestTest) -> ContestTest:
    """A functional test: its input has one JSON value a line, one an argument; lines without any are none."""
    arguments = [literal(json.loads(line), argument=True) for line in test.input.split("\n") if line.strip()]
    return ContestTest(", ".join(arguments), literal(json.loads(test.output)))
