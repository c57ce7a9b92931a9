"""Reading the rows of public files: each problem is named with its row."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from azr_nemo.errors import UserError

T = TypeVar("T")


class Row:
    """A row of a suite's file. number: from 1."""

    def __init__(self, suite: str, number: int, values: Mapping[str, Any]):
        if not isinstance(values, Mapping):
            raise UserError(f"{suite}, row {number}: expected an object, found {type(values).__name__}")
        self.suite, self.number, self.values = suite, number, values

    def get(self, key: str, kind: type[T]) -> T:
        """The value under a key. Raises UserError when it is missing or of another kind."""
        value = self.values.get(key)
        if not isinstance(value, kind):
            found = "is missing" if key not in self.values else f"is {type(value).__name__}, not {kind.__name__}"
            raise self.error(f"{key} {found}")
        return value

    def error(self, what: str) -> UserError:
        """A UserError that names this row."""
        named = self.values.get("task_id") or self.values.get("question_id") or self.values.get("id")
        return UserError(f"{self.suite}, row {self.number}{f' ({named})' if named else ''}: {what}")


def numbered(suite: str, rows: Iterable[Mapping[str, Any]], key: str) -> Iterator[tuple[Row, str]]:
    """Each row with its id, the text under `key`. Raises UserError when two have one id."""
    seen: set[str] = set()
    for number, values in enumerate(rows, 1):
        row = Row(suite, number, values)
        name = row.get(key, str)
        if name in seen:
            raise row.error(f"{key} {name} was in an earlier row")
        seen.add(name)
        yield row, name
