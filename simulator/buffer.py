"""What the kernel's socket buffer has beside the packet's bytes and the fields that programs see.

Invariant: it is of one run. Helpers change it, and what later helpers answer depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass

_ROOM_STEP = 64
"""Bytes, NET_SKB_PAD of the kernel: a buffer that is moved for want of room at its head gets a multiple more."""

_NOWHERE = 0xFFFF
"""The offset of a transport header that is not known."""


@dataclass(slots=True)
class Buffer:
    """One packet's. `headroom` is in bytes: what the packet may grow by at its head without being moved."""

    headroom: int = 0
    link_length: int = 0
    """What it has as the link header's length: 0 until a helper sets it."""
    encapsulated: bool = False
    """Whether a helper put another network header in front of the packet's own."""
    tunnel: tuple[bytes, int] | None = None
    """The struct bpf_tunnel_key that the program has set, and the flags with it."""
    checked: int | None = None
    """The level up to which checksums count as verified, None for none at all."""
    segments_known: bool = False
    """Whether it says what its segments are of, at least that a program has changed them."""
    pieces: tuple[int, ...] = ()
    """The lengths of the pieces that a message is in, of which a program sees the first."""
    transport: int = _NOWHERE
    """Where its transport header is, counted from the room's beginning."""

    def grow(self, size: int) -> None:
        """The packet becomes longer by so many bytes at its head.

        Where there is not the room for it the kernel moves the buffer, and with it the transport header, also if it is
        not known where that is: it then seems to be somewhere.
        """
        if size > self.headroom:
            more = -(-(size - self.headroom) // _ROOM_STEP) * _ROOM_STEP
            self.headroom += more
            self.transport = (self.transport + more) & 0xFFFF
        self.headroom -= size

    def shrink(self, size: int) -> None:
        """The packet becomes shorter by so many bytes at its head."""
        self.headroom += size

    def least(self, network: int) -> int:
        """Bytes that the packet is not cut below: up to its network header, or to the transport header."""
        transport = self.transport - self.headroom
        if self.transport != _NOWHERE and transport > 0:
            return transport
        return max(0, network)

    def count_checked(self) -> None:
        """One more checksum is verified; three levels at most are counted beyond the first."""
        self.checked = 0 if self.checked is None else min(self.checked + 1, 3)

    def discount_checked(self) -> None:
        """One checksum less."""
        if self.checked is not None:
            self.checked = self.checked - 1 if self.checked else None
