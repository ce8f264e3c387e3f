"""bpf(2), thin and typed, by ctypes: numbers and bytes in, numbers and bytes out.

Invariant: nothing here knows programs or maps of the simulator; a call either answers or raises `BpfError` with the
kernel's errno. Every attribute block is zero-filled to the size that its command needs, for the kernel refuses any set
byte that it does not know.

Source: include/uapi/linux/bpf.h (`union bpf_attr`) and bpf(2).
"""

from __future__ import annotations

import ctypes
import errno as errno_names
import mmap
import os
import platform
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType, TracebackType
from typing import Final, NamedTuple

SYSCALL_NUMBERS: Final = MappingProxyType(
    {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361, "s390x": 351}
)
"""Machine, as `platform.machine` names it -> the number of bpf(2) there."""

ENOTSUPP: Final = 524
"""The kernel's own "not supported", which C libraries have no name for."""

NAME_LENGTH: Final = 15
"""Characters of a map's or program's name that the kernel keeps."""

ANY, NOEXIST, EXIST, LOCK = 0, 1, 2, 4

PROG_FLAG_STRICT_ALIGNMENT, PROG_FLAG_ANY_ALIGNMENT = 1, 2

FIRST_LOG_SIZE: Final = 1 << 16
LARGEST_LOG_SIZE: Final = 1 << 28


class Command(IntEnum):
    """The commands of bpf(2) that are used here."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    PROG_TEST_RUN = 10
    OBJ_GET_INFO_BY_FD = 15
    BTF_LOAD = 18
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_FREEZE = 22
    MAP_LOOKUP_BATCH = 24
    PROG_BIND_MAP = 35


class BpfError(OSError):
    """The kernel refused a command of bpf(2).

    `errno` is its error number, `command` what was asked, `log` what the verifier or the BTF checker wrote about it.
    """

    def __init__(self, number: int, command: str, detail: str = "") -> None:
        self.command = command
        self.log = ""
        why = "not supported (ENOTSUPP)" if number == ENOTSUPP else os.strerror(number)
        text = f"{command}: {why}" + (f" ({detail})" if detail else "")
        super().__init__(number, text)

    @property
    def name(self) -> str:
        """The error by its name, "EINVAL"; its number where it has none."""
        number = self.errno or 0
        return "ENOTSUPP" if number == ENOTSUPP else errno_names.errorcode.get(number, str(number))


class Handle:
    """A file descriptor of the kernel's, closed with the `with` block or with the last reference to it."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Closes it; closing twice is harmless."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Loaded(NamedTuple):
    """A program that the verifier accepted, with what it wrote."""

    handle: Handle
    log: str


class Ran(NamedTuple):
    """One answer of BPF_PROG_TEST_RUN: 32 bits of r0, the data and context after it, the mean duration in ns."""

    retval: int
    data: bytes
    context: bytes
    duration: int


@dataclass(frozen=True, slots=True)
class MapRequest:
    """The arguments of BPF_MAP_CREATE, numbers as the kernel has them; sizes in bytes."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    name: str = ""
    inner_fd: int = 0
    btf_fd: int = 0
    btf_key: int = 0
    btf_value: int = 0
    btf_vmlinux_value: int = 0
    extra: int = 0


@dataclass(frozen=True, slots=True)
class ProgramRequest:
    """The arguments of BPF_PROG_LOAD, numbers as the kernel has them; `func_info` and `line_info` as packed records."""

    type: int
    insns: bytes
    license: str = "GPL"
    name: str = ""
    flags: int = 0
    attach_type: int = 0
    btf_fd: int = 0
    func_info: bytes = b""
    func_info_record: int = 8
    line_info: bytes = b""
    line_info_record: int = 16
    attach_btf_id: int = 0
    attach_fd: int = 0
    fds: Sequence[int] = ()
    ifindex: int = 0


_libc = ctypes.CDLL(None, use_errno=True)


def _call(command: Command, attributes: bytes | bytearray, detail: str = "") -> tuple[int, bytearray]:
    """The call itself: its return value (not negative) and the attributes as the kernel left them.

    A bytearray is given to the kernel as it is, so that what it wrote there can be read after an error too.
    """
    block = attributes if isinstance(attributes, bytearray) else bytearray(attributes)
    number = SYSCALL_NUMBERS.get(platform.machine())
    if number is None:
        raise BpfError(errno_names.ENOSYS, command.name, f"its number on {platform.machine()} is not known here")
    view = (ctypes.c_char * len(block)).from_buffer(block)
    result: int = _libc.syscall(number, int(command), ctypes.byref(view), len(block))
    code = ctypes.get_errno()
    del view
    if result < 0:
        raise BpfError(code, command.name, detail)
    return result, block


def _address(buffer: ctypes.Array[ctypes.c_char] | None) -> int:
    return ctypes.addressof(buffer) if buffer is not None else 0


def _copy(data: bytes) -> ctypes.Array[ctypes.c_char] | None:
    """The bytes at an address that stays theirs while the result lives; None for no bytes."""
    return ctypes.create_string_buffer(data, len(data)) if data else None


def _name(name: str) -> bytes:
    """A name as the kernel takes one: at most 15 characters, the odd ones replaced."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_.") else "_" for c in name)
    return plain[:NAME_LENGTH].encode().ljust(NAME_LENGTH + 1, b"\0")


