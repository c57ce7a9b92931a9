"""The types of MBPP+'s inputs. Its file is JSON, which has no tuples, sets and complex numbers; EvalPlus lists by task where they belong.

The table is that of `mbpp_deserialize_inputs` (evalplus/data/mbpp.py, Apache-2.0); a test compares the two where evalplus is installed. It is written
out here because that import loads `datasets`, pandas and a downloader.
"""

from collections.abc import Callable
from typing import Any


def _row(element: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    return lambda value: [element(each) for each in value]


def _deep(value: Any) -> Any:
    return tuple(_deep(each) for each in value) if isinstance(value, list) else value


def _same(value: Any) -> Any:
    return value


def _set(value: Any) -> Any:
    return set(value) if isinstance(value, list) and value else {}


def _if_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _table(value: Any) -> Any:
    return {key: tuple(each) for key, each in value.items()}


# Per argument what makes it of its JSON value; the last one holds for all further arguments.
SHAPES: list[tuple[str, tuple[Callable[[Any], Any], ...]]] = [
    ("2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 809", (tuple,)),
    ("63 64 70 94 120 237 272 299 400 409 417 438 473 614 780", (_row(tuple),)),
    ("75 413 444 753", (_row(tuple), _same)),
    ("106 750", (_same, tuple)),
    ("115", (_row(_set),)),
    ("124", (float, complex)),
    ("250 405 446 617 720 763 808 307", (tuple, _same)),
    ("259 401 445", (lambda value: tuple(map(tuple, value)),)),
    ("278", (lambda value: tuple(_if_list(each) for each in value),)),
    ("722", (_table, _same)),
    ("252", (complex,)),
    ("580 615 791", (_deep,)),
]
BY_TASK = {int(number): shapes for numbers, shapes in SHAPES for number in numbers.split()}


def typed(task_id: str, arguments: list[Any]) -> list[Any]:
    """The arguments of one call. task_id: "Mbpp/2". Raises ValueError, TypeError or AttributeError for what does not fit the task."""
    shapes = BY_TASK.get(int(task_id.split("/")[-1]), (_same,))
    return [shapes[min(place, len(shapes) - 1)](value) for place, value in enumerate(arguments)]
