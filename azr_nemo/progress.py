"""How far the work in hand is: said where it is done, heard by whoever shows it. What says it knows of no console, and nobody need listen."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Listener(Protocol):
    """A phase of `observe.view`, for one. The functions below say what each is told. done: items so far."""

    done: int

    def advance(self, n: int = 1) -> None: ...

    def expect(self, total: int, unit: str = "") -> None: ...

    def stand(self, done: int, total: int, unit: str = "") -> None: ...

    def at_most(self, done: int, most: int, **info: float | int | str) -> None: ...


_listeners: list[tuple[int, Listener]] = []  # with the thread that each was opened in


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Inside, the listener hears what is said in this thread, and in threads without a listener of their own. Those of an outer block hear nothing
    meanwhile."""
    entry = (threading.get_ident(), listener)
    _listeners.append(entry)
    try:
        yield
    finally:
        _listeners.remove(entry)


def _hears() -> Listener | None:
    """Who hears what this thread says."""
    own = [listener for thread, listener in _listeners if thread == threading.get_ident()]
    return own[-1] if own else _listeners[-1][1] if _listeners else None


def expect(total: int, unit: str = "") -> None:
    """The work has so many parts (rows, tensors)."""
    if listener := _hears():
        listener.expect(total, unit)


def advance(n: int = 1) -> None:
    """So many more of its parts are done."""
    if listener := _hears():
        listener.advance(n)


def counted(items: Iterable[T], parts: Callable[[T], int] = lambda item: 1) -> Iterator[T]:
    """The items; the parts of each are done once the next one is asked for, or nobody wants any more."""
    for item in items:
        try:
            yield item
        finally:
            advance(parts(item))


def stand(done: int, total: int, unit: str = "") -> None:
    """So many of its parts are done, of so many; 0: nobody knows."""
    if listener := _hears():
        listener.stand(done, total, unit)


def at_most(done: int, most: int, **info: float | int | str) -> None:
    """For work whose parts end late and together: what is done of the most that it can come to, to judge the time by until the first part ends."""
    if listener := _hears():
        listener.at_most(done, most, **info)
