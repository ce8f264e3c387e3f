"""Kernel functions that programs call by name, as models of the machine and five arguments."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

from bpflisp.spec.alu import M32, M64, signed
from simulator import dynptrs
from simulator.dynptrs import SKB, XDP, Dynptr
from simulator.helpers.packet import data_of
from simulator.machine import HelperFault, Machine, Thrown

Model = Callable[[Machine, int, int, int, int, int], int]
MODELS: dict[str, Model] = {}

_MAX_LOOPS = 1 << 23
_MAX_WORDS = 511
_NUMBERS = struct.Struct("<ii")


def models(*names: str) -> Callable[[Model], Model]:
    """Registers a function as the model of these kernel functions."""

    def register(function: Model) -> Model:
        for name in names:
            MODELS[name] = function
        return function

    return register


def call(machine: Machine, name: str, arguments: tuple[int, ...]) -> int:
    """r0 of a call. A fault where there is no model."""
    model = MODELS.get(name)
    if model is None:
        raise HelperFault(f"the kernel function {name} is not modelled")
    a, b, c, d, e = arguments
    return model(machine, a, b, c, d, e) & M64


@models(
    "bpf_rcu_read_lock", "bpf_rcu_read_unlock", "bpf_preempt_disable", "bpf_preempt_enable", "bpf_local_irq_save",
    "bpf_local_irq_restore",
)  # fmt: skip
def nothing(machine: Machine, *_: int) -> int:
    """Keeps others out: one program runs at a time."""
    return 0


@models("bpf_throw")
def throw(machine: Machine, cookie: int, *_: int) -> int:
    """Ends the program: its value is the cookie."""
    raise Thrown(cookie)


# Dynptrs.


def _over_packet(machine: Machine, kind: int, flags: int, to: int) -> int:
    if flags:
        dynptrs.write(machine, to, None)
        return -errno.EINVAL
    assert machine.program is not None
    read_only = kind == SKB and machine.program.type in ("socket_filter", "cgroup_skb", "lwt_in", "lwt_out")
    dynptrs.write(machine, to, Dynptr(1, kind, len(data_of(machine)), 0, read_only))
    return 0


@models("bpf_dynptr_from_skb")
def dynptr_from_skb(machine: Machine, context: int, flags: int, to: int, *_: int) -> int:
    """A dynptr over a socket buffer."""
    return _over_packet(machine, SKB, flags, to)


@models("bpf_dynptr_from_xdp")
def dynptr_from_xdp(machine: Machine, context: int, flags: int, to: int, *_: int) -> int:
    """A dynptr over an XDP frame."""
    return _over_packet(machine, XDP, flags, to)


@models("bpf_dynptr_slice", "bpf_dynptr_slice_rdwr")
def dynptr_slice(machine: Machine, at: int, offset: int, buffer: int, size: int, *_: int) -> int:
    """The address of bytes of a dynptr, 0 where they are not all in it."""
    found, offset, size = dynptrs.read(machine, at), offset & M32, size & M32
    if found is None or found.misfit(offset, size):
        return 0
    return found.address(machine, offset)


@models("bpf_dynptr_size")
def dynptr_size(machine: Machine, at: int, *_: int) -> int:
    """Its bytes; EINVAL for a null one."""
    found = dynptrs.read(machine, at)
    return -errno.EINVAL if found is None else found.size


@models("bpf_dynptr_is_null")
def dynptr_is_null(machine: Machine, at: int, *_: int) -> int:
    """Whether it is a null one."""
    return int(dynptrs.read(machine, at) is None)


@models("bpf_dynptr_is_rdonly")
def dynptr_is_rdonly(machine: Machine, at: int, *_: int) -> int:
    """Whether it is read-only; not for a null one."""
    found = dynptrs.read(machine, at)
    return int(found is not None and found.read_only)


@models("bpf_dynptr_adjust")
def dynptr_adjust(machine: Machine, at: int, start: int, end: int, *_: int) -> int:
    """Narrows it to the bytes from start to end: EINVAL or ERANGE where that is not inside."""
    found, start, end = dynptrs.read(machine, at), start & M32, end & M32
    if found is None or start > end:
        return -errno.EINVAL
    if start > found.size or end > found.size:
        return -errno.ERANGE
    found.offset, found.size = found.offset + start, end - start
    dynptrs.write(machine, at, found)
    return 0


@models("bpf_dynptr_clone")
def dynptr_clone(machine: Machine, at: int, to: int, *_: int) -> int:
    """A second one over the same bytes; a null one with EINVAL of a null one."""
    found = dynptrs.read(machine, at)
    dynptrs.write(machine, to, found)
    return -errno.EINVAL if found is None else 0


@models("bpf_dynptr_copy")
def dynptr_copy(machine: Machine, to: int, to_offset: int, source: int, offset: int, size: int) -> int:
    """Copies from one to another."""
    target, found, size = dynptrs.read(machine, to), dynptrs.read(machine, source), size & M32
    if target is None or found is None or target.read_only:
        return -errno.EINVAL
    wrong = target.misfit(to_offset & M32, size) or found.misfit(offset & M32, size)
    if not wrong:
        data = machine.read(found.address(machine, offset & M32), size)
        machine.write(target.address(machine, to_offset & M32), data)
    return wrong


@models("bpf_dynptr_memset")
def dynptr_memset(machine: Machine, at: int, offset: int, size: int, value: int, *_: int) -> int:
    """Fills bytes of it with one value."""
    found, offset, size = dynptrs.read(machine, at), offset & M32, size & M32
    if found is None or found.read_only:
        return -errno.EINVAL
    wrong = found.misfit(offset, size)
    if not wrong:
        machine.write(found.address(machine, offset), bytes([value & 0xFF]) * size)
    return wrong


# Iterators.


@models("bpf_iter_num_new")
def iter_num_new(machine: Machine, at: int, start: int, end: int, *_: int) -> int:
    """Begins to count: EINVAL where start is beyond end, E2BIG for more than 8 million numbers."""
    first, last = signed(start, 32), signed(end, 32)
    wrong = -errno.EINVAL if first > last else -errno.E2BIG if last - first > _MAX_LOOPS else 0
    machine.write(at, bytes(8) if wrong else _NUMBERS.pack(signed(first - 1, 32), last))
    return wrong


@models("bpf_iter_num_next")
def iter_num_next(machine: Machine, at: int, *_: int) -> int:
    """The address of the next number, 0 after the last."""
    current, end = _NUMBERS.unpack(machine.read(at, 8))
    if current + 1 >= end:
        machine.write(at, bytes(8))
        return 0
    machine.write(at, _NUMBERS.pack(current + 1, end))
    return at


@models("bpf_iter_num_destroy")
def iter_num_destroy(machine: Machine, at: int, *_: int) -> int:
    """Ends it."""
    machine.write(at, bytes(8))
    return 0


@models("bpf_iter_bits_new")
def iter_bits_new(machine: Machine, at: int, words: int, count: int, *_: int) -> int:
    """Begins to go through the bits of words in kernel memory: EINVAL for none, E2BIG for over 511, EFAULT."""
    count &= M32
    machine.write(at, bytes(16))
    machine.bits.pop(at, None)
    if not words or not count:
        return -errno.EINVAL
    if count > _MAX_WORDS:
        return -errno.E2BIG
    data = machine.world.kernel_memory.read(machine.memory, words, count * 8)
    if data is None:
        return -errno.EFAULT
    number = int.from_bytes(data, "little")
    machine.bits[at] = [index for index in range(count * 64 - 1, -1, -1) if number >> index & 1]
    return 0


@models("bpf_iter_bits_next")
def iter_bits_next(machine: Machine, at: int, *_: int) -> int:
    """The address of the next bit's number, 0 after the last."""
    left = machine.bits.get(at)
    if not left:
        return 0
    machine.write(at + 8, left.pop().to_bytes(4, "little"))
    return at + 8


@models("bpf_iter_bits_destroy")
def iter_bits_destroy(machine: Machine, at: int, *_: int) -> int:
    """Ends it."""
    machine.bits.pop(at, None)
    return 0
