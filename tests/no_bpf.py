"""Runs code where bpf(2) is refused, to show that it needs no kernel: `run(function, *arguments)`.

The filter is seccomp's: once in place it holds for the process and its children, and no privilege lifts it; so it is
put in place in a child. Source: seccomp(2), prctl(2), include/uapi/linux/{seccomp,filter}.h.
"""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import platform
import struct
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from simulator.engines.bpf_syscall import SYSCALL_NUMBERS

P = ParamSpec("P")
T = TypeVar("T")

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_RETURN_ALLOW, _RETURN_ERRNO = 0x7FFF0000, 0x00050000
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06


class FilterError(RuntimeError):
    """The filter could not be put in place on this host; a test that needs it skips, with this reason."""


def forbid_bpf() -> None:
    """From now on bpf(2) answers EPERM in this process and its children. Raises FilterError where it cannot."""
    number = SYSCALL_NUMBERS.get(platform.machine())
    if platform.system() != "Linux" or number is None:
        raise FilterError(f"no seccomp filter for {platform.system()} on {platform.machine()}")
    # The first word of what seccomp shows a filter is the number of the system call.
    rows = (
        (_LOAD_WORD, 0, 0, 0),
        (_JUMP_IF_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, _RETURN_ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _RETURN_ALLOW),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *row) for row in rows))
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(rows), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, *arguments in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program)):
        words = [ctypes.c_ulong(word) if isinstance(word, int) else word for word in arguments]
        if libc.prctl(option, *words, *[ctypes.c_ulong(0)] * (4 - len(words))):
            raise FilterError(f"prctl({option}): {os.strerror(ctypes.get_errno())}")


def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The function's result, from a child in which bpf(2) is refused; what it raises is raised here.

    Function, arguments and result are pickled: the child is a fresh interpreter.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(theirs, function, args, kwargs))
    child.start()
    theirs.close()
    try:
        result, error = ours.recv()
    except EOFError:
        result, error = None, RuntimeError("the child ended without a word")
    child.join()
    if error is not None:
        raise error
    answer: T = result
    return answer


def _child(answer: Connection, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        forbid_bpf()
        answer.send((function(*args, **kwargs), None))
    except Exception as error:
        answer.send((None, error))
