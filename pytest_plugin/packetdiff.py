"""Two packets side by side: layer by layer and field by field where scapy can read them, by bytes where not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

_ROW = 16


def packet_difference(got: bytes | None, wanted: bytes) -> list[str]:
    """What differs, for a person: `-` lines are what was expected, `+` lines what came."""
    if got is None:
        return [f"no packet, expected one of {len(wanted)} bytes"]
    head = [f"packet: {len(got)} bytes, expected {len(wanted)}"] if len(got) != len(wanted) else ["packet:"]
    try:
        body = list(_layers(got, wanted))
    except Exception:  # scapy's dissectors raise whatever their code comes upon; the bytes always can be shown
        body = []
    return [*head, *(body or _bytes(got, wanted))]


def _layers(got: bytes, wanted: bytes) -> Iterator[str]:
    from scapy.layers import inet, inet6, l2  # noqa: F401  dissecting needs the layers above Ethernet

    pairs = zip_longest(_dissected(l2.Ether(got)), _dissected(l2.Ether(wanted)))
    told = False
    for ours, theirs in pairs:
        lines = _layer(ours, theirs)
        told = told or len(lines) > 1
        yield from lines
    if not told and got != wanted:
        yield from _bytes(got, wanted)


def _dissected(packet: Any) -> Iterator[Any]:
    layer = packet
    while layer is not None and layer.name != "NoPayload":
        yield layer
        layer = layer.payload


def _layer(got: Any, wanted: Any) -> list[str]:
    """A layer's name alone where it is as expected, else the fields that are not."""
    if got is None:
        return [f"  - {wanted.name}: missing"]
    if wanted is None:
        return [f"  + {got.name}: not expected"]
    if type(got) is not type(wanted):
        return [f"  - {wanted.name}", f"  + {got.name}"]
    lines = [f"    {got.name}"]
    for field in wanted.fields_desc:
        theirs, ours = wanted.getfieldval(field.name), got.getfieldval(field.name)
        if theirs != ours:
            lines.append(f"  -   {field.name} = {_shown(field, wanted, theirs)}")
            lines.append(f"  +   {field.name} = {_shown(field, got, ours)}")
    return lines


def _shown(field: Any, layer: Any, value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex(" ") if len(value) <= 2 * _ROW else f"{value[: 2 * _ROW].hex(' ')} ... ({len(value)} bytes)"
    return str(field.i2repr(layer, value))


def _bytes(got: bytes, wanted: bytes) -> list[str]:
    lines = []
    for at in range(0, max(len(got), len(wanted)), _ROW):
        ours, theirs = got[at : at + _ROW], wanted[at : at + _ROW]
        if ours != theirs:
            lines += [f"  - {at:04x}  {theirs.hex(' ')}", f"  + {at:04x}  {ours.hex(' ')}"]
    return lines
