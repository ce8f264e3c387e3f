"""Sockets of a world: what the lookup helpers find, and what programs read of them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bpflisp.spec.contexts import struct

if TYPE_CHECKING:
    from simulator.memory import Memory, Region

AF_INET, AF_INET6 = 2, 10
SOCK_STREAM, SOCK_DGRAM = 1, 2
TCP_ESTABLISHED, TCP_CLOSE, TCP_LISTEN = 1, 7, 10
_SOCK, _TCP = struct("bpf_sock"), struct("bpf_tcp_sock")


@dataclass(slots=True, eq=False)
class Socket:
    """A socket as helpers find it by its addresses, given as text, and ports in host order.

    `remote` "" and `remote_port` 0 are a listening or unconnected socket's. `kind` is "tcp" or "udp".
    """

    local: str
    local_port: int
    remote: str = ""
    remote_port: int = 0
    kind: str = "tcp"
    state: int = TCP_LISTEN
    mark: int = 0
    priority: int = 0
    bound_dev_if: int = 0
    cookie: int = 1
    tcp: dict[str, int] = field(default_factory=dict)
    """What bpf_tcp_sock tells of it, by the fields of struct bpf_tcp_sock: srtt_us, snd_cwnd, ..."""
    region: Region | None = field(default=None, repr=False)
    tcp_region: Region | None = field(default=None, repr=False)

    @property
    def address(self) -> int:
        """The address of its struct bpf_sock in programs; 0 before it is in a world."""
        return self.region.base if self.region is not None else 0

    @property
    def version(self) -> int:
        """Of the internet protocol: 4 or 6."""
        return ipaddress.ip_address(self.local).version

    @property
    def tcp_address(self) -> int:
        """The address of its struct bpf_tcp_sock; 0 before it is in a world."""
        return self.tcp_region.base if self.tcp_region is not None else 0

    def place(self, memory: Memory) -> None:
        """Puts its struct bpf_sock into memory, for programs to read."""
        if self.region is None:
            self.region = memory.allocate("socket", _SOCK.size, writable=False)
        self.region.view[:] = self._fields()
        if self.kind == "tcp":
            if self.tcp_region is None:
                self.tcp_region = memory.allocate("TCP socket", _TCP.size, writable=False)
            for name, value in self.tcp.items():
                field = _TCP.field(name)
                if field is None:
                    raise ValueError(f"struct bpf_tcp_sock has no field {name!r}")
                self.tcp_region.view[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")

    def _fields(self) -> bytes:
        data = bytearray(_SOCK.size)
        local = ipaddress.ip_address(self.local)
        remote = ipaddress.ip_address(self.remote) if self.remote else None
        version = local.version
        numbers = {
            "bound_dev_if": self.bound_dev_if, "family": AF_INET if version == 4 else AF_INET6,
            "type": SOCK_STREAM if self.kind == "tcp" else SOCK_DGRAM, "protocol": 6 if self.kind == "tcp" else 17,
            "mark": self.mark, "priority": self.priority, "src_port": self.local_port, "state": self.state,
        }  # fmt: skip
        for name, number in numbers.items():
            _put(data, name, number.to_bytes(4, "little"))
        _put(data, "dst_port", self.remote_port.to_bytes(2, "big"))
        _put(data, f"src_ip{version}", local.packed)
        if remote is not None:
            _put(data, f"dst_ip{version}", remote.packed)
        return bytes(data)


def _put(data: bytearray, name: str, value: bytes) -> None:
    place = _SOCK.field(name)
    assert place is not None
    data[place.offset : place.offset + place.size] = value[: place.size]
