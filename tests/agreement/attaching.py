"""Programs that the kernel has no test run for, run by what they are attached to: a cgroup, a map of sockets.

The process moves into a cgroup of its own below the unified hierarchy, makes sockets talk over the loopback device or
reads and writes a system control, and looks at the map that the program left its answers in.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from simulator.engines import bpf_syscall
from simulator.engines.bpf_syscall import SYSCALL_NUMBERS
from simulator.engines.kernel_load import Resources, program_request
from simulator.program import Program

_ATTACH, _DETACH = 8, 9
_UNIFIED: Final = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
ATTACH_TYPES: Final = {
    "cgroup_sock_ops": 3, "sk_msg_verdict": 7, "cgroup_inet4_connect": 10, "cgroup_inet6_connect": 11,
    "cgroup_sysctl": 18, "cgroup_getsockopt": 21, "cgroup_setsockopt": 22, "cgroup_inet4_post_bind": 12,
    "cgroup_udp4_sendmsg": 14,
}  # fmt: skip


def _bpf(command: int, attributes: bytes) -> None:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(SYSCALL_NUMBERS[os.uname().machine], command, buffer, len(attributes)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def unified() -> Path | None:
    """The mounted hierarchy of cgroup v2, None where there is none that can be written."""
    return next((path for path in _UNIFIED if (path / "cgroup.procs").exists() and os.access(path, os.W_OK)), None)


@contextmanager
def own_cgroup() -> Iterator[int]:
    """This process in a cgroup of its own: its descriptor."""
    above = unified()
    assert above is not None
    before = next(line[3:].strip() for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::")
    path = Path(tempfile.mkdtemp(prefix="asked", dir=above))
    (path / "cgroup.procs").write_text(str(os.getpid()))
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)
        (above / before.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))
        path.rmdir()


@contextmanager
def attached(
    program: Program, target: int | None = None, at: int = 0, prepared: Callable[[Resources], Any] | None = None
) -> Iterator[Resources]:
    """A program loaded with its maps and attached to a descriptor; None for its map number `at`."""
    with Resources() as kit, ExitStack() as stack:
        if prepared is not None:
            prepared(kit)
        loaded = kit.keep(bpf_syscall.prog_load(program_request(program, kit)).handle)
        fd = kit.maps[at].fd if target is None else target
        attributes = struct.pack("<IIII", fd, loaded.fd, ATTACH_TYPES[program.attach_type], 0).ljust(32, b"\0")
        _bpf(_ATTACH, attributes)
        stack.callback(_bpf, _DETACH, attributes)
        yield kit


def value(kit: Resources, index: int, size: int) -> bytes:
    """What the program's map has under 0."""
    found = bpf_syscall.map_lookup(kit.maps[index].fd, bytes(4), size)
    assert found is not None
    return found


def connection(family: int = socket.AF_INET) -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over the loopback device: the one that connected first."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family) as listening:
        listening.bind((host, 0))
        listening.listen(1)
        one = socket.socket(family)
        one.connect(listening.getsockname())
        other, _ = listening.accept()
    return one, other


def refused_connection(family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> int:
    """The error of a connection to where nobody listens."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family, kind) as one:
        return one.connect_ex((host, 1))


def written(control: str, text: bytes) -> int:
    """The error of writing a system control, 0 for none."""
    fd = os.open(f"/proc/sys/{control}", os.O_WRONLY)
    try:
        os.write(fd, text)
    except OSError as error:
        return error.errno or errno.EINVAL
    finally:
        os.close(fd)
    return 0


def sent(pieces: Sequence[bytes], one: Any) -> None:
    """Sends bytes, each piece by itself."""
    for piece in pieces:
        one.send(piece)
