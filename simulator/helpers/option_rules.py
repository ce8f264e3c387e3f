"""Socket options that programs may set or read: what one is at first, and what the kernel makes of a number.

A rule takes the number that is given, signed, and returns the one that is kept, None where the kernel says EINVAL.
Numbers that a machine's settings decide are those of the kernel without settings, and of 250 ticks a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

SOL_IP, SOL_SOCKET, SOL_TCP, SOL_IPV6 = 0, 1, 6, 41
CONGESTION, SAVED_SYN, BIND_TO_DEVICE, RECEIVE_AT_LEAST, RECEIVE_BUFFER = 13, 28, 25, 18, 8
BOUND_DEVICE, CALLBACK_FLAGS, REHASH, SERVICE = 62, 1008, 74, 1

ALL_CALLBACKS = 0x7F
ALGORITHMS: Final = frozenset({b"reno", b"cubic", b"bbr"})
"""Congestion control that a socket may be given."""

_MOST_BUFFER = 4 << 20
_MOST_RECEIVED = 16 << 20
_TICK = 4000
_INT_MAX = (1 << 31) - 1

Rule = Callable[[int], int | None]


class Option(NamedTuple):
    """`at_first` is what it is before it is set, `of_udp` the same of UDP's sockets where it is another; None where
    it can only be set."""

    keep: Rule
    at_first: int | None = 0
    of_udp: int | None = None


def _any(number: int) -> int | None:
    return number


def _yes(number: int) -> int | None:
    return int(number != 0)


def _between(low: int, high: int) -> Rule:
    return lambda number: number if low <= number <= high else None


def _buffer(least: int) -> Rule:
    """Twice what is given, as the kernel counts its own overhead; a negative number is a large one."""
    return lambda number: max(least, 2 * min(number if number >= 0 else _MOST_BUFFER, _MOST_BUFFER))


def _received(number: int) -> int | None:
    return min(number if number >= 0 else _INT_MAX, _MOST_RECEIVED) or 1


def _segment(number: int) -> int | None:
    if not number:
        return 536
    return number if 88 <= number <= 32767 else None


def _window(number: int) -> int | None:
    return max(number, 1152) if number else 0


def _time(number: int) -> int | None:
    """Microseconds, kept in ticks: from two to those of 200 ms."""
    ticks = -(-(number & (1 << 32) - 1) // _TICK)
    return ticks * _TICK if 2 <= ticks <= 50 else None


def _rehash(number: int) -> int | None:
    return 1 if number == -1 else _between(0, 1)(number)


def _service(number: int) -> int | None:
    return number & 0xFC  # The lowest two bits are TCP's own.


def _traffic_class(number: int) -> int | None:
    if not -1 <= number <= 255:
        return None
    return max(number, 0) & 0xFC


_POSITIVE: Final = _between(1, _INT_MAX)

OPTIONS: Final[Mapping[tuple[int, int], Option]] = MappingProxyType(
    {
        (SOL_SOCKET, 2): Option(_yes),
        (SOL_SOCKET, 7): Option(_buffer(4608), 16384, 212992),
        (SOL_SOCKET, RECEIVE_BUFFER): Option(_buffer(2304), 131072, 212992),
        (SOL_SOCKET, 9): Option(_yes),
        (SOL_SOCKET, 12): Option(_any),
        (SOL_SOCKET, 15): Option(_yes),
        (SOL_SOCKET, RECEIVE_AT_LEAST): Option(_received, 1),
        (SOL_SOCKET, 36): Option(_any),
        (SOL_SOCKET, 47): Option(_any, -1),
        (SOL_SOCKET, BOUND_DEVICE): Option(_between(0, _INT_MAX)),
        (SOL_SOCKET, REHASH): Option(_rehash, 1),
        (SOL_SOCKET, 1009): Option(_between(0, 1)),
        (SOL_TCP, 1): Option(_yes),
        (SOL_TCP, 2): Option(_segment, 536),
        (SOL_TCP, 4): Option(_between(1, 32767), 7200),
        (SOL_TCP, 5): Option(_between(1, 32767), 75),
        (SOL_TCP, 6): Option(_between(1, 127), 9),
        (SOL_TCP, 7): Option(_between(1, 127), 6),
        (SOL_TCP, 10): Option(_window),
        (SOL_TCP, 16): Option(_between(0, 1)),
        (SOL_TCP, 18): Option(_between(0, _INT_MAX)),
        (SOL_TCP, 25): Option(_any),
        (SOL_TCP, 27): Option(_between(0, 2)),
        (SOL_TCP, 44): Option(_between(1000, 120000), 120000),
        (SOL_TCP, 1001): Option(_POSITIVE, None),
        (SOL_TCP, 1002): Option(_POSITIVE, None),
        (SOL_TCP, 1003): Option(_time, 200000),
        (SOL_TCP, 1004): Option(_time, 200000),
        (SOL_TCP, CALLBACK_FLAGS): Option(_between(0, ALL_CALLBACKS)),
        (SOL_IP, SERVICE): Option(_service),
        (SOL_IPV6, 67): Option(_traffic_class),
        (SOL_IPV6, 70): Option(_yes, 1),
    }
)
"""(level, option) -> those that are a number of four bytes."""
