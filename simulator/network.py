"""The network of a world: interfaces, routes, neighbours; where a packet that is forwarded goes.

    world.devices[2] = Device("eth0", address="02:00:00:00:00:02", addresses=["10.0.0.254/24"], forwarding=True)
    world.network.routes.append(Route("10.9.0.0/16", 2, via="10.0.0.1"))
    world.network.neighbours[2, "10.0.0.1"] = "02:00:00:00:00:09"

The addresses of a device bring the routes that the kernel makes of them: to the host itself, to its networks, and to
their broadcast addresses. Addresses and networks are text, as Python's `ipaddress` takes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ipaddress

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOCAL_TABLE, MAIN_TABLE = 255, 254
_ONE_TABLE = (LOCAL_TABLE, MAIN_TABLE)
REFUSING = ("blackhole", "unreachable", "prohibit")
"""Kinds of routes that lead nowhere, and so by no interface."""

_CONNECTED_METRIC = {4: 0, 6: 256}
_USER_METRIC = {4: 0, 6: 1024}


@dataclass(slots=True)
class Device:
    """A network interface: its name, the most bytes that it sends after the link-layer header, and its addresses.

    `forwarding` says whether it takes part in forwarding, as net.ipv4.conf.*.forwarding does.
    """

    name: str
    mtu: int = 1500
    address: str = "00:00:00:00:00:00"
    addresses: Sequence[str] = ()
    forwarding: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """A route: where to, by which interface, by which gateway ("" for none); `kind` by the kernel's names.

    `kind` is "unicast", "local", "broadcast", "blackhole", "unreachable" or "prohibit". `metric` None is what
    `ip route` gives: 0 for IPv4, 1024 for IPv6. `source` is the address that packets then go out with.
    """

    to: str
    device: int = 0
    via: str = ""
    kind: str = "unicast"
    metric: int | None = None
    source: str = ""
    table: int = MAIN_TABLE

    @property
    def network(self) -> Network:
        """Where to."""
        from ipaddress import ip_network

        return ip_network(self.to)

    @property
    def priority(self) -> int:
        """The metric that it has."""
        return _USER_METRIC[self.network.version] if self.metric is None else self.metric


@dataclass(slots=True)
class Neighbourhood:
    """Routes, and neighbours by (interface, address)."""

    devices: Mapping[int, Device]
    routes: list[Route] = field(default_factory=list)
    neighbours: dict[tuple[int, str], str] = field(default_factory=dict)

    def find(self, to: Address, tables: Sequence[int], out: int = 0) -> Route | None:
        """The route to an address in the first of these tables that has one: the longest prefix, then the metric.

        `out` asks for a route by that interface, of which IPv6 makes a preference. None: there is none.
        """
        # Until there are rules, IPv4's local and main table are one.
        groups = [_ONE_TABLE] if to.version == 4 and MAIN_TABLE in tables else [(table,) for table in tables]
        for group in groups:
            fitting = [route for route in self._all(to.version) if route.table in group and to in route.network]
            if out and to.version == 4:
                fitting = [route for route in fitting if route.device == out or route.kind in REFUSING]
            if fitting:
                return min(
                    fitting,
                    key=lambda route: (-route.network.prefixlen, bool(out) and route.device != out, route.priority),
                )
        return None

    def has_table(self, table: int) -> bool:
        """Whether there is such a routing table."""
        return table in (LOCAL_TABLE, MAIN_TABLE) or any(route.table == table for route in self.routes)

    def neighbour(self, device: int, address: Address) -> bytes | None:
        """The link-layer address of a neighbour, None where it is not known."""
        from ipaddress import ip_address

        for (known_device, known), link in self.neighbours.items():
            if known_device == device and ip_address(known) == address:
                return link_address(link)
        return None

    def source(self, route: Route, to: Address) -> Address | None:
        """The address that packets by this route go out with: its own, else one of the device's; None for none."""
        from ipaddress import ip_address, ip_interface

        if route.source:
            return ip_address(route.source)
        device = self.devices.get(route.device)
        faces = [ip_interface(text) for text in device.addresses] if device else []
        faces = [face for face in faces if face.version == to.version]
        near = [face for face in faces if to in face.network]
        return (near or faces)[0].ip if faces else None

    def _all(self, version: int) -> Iterator[Route]:
        from ipaddress import ip_interface

        for route in self.routes:
            if route.network.version == version:
                yield route
        for number, device in self.devices.items():
            for text in device.addresses:
                face = ip_interface(text)
                if face.version == version:
                    yield from _routes_of(number, face)


def _routes_of(device: int, face: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> Iterator[Route]:
    """What the kernel makes of an address: the host itself, its network, and IPv4's broadcast."""
    metric, source = _CONNECTED_METRIC[face.version], str(face.ip)
    yield Route(str(face.ip), device, kind="local", metric=0, source=source, table=LOCAL_TABLE)
    if face.network.prefixlen == face.ip.max_prefixlen:
        return
    yield Route(str(face.network), device, metric=metric, source=source)
    if face.version == 4 and face.network.prefixlen < 31:
        last = str(face.network.broadcast_address)
        yield Route(last, device, kind="broadcast", metric=0, source=source, table=LOCAL_TABLE)


def link_address(text: str) -> bytes:
    """The six bytes of a link-layer address. ValueError where it is none."""
    data = bytes.fromhex(text.replace(":", ""))
    if len(data) != 6:
        raise ValueError(f"{text!r} is no link-layer address of six bytes")
    return data
