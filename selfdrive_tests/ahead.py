"""Decodes while something else computes: an iterator that is a few items ahead of its reader."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import TypeVar

T = TypeVar("T")

DEPTH = 8
_POLL_S = 0.2


def read_ahead(items: Iterable[T], depth: int = DEPTH) -> Generator[T]:
    """The same items, taken in a thread of their own, at most `depth` ahead.

    What `items` raises is raised here, after the items before it. Closing the iterator stops the
    thread at the next item.
    """
    queue: Queue[tuple[str, T | BaseException | None]] = Queue(depth)
    stop = threading.Event()

    def put(kind: str, value: T | BaseException | None) -> None:
        while not stop.is_set():
            with suppress(Full):
                queue.put((kind, value), timeout=_POLL_S)
                return

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if stop.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=work, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = queue.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]
    finally:
        stop.set()
        with suppress(Empty):
            queue.get_nowait()  # a thread that waits for room sees the stop at once
        thread.join()
