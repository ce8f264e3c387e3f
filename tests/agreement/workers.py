"""Child processes that work through tasks one by one, and whose death or silence costs one task, not the run.

Invariant: every task gets one answer, in any order: what the function returned, or a `Lost` that says why not.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any


@dataclass(frozen=True, slots=True)
class Lost:
    """Why a task has no result: the exception's text and traceback, a time-out, or the end of its process."""

    why: str
    detail: str = ""


_BUSY = object()
"""In place of an answer that is not there yet."""


class _Child:
    """One process, and the task that it is at."""

    def __init__(self, function: Callable[[Any], Any], prepare: Callable[[], None]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function, prepare), daemon=True)
        self.process.start()
        theirs.close()
        self.task: int | None = None
        self.deadline = 0.0

    def give(self, number: int, task: Any, seconds: float) -> None:
        self.task, self.deadline = number, time.monotonic() + seconds
        self.pipe.send(task)

    def end(self) -> None:
        """Ends this process, and only it."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, function: Callable[[Any], Any], prepare: Callable[[], None]) -> None:
    prepare()
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            answer = function(task)
        except Exception as error:
            answer = Lost(f"{type(error).__name__}: {error}", traceback.format_exc())
        pipe.send(answer)


def work(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    *,
    jobs: int,
    seconds: float,
    prepare: Callable[[], None],
) -> Iterator[tuple[int, Any]]:
    """(number of the task, its result) as they come. `prepare` runs first in each child; `seconds` bounds a task."""
    queue = iter(enumerate(tasks))
    children = [_Child(function, prepare) for _ in range(jobs)]
    try:
        busy = [child for child in children if _next(child, queue, seconds)]
        while busy:
            ready = wait([child.pipe for child in busy], timeout=0.5)
            for child in list(busy):
                answer = _answer(child, child.pipe in ready, seconds)
                if answer is _BUSY:
                    continue
                if child.task is not None:
                    yield child.task, answer
                busy.remove(child)
                if not child.process.is_alive():
                    children.remove(child)
                    child = _Child(function, prepare)
                    children.append(child)
                if _next(child, queue, seconds):
                    busy.append(child)
    finally:
        for child in children:
            child.end()


def _next(child: _Child, queue: Iterator[tuple[int, Any]], seconds: float) -> bool:
    following = next(queue, None)
    if following is not None:
        child.give(*following, seconds)
    return following is not None


def _answer(child: _Child, ready: bool, seconds: float) -> Any:
    """The child's result, which may be None; a Lost where there will be none; _BUSY while it works."""
    if ready:
        try:
            return child.pipe.recv()
        except (EOFError, OSError):
            child.process.join()
            return Lost(f"the process ended with code {child.process.exitcode}")
    if time.monotonic() > child.deadline:
        child.end()
        return Lost(f"no answer within {seconds:g} s")
    return _BUSY
