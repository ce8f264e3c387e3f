"""Perf event arrays of the kernel: a software event for each CPU, and the samples that programs write into it.

Source: perf_event_open(2); include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import struct
from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from simulator.engines.bpf_syscall import BpfError, Handle

_SYSCALL_NUMBERS: Final = MappingProxyType(
    {"x86_64": 298, "aarch64": 241, "riscv64": 241, "loongarch64": 241, "ppc64le": 319, "s390x": 331}
)
_SOFTWARE, _BPF_OUTPUT, _SAMPLE_RAW = 1, 10, 1 << 10
_CLOSE_ON_EXEC = 8
_IOC_ENABLE = 0x2400
_RECORD_SAMPLE = 9
_ATTRIBUTE_SIZE = 64
_HEAD_OFFSET, _TAIL_OFFSET = 1024, 1032
_DATA_PAGES = 64

_libc = ctypes.CDLL(None, use_errno=True)


class SampleReader:
    """The reader of one CPU's samples; its event is what goes into the array at the CPU's index."""

    def __init__(self, cpu: int) -> None:
        self.handle = Handle(_open(cpu))
        self._size = _DATA_PAGES * mmap.PAGESIZE
        self._memory = mmap.mmap(self.handle.fd, mmap.PAGESIZE + self._size)
        fcntl.ioctl(self.handle.fd, _IOC_ENABLE, 0)

    def read(self) -> Iterator[bytes]:
        """Takes the samples that came since, as a reader sees them: filled up to four less than a multiple of eight."""
        (head,) = struct.unpack_from("<Q", self._memory, _HEAD_OFFSET)
        (tail,) = struct.unpack_from("<Q", self._memory, _TAIL_OFFSET)
        while tail < head:
            kind, _, size = struct.unpack("<IHH", self._bytes(tail, 8))
            if kind == _RECORD_SAMPLE:
                (length,) = struct.unpack("<I", self._bytes(tail + 8, 4))
                yield self._bytes(tail + 12, length)
            tail += size
        struct.pack_into("<Q", self._memory, _TAIL_OFFSET, tail)

    @property
    def worn(self) -> bool:
        """Whether half of the ring was written. What fills a sample up is what the ring held there before, so that a
        reader is better replaced before it starts again at its beginning."""
        return bool(struct.unpack_from("<Q", self._memory, _HEAD_OFFSET)[0] > self._size // 2)

    def close(self) -> None:
        """Lets go of event and memory."""
        self._memory.close()
        self.handle.close()

    def _bytes(self, position: int, count: int) -> bytes:
        """Bytes of the ring, which goes on at its start behind its end."""
        at = position % self._size
        first = self._memory[mmap.PAGESIZE + at : mmap.PAGESIZE + min(at + count, self._size)]
        return first + self._memory[mmap.PAGESIZE : mmap.PAGESIZE + count - len(first)]


def _open(cpu: int) -> int:
    attribute = struct.pack("<IIQQQQQI", _SOFTWARE, _ATTRIBUTE_SIZE, _BPF_OUTPUT, 1, _SAMPLE_RAW, 0, 0, 1)
    block = ctypes.create_string_buffer(attribute.ljust(_ATTRIBUTE_SIZE, b"\0"), _ATTRIBUTE_SIZE)
    number = _SYSCALL_NUMBERS.get(platform.machine(), -1)
    fd: int = _libc.syscall(number, ctypes.byref(block), -1, cpu, -1, ctypes.c_ulong(_CLOSE_ON_EXEC))
    if fd < 0:
        raise BpfError(ctypes.get_errno(), "perf_event_open", f"CPU {cpu}")
    os.set_inheritable(fd, False)
    return fd
