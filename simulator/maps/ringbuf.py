"""Ring buffers: records that programs reserve and submit, and that readers take in order.

Accounting is the kernel's: a header of eight bytes before each record, positions that only grow, and a reservation
that fails where the record would run into what no reader has taken yet. Each record has memory of its own, so that
a program's bounds are the record's.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from simulator.maps import base
from simulator.maps.base import Map, round_up
from simulator.memory import Memory, Region
from simulator.program import MapDef

HEADER = 8
_MAX_RECORD = (1 << 30) - 1
_PAGE = 4096

AVAIL_DATA, RING_SIZE, CONS_POS, PROD_POS, OVERWRITE_POS = range(5)
"""What bpf_ringbuf_query may ask for."""


@dataclass(slots=True)
class Record:
    """A record: busy until it is submitted (then `data` is final) or discarded."""

    region: Region
    length: int
    end: int
    busy: bool = True
    discarded: bool = False
    data: bytes = field(default=b"")


class RingBuffer(Map):
    """A ring buffer. `read` takes the records that are ready, as a reader in user space does."""

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        super().__init__(definition, memory, cpus)
        made = definition
        size = made.max_entries
        if made.flags & ~base.F_NUMA_NODE or made.key_size or made.value_size:
            base.fail(errno.EINVAL, f"ringbuf map {made.name!r} has no key, no value and no flags")
        if not size or size & (size - 1) or size % _PAGE:
            base.fail(errno.EINVAL, f"ringbuf map {made.name!r}: a power of two of bytes, in whole pages, not {size}")
        self._memory = memory
        self._records: list[Record] = []
        self.produced = 0
        self.consumed = 0
        self.full = False
        """Set by a test that wants no record to fit any more."""

    # The program's side.

    def reserve(self, size: int) -> int:
        """The address of a new record of `size` bytes, 0 where it does not fit."""
        if size > _MAX_RECORD or self.full:
            return 0
        length = round_up(size + HEADER, 8)
        if length > self.definition.max_entries:
            return 0
        end = self.produced + length
        if end - self.consumed > self.definition.max_entries - 1:
            return 0
        region = self._memory.allocate(f"ring buffer {self.name} record", size)
        self.produced = end
        self._records.append(Record(region, size, end))
        return region.base

    def commit(self, address: int, discard: bool) -> bool:
        """Submits or discards the record at `address`. Whether there was one."""
        for record in self._records:
            if record.busy and record.region.base == address:
                record.busy, record.discarded = False, discard
                record.data = bytes(record.region.view)
                self._memory.free(record.region)
                return True
        return False

    def output(self, data: bytes) -> int:
        """Reserves, copies and submits: 0, or -EAGAIN where it does not fit."""
        address = self.reserve(len(data))
        if not address:
            return -errno.EAGAIN
        self._memory.write(address, data)
        self.commit(address, discard=False)
        return 0

    def query(self, what: int) -> int:
        """A position or size, by its number; 0 for an unknown one."""
        answers = {
            AVAIL_DATA: self.produced - self.consumed,
            RING_SIZE: self.definition.max_entries,
            CONS_POS: self.consumed,
            PROD_POS: self.produced,
        }
        return answers.get(what, 0)

    # The reader's side.

    def read(self) -> list[bytes]:
        """Takes the records that were submitted, in the order of their reservation, up to the first busy one."""
        taken = []
        while self._records and not self._records[0].busy:
            record = self._records.pop(0)
            self.consumed = record.end
            if not record.discarded:
                taken.append(record.data)
        return taken

    @property
    def records(self) -> list[bytes]:
        """The records that `read` would take, without taking them."""
        ready = []
        for record in self._records:
            if record.busy:
                break
            if not record.discarded:
                ready.append(record.data)
        return ready

    def lookup(self, key: bytes) -> bytes | None:
        """Refused: EINVAL, there are no keys."""
        raise base.MapError(errno.EINVAL, "a ringbuf map has no lookup")

    def delete(self, key: bytes) -> None:
        """Refused as well."""
        self._done(-errno.EINVAL, "delete")

    def __iter__(self) -> Iterator[Any]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)