def available() -> tuple[bool, str]:
    """Whether bpf(2) can load programs here, and why not where it cannot ("" where it can).

    It is asked by creating the smallest map and loading `r0 = 0; exit`: a sandbox may allow the first alone.
    """
    if platform.system() != "Linux":
        return False, f"bpf(2) is Linux's, and this is {platform.system()}"
    try:
        map_create(MapRequest(type=2, key_size=4, value_size=4, max_entries=1)).close()
        minimal = bytes.fromhex("b7000000000000009500000000000000")
        prog_load(ProgramRequest(type=1, insns=minimal), log_level=0).handle.close()
    except BpfError as error:
        hint = "; it takes root, or CAP_BPF" if error.errno in (errno_names.EPERM, errno_names.EACCES) else ""
        return False, f"bpf(2) is refused: {error.strerror}{hint}"
    return True, ""


# ---- maps ------------------------------------------------------------------------------------------------------------


def map_create(request: MapRequest) -> Handle:
    """A new map. Raises BpfError."""
    r = request
    block = struct.pack(
        "<IIIIIII16sIIIIIQ",
        r.type, r.key_size, r.value_size, r.max_entries, r.flags, r.inner_fd, 0, _name(r.name), 0,
        r.btf_fd, r.btf_key, r.btf_value, r.btf_vmlinux_value, r.extra,
    )  # fmt: skip
    return Handle(_call(Command.MAP_CREATE, block, f"map {r.name!r} of type {r.type}" if r.name else "")[0])


def _element(command: Command, fd: int, key: bytes | None, value: int, flags: int) -> None:
    buffer = _copy(key) if key is not None else None
    _call(command, struct.pack("<IxxxxQQQ", fd, _address(buffer), value, flags))


def map_lookup(fd: int, key: bytes, value_size: int, flags: int = 0) -> bytes | None:
    """The value of a key, `value_size` bytes; None where the map has no such key.

    `value_size` counts what the kernel copies: for a per-CPU map each possible CPU's value rounded up to 8 bytes.
    """
    value = ctypes.create_string_buffer(max(value_size, 1))
    try:
        _element(Command.MAP_LOOKUP_ELEM, fd, key, ctypes.addressof(value), flags)
    except BpfError as error:
        if error.errno == errno_names.ENOENT:
            return None
        raise
    return value.raw[:value_size]


def map_update(fd: int, key: bytes | None, value: bytes, flags: int = ANY) -> None:
    """Sets a key; `key` None for queues and stacks. Raises BpfError (E2BIG: full, EEXIST, ENOENT by the flags)."""
    buffer = _copy(value)
    _element(Command.MAP_UPDATE_ELEM, fd, key, _address(buffer), flags)


def map_delete(fd: int, key: bytes) -> None:
    """Removes a key. Raises BpfError with ENOENT where it is not there."""
    _element(Command.MAP_DELETE_ELEM, fd, key, 0, 0)


def map_take(fd: int, key: bytes | None, value_size: int, flags: int = 0) -> bytes | None:
    """Reads and removes a key, or the next value of a queue or stack (`key` None); None where there is none."""
    value = ctypes.create_string_buffer(max(value_size, 1))
    try:
        _element(Command.MAP_LOOKUP_AND_DELETE_ELEM, fd, key, ctypes.addressof(value), flags)
    except BpfError as error:
        if error.errno == errno_names.ENOENT:
            return None
        raise
    return value.raw[:value_size]


def map_next_key(fd: int, key: bytes | None, key_size: int) -> bytes | None:
    """The key after `key`, the first one for None; None after the last."""
    following = ctypes.create_string_buffer(max(key_size, 1))
    try:
        _element(Command.MAP_GET_NEXT_KEY, fd, key, ctypes.addressof(following), 0)
    except BpfError as error:
        if error.errno == errno_names.ENOENT:
            return None
        raise
    return following.raw[:key_size]


