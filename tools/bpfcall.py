"""BPF_PROG_LOAD and BPF_MAP_CREATE of the running kernel, for the probes of this folder: ctypes and nothing else."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

_SYSCALL_BPF = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _PROG_LOAD = 0, 5
_LIBC = ctypes.CDLL(None, use_errno=True)
_ATTR_SIZE = 160


@dataclass(frozen=True, slots=True)
class Answer:
    """What the kernel said: 0 or the errno, and the verifier's log."""

    errno: int
    log: str

    @property
    def accepted(self) -> bool:
        """Whether the program was loaded."""
        return self.errno == 0

    @property
    def message(self) -> str:
        """The last line of the log that is neither statistics nor a state."""
        lines = [line for line in self.log.splitlines() if line and not line.startswith(("processed ", "verification"))]
        return lines[-1] if lines else ""


def insn(opcode: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """One eight-byte slot."""
    return struct.pack("<BBhi", opcode, dst | src << 4, off, imm)


def mov(dst: int, imm: int) -> bytes:
    """`rN = imm`, 64 bits."""
    return insn(0xB7, dst, imm=imm)


EXIT = insn(0x95)


def _bpf(command: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr, len(attr))
    number = _SYSCALL_BPF[os.uname().machine]
    return int(_LIBC.syscall(number, command, buffer, len(attr)))


def load(
    code: bytes,
    prog_type: int,
    attach_type: int = 0,
    *,
    flags: int = 0,
    license: str = "GPL",
    attach_btf_id: int = 0,
    attach_prog_fd: int = 0,
    level: int = 1,
    log_size: int = 1 << 16,
) -> Answer:
    """Loads a program and lets go of it at once."""
    log = ctypes.create_string_buffer(log_size)
    insns = ctypes.create_string_buffer(code, len(code))
    name = ctypes.create_string_buffer(license.encode())
    attr = struct.pack(
        "<IIQQIIQII16sIIIIQIIQII",
        prog_type, len(code) // 8, ctypes.addressof(insns), ctypes.addressof(name), level, log_size if level else 0,
        ctypes.addressof(log) if level else 0, 0, flags, b"probe", 0, attach_type, 0, 0, 0, 0, 0, 0, 0,
        attach_btf_id,
    ) + struct.pack("<I", attach_prog_fd)  # fmt: skip
    fd = _bpf(_PROG_LOAD, attr.ljust(_ATTR_SIZE, b"\0"))
    if fd < 0:
        return Answer(ctypes.get_errno(), log.value.decode(errors="replace"))
    os.close(fd)
    return Answer(0, log.value.decode(errors="replace"))


def create_map(map_type: int, key: int, value: int, entries: int, flags: int = 0, fields: Sequence[int] = ()) -> int:
    """0, or the errno that creating such a map came to; `fields` are the attribute's further 32-bit words."""
    attr = struct.pack("<IIIII", map_type, key, value, entries, flags) + struct.pack(f"<{len(fields)}I", *fields)
    fd = _bpf(_MAP_CREATE, attr.ljust(_ATTR_SIZE, b"\0"))
    if fd < 0:
        return ctypes.get_errno()
    os.close(fd)
    return 0


def permitted() -> bool:
    """Whether this process may load programs at all."""
    if os.uname().machine not in _SYSCALL_BPF:
        return False
    return load(mov(0, 0) + EXIT, 1, level=0).errno not in (errno.EPERM, errno.ENOSYS, errno.EACCES)
