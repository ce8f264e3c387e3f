"""Kernel functions on strings in memory: compared, measured, searched.

All give a place counted from the beginning, or ENOENT; E2BIG for a string of more than 64 KiB, EFAULT where memory
ends before the string, ERANGE for an address that is not the kernel's.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from bpflisp.spec.alu import signed
from simulator.kfuncs.registry import models
from simulator.machine import Machine

_LONGEST: Final = 1 << 16
_USER_END: Final = 1 << 47
_VSYSCALL: Final = 0xFFFF_FFFF_FF60_0000
"""A page of the kernel's addresses that is user space's."""

Byte = Callable[[int], int]
"""The byte at a place in a string."""


class _Stopped(Exception):  # noqa: N818
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _string(machine: Machine, address: int) -> Byte:
    """A string's bytes. Raises _Stopped where it cannot be read."""
    world, memory = machine.world, machine.memory
    if address & ~0xFFF == _VSYSCALL or (address < _USER_END and world.kernel_memory.read(memory, address, 1) is None):
        raise _Stopped(errno.ERANGE)

    def byte(at: int) -> int:
        found = world.kernel_memory.read(memory, address + at, 1)
        if found is None:
            raise _Stopped(errno.EFAULT)
        return found[0]

    return byte


def _answers(model: Callable[[Machine, int, int, int], int]) -> Callable[..., int]:
    """The model, with an error's number in the place of what stopped it."""

    def answer(machine: Machine, first: int, second: int, third: int, *_: int) -> int:
        try:
            return model(machine, first, second, third)
        except _Stopped as stopped:
            return -stopped.number

    answer.__doc__ = model.__doc__
    return answer


def _compared(machine: Machine, first: int, second: int, fold: Callable[[int], int]) -> int:
    one, other = _string(machine, first), _string(machine, second)
    for at in range(_LONGEST):
        a, b = fold(one(at)), fold(other(at))
        if a != b:
            return -1 if a < b else 1
        if not a:
            return 0
    return -errno.E2BIG


def _lower(byte: int) -> int:
    """A capital letter of Latin-1 as the kernel makes it small."""
    capital = 65 <= byte <= 90 or (192 <= byte <= 222 and byte != 215)
    return byte + 32 if capital else byte


@models("bpf_strcmp")
@_answers
def strcmp(machine: Machine, first: int, second: int, _: int) -> int:
    """-1, 0 or 1 by the first byte that differs."""
    return _compared(machine, first, second, lambda byte: byte)


@models("bpf_strcasecmp")
@_answers
def strcasecmp(machine: Machine, first: int, second: int, _: int) -> int:
    """The same, capital letters as small ones."""
    return _compared(machine, first, second, _lower)


def _found(machine: Machine, text: int, limit: int, wanted: int) -> int:
    byte = _string(machine, text)
    for at in range(min(limit, _LONGEST)):
        here = byte(at)
        if here == wanted & 0xFF:
            return at
        if not here:
            return -errno.ENOENT
    return -errno.E2BIG if limit >= _LONGEST else -errno.ENOENT


@models("bpf_strnchr")
@_answers
def strnchr(machine: Machine, text: int, limit: int, wanted: int) -> int:
    """Where a byte is first among so many."""
    return _found(machine, text, limit, wanted)


@models("bpf_strchr")
@_answers
def strchr(machine: Machine, text: int, wanted: int, _: int) -> int:
    """Where a byte is first."""
    return _found(machine, text, _LONGEST, wanted)


@models("bpf_strchrnul")
@_answers
def strchrnul(machine: Machine, text: int, wanted: int, _: int) -> int:
    """Where a byte is first, or the string's end."""
    byte = _string(machine, text)
    return next((at for at in range(_LONGEST) if byte(at) in (0, wanted & 0xFF)), -errno.E2BIG)


@models("bpf_strrchr")
@_answers
def strrchr(machine: Machine, text: int, wanted: int, _: int) -> int:
    """Where a byte is last; the number is of 32 bits, and none below zero is in a string."""
    byte, last = _string(machine, text), -errno.ENOENT
    for at in range(_LONGEST):
        here = byte(at)
        if here == signed(wanted, 32):
            last = at
        if not here:
            return last
    return -errno.E2BIG


def _length(machine: Machine, text: int, limit: int) -> int:
    byte = _string(machine, text)
    for at in range(min(limit, _LONGEST)):
        if not byte(at):
            return at
    return -errno.E2BIG if limit >= _LONGEST else limit


@models("bpf_strlen")
@_answers
def strlen(machine: Machine, text: int, *_: int) -> int:
    """Its length."""
    return _length(machine, text, _LONGEST)


@models("bpf_strnlen")
@_answers
def strnlen(machine: Machine, text: int, limit: int, _: int) -> int:
    """Its length, at most so many."""
    return _length(machine, text, limit)


def _span(machine: Machine, text: int, others: int, among: bool) -> int:
    byte, other = _string(machine, text), _string(machine, others)
    for at in range(_LONGEST):
        here = byte(at)
        if not here:
            return at
        meets = next((seen for index in range(_LONGEST) if (seen := other(index)) in (0, here)), None)
        if meets is None:
            return -errno.E2BIG
        if bool(meets) is not among:
            return at
    return -errno.E2BIG


@models("bpf_strspn")
@_answers
def strspn(machine: Machine, text: int, accepted: int, _: int) -> int:
    """How many bytes at its beginning are among those of the other."""
    return _span(machine, text, accepted, among=True)


@models("bpf_strcspn")
@_answers
def strcspn(machine: Machine, text: int, rejected: int, _: int) -> int:
    """How many are not."""
    return _span(machine, text, rejected, among=False)


def _inside(machine: Machine, text: int, wanted: int, length: int) -> int:
    byte, other = _string(machine, text), _string(machine, wanted)
    for start in range(_LONGEST):
        at = 0
        while start + at <= length and at < _LONGEST:
            here = other(at)
            if not here:
                return start
            if start + at == length:
                break
            there = byte(start + at)
            if not there:
                return -errno.ENOENT
            if there != here:
                break
            at += 1
        if at == _LONGEST:
            return -errno.E2BIG
        if start + at == length:
            return -errno.ENOENT
    return -errno.E2BIG


@models("bpf_strstr")
@_answers
def strstr(machine: Machine, text: int, wanted: int, _: int) -> int:
    """Where the other string is first in it."""
    return _inside(machine, text, wanted, _LONGEST)


@models("bpf_strnstr")
@_answers
def strnstr(machine: Machine, text: int, wanted: int, length: int) -> int:
    """Where the other string is first in so many bytes of it."""
    return _inside(machine, text, wanted, length)