def map_keys(fd: int, key_size: int) -> list[bytes]:
    """Every key, in the kernel's order. Nothing else may write the map meanwhile."""
    keys = []
    key = map_next_key(fd, None, key_size)
    while key is not None:
        keys.append(key)
        key = map_next_key(fd, key, key_size)
    return keys


def map_dump(fd: int, key_size: int, value_size: int, expected: int = 0) -> dict[bytes, bytes]:
    """Every key and its value, `value_size` as `map_lookup` counts it. Nothing else may write the map meanwhile.

    A few calls where the map type has batches, else one or two for each key. `expected` is how many keys there may be:
    a batch has room for so many and some more.
    """
    room = 64 + expected + expected // 4
    while True:
        try:
            return _lookup_batches(fd, key_size, value_size, room)
        except BpfError as error:
            # ENOSPC: one bucket of a hash has more keys than there was room for.
            if error.errno == errno_names.ENOSPC:
                room *= 4
            elif error.errno in (errno_names.EINVAL, ENOTSUPP, errno_names.EOPNOTSUPP):
                break
            else:
                raise
    values = ((key, map_lookup(fd, key, value_size)) for key in map_keys(fd, key_size))
    return {key: value for key, value in values if value is not None}


def _lookup_batches(fd: int, key_size: int, value_size: int, room: int) -> dict[bytes, bytes]:
    keys, values = ctypes.create_string_buffer(room * key_size), ctypes.create_string_buffer(room * value_size)
    position = ctypes.create_string_buffer(max(key_size, 8))
    found: dict[bytes, bytes] = {}
    started = last = False
    while not last:
        where = ctypes.addressof(position)
        buffers = (ctypes.addressof(keys), ctypes.addressof(values))
        block = bytearray(struct.pack("<QQQQIIQQ", where if started else 0, where, *buffers, room, fd, 0, 0))
        try:
            _call(Command.MAP_LOOKUP_BATCH, block)
        except BpfError as error:
            # ENOENT says that these were the last; how many they are is told all the same.
            if error.errno != errno_names.ENOENT:
                raise
            last = True
        (count,) = struct.unpack_from("<I", block, 32)
        key_bytes, value_bytes = keys.raw, values.raw
        for at in range(count):
            key = key_bytes[at * key_size : (at + 1) * key_size]
            found[key] = value_bytes[at * value_size : (at + 1) * value_size]
        started, last = True, last or not count
    return found


def map_freeze(fd: int) -> None:
    """Forbids user space to write the map from now on."""
    _call(Command.MAP_FREEZE, struct.pack("<IxxxxQQQ", fd, 0, 0, 0))


def map_mmap(fd: int, length: int, *, writable: bool, offset: int = 0) -> mmap.mmap:
    """A map's memory: a ring buffer, an arena, or an array with BPF_F_MMAPABLE. `length` and `offset` in bytes."""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return mmap.mmap(fd, length, mmap.MAP_SHARED, protection, offset=offset)


# ---- programs --------------------------------------------------------------------------------------------------------


def map_mmap_at(fd: int, address: int, length: int, data: bytes) -> Callable[[], None]:
    """Maps a map's memory at an address of its own, as an arena wants it, and writes to its beginning. Returns what
    takes the mapping away."""
    shared, fixed = mmap.MAP_SHARED, 0x10
    _libc.mmap.restype = ctypes.c_void_p
    _libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    _libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    if _libc.mmap(address, length, mmap.PROT_READ | mmap.PROT_WRITE, shared | fixed, fd, 0) != address:
        number = ctypes.get_errno()
        raise OSError(number, f"mmap at {address:#x}: {os.strerror(number)}")
    ctypes.memmove(address, data, len(data))
    return lambda: _libc.munmap(address, length)


def prog_load(request: ProgramRequest, log_level: int = 1, log_limit: int = LARGEST_LOG_SIZE) -> Loaded:
    """Gives a program to the verifier. Raises BpfError with the whole log in `.log`.

    The log buffer grows until the log fits: the kernel answers ENOSPC for one that is too small. Above `log_limit`
    bytes that ENOSPC is raised, with the end of the log.
    """
    size = FIRST_LOG_SIZE
    while True:
        try:
            return _load_once(request, log_level, size)
        except BpfError as error:
            if error.errno != errno_names.ENOSPC or not log_level or size >= log_limit:
                raise
        size = min(size * 8, log_limit)


def _load_once(request: ProgramRequest, log_level: int, log_size: int) -> Loaded:
    r = request
    insns, license_text = _copy(r.insns), _copy(r.license.encode() + b"\0")
    log = ctypes.create_string_buffer(log_size) if log_level else None
    func_info, line_info = _copy(r.func_info), _copy(r.line_info)
    fds = _copy(struct.pack(f"<{len(r.fds)}i", *r.fds)) if r.fds else None
    block = struct.pack(
        "<IIQQIIQIi16sIIIIQIIQIIIIQ",
        r.type, len(r.insns) // 8, _address(insns), _address(license_text),
        log_level, log_size if log_level else 0, _address(log), 0, r.flags, _name(r.name), r.ifindex, r.attach_type,
        r.btf_fd, r.func_info_record if r.func_info else 0, _address(func_info),
        len(r.func_info) // r.func_info_record if r.func_info else 0, r.line_info_record if r.line_info else 0,
        _address(line_info), len(r.line_info) // r.line_info_record if r.line_info else 0,
        r.attach_btf_id, r.attach_fd, 0, _address(fds),
    )  # fmt: skip
    try:
        fd, _ = _call(Command.PROG_LOAD, block)
    except BpfError as error:
        error.log = _text(log)
        raise
    return Loaded(Handle(fd), _text(log))


def _text(log: ctypes.Array[ctypes.c_char] | None) -> str:
    return log.value.decode(errors="replace") if log is not None else ""


def prog_test_run(
    fd: int,
    data: bytes | None = None,
    context: bytes | None = None,
    *,
    repeat: int = 1,
    flags: int = 0,
    cpu: int = 0,
    data_out: int | None = None,
    context_out: bool = True,
) -> Ran:
    """Runs a loaded program. `data_out` is the room for the packet after the run, in bytes: by default 4 KiB to grow.

    `context_out` asks for the context after the run; raw tracepoints refuse to give one.

    Raises BpfError: EINVAL for a packet under 14 bytes or a context that the program type does not take, ENOTSUPP (524)
    for a program type that cannot be run.
    """
    data_in, context_in = _copy(data or b""), _copy(context or b"")
    room = (len(data) + 4096 if data_out is None else data_out) if data is not None else 0
    out = ctypes.create_string_buffer(room) if room else None
    length = len(context) if context else 0
    length_out = length if context_out else 0
    context_after = ctypes.create_string_buffer(length_out) if length_out else None
    block = struct.pack(
        "<IIIIQQIIIIQQIII",
        fd, 0, len(data) if data else 0, room, _address(data_in), _address(out), repeat, 0, length, length_out,
        _address(context_in), _address(context_after), flags, cpu, 0,
    )  # fmt: skip
    _, after = _call(Command.PROG_TEST_RUN, block + bytes(-len(block) % 8))
    retval, _, size_out = struct.unpack_from("<III", after, 4)
    duration, _, context_size = struct.unpack_from("<III", after, 36)
    return Ran(
        retval,
        out.raw[: min(size_out, room)] if out is not None else b"",
        context_after.raw[: min(context_size, length)] if context_after is not None else b"",
        duration,
    )


# ---- BTF and information ---------------------------------------------------------------------------------------------


def btf_load(data: bytes) -> Handle:
    """Gives BTF to the kernel. Raises BpfError with the checker's log where it refuses."""
    buffer = _copy(data)
    try:
        fd, _ = _call(Command.BTF_LOAD, struct.pack("<QQIIIIII", _address(buffer), 0, len(data), 0, 0, 0, 0, 0))
    except BpfError:
        log = ctypes.create_string_buffer(FIRST_LOG_SIZE)
        block = struct.pack("<QQIIIIII", _address(buffer), _address(log), len(data), FIRST_LOG_SIZE, 1, 0, 0, 0)
        try:
            fd, _ = _call(Command.BTF_LOAD, block)
        except BpfError as error:
            error.log = _text(log)
            raise
    return Handle(fd)


def object_info(fd: int, size: int = 256) -> bytes:
    """What the kernel tells of a map, program or BTF: `struct bpf_*_info`, at most `size` bytes."""
    buffer = ctypes.create_string_buffer(size)
    _, after = _call(Command.OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", fd, size, ctypes.addressof(buffer)))
    return buffer.raw[: struct.unpack_from("<I", after, 4)[0]]


def possible_cpus() -> int:
    """How many CPUs the kernel keeps per-CPU values for: "0-3" or "0,2-3" in sysfs."""
    with open("/sys/devices/system/cpu/possible") as text:
        spans = [span.split("-") for span in text.read().strip().split(",")]
    return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)
