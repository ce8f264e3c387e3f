"""Two packets side by side: layer by layer and field by field where scapy can read them, by bytes where not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

_ROW = 16


@dataclass(frozen=True)
class Difference:
    """Where two packets differ in a line, and the whole of it: `-` lines are what was expected, `+` what came."""

    summary: str
    lines: list[str]


def compare(got: bytes | None, wanted: bytes) -> Difference:
    """What differs. `got` is None where no packet came."""
    if got is None:
        return Difference(f"no packet, expected one of {len(wanted)} bytes", [])
    sizes = f"{len(got)} bytes, expected {len(wanted)}" if len(got) != len(wanted) else f"{len(got)} bytes"
    try:
        layers = _layers(got, wanted)
    except Exception:  # scapy's dissectors raise whatever their code comes upon; the bytes always can be shown
        layers = []
    where = [where for where, _ in layers if where]
    lines = [line for _, part in layers for line in part]
    if not where:
        where = [f"byte {first_difference(got, wanted)}"]
        lines = [*lines, *_bytes(got, wanted)]
    return Difference(f"packet of {sizes}, differs in {', '.join(where)}", lines)


def first_difference(got: bytes, wanted: bytes) -> int:
    """The index of the first byte that differs; the shorter length where one is the beginning of the other."""
    pairs = enumerate(zip(got, wanted, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(got), len(wanted)))


def _layers(got: bytes, wanted: bytes) -> list[tuple[str, list[str]]]:
    """For each layer: which fields differ, "" for none, and its lines."""
    from scapy.layers import inet, inet6, l2  # noqa: F401  dissecting needs the layers above Ethernet

    pairs = zip_longest(_dissected(l2.Ether(got)), _dissected(l2.Ether(wanted)))
    return [_layer(ours, theirs) for ours, theirs in pairs]


def _dissected(packet: Any) -> Iterator[Any]:
    layer = packet
    while layer is not None and layer.name != "NoPayload":
        yield layer
        layer = layer.payload


def _layer(got: Any, wanted: Any) -> tuple[str, list[str]]:
    """A layer's name alone where it is as expected, else the fields that are not."""
    if got is None:
        return f"{wanted.name} (missing)", [f"- {wanted.name}"]
    if wanted is None:
        return f"{got.name} (not expected)", [f"+ {got.name}"]
    if type(got) is not type(wanted):
        return f"{got.name} (not {wanted.name})", [f"- {wanted.name}", f"+ {got.name}"]
    lines, names = [f"  {got.name}"], []
    for field in wanted.fields_desc:
        theirs, ours = wanted.getfieldval(field.name), got.getfieldval(field.name)
        if theirs != ours:
            names.append(field.name)
            lines.append(f"-   {field.name} = {_shown(field, wanted, theirs)}")
            lines.append(f"+   {field.name} = {_shown(field, got, ours)}")
    return (f"{got.name} ({', '.join(names)})" if names else ""), lines


def _shown(field: Any, layer: Any, value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex(" ") if len(value) <= 2 * _ROW else f"{value[: 2 * _ROW].hex(' ')} ... ({len(value)} bytes)"
    text = str(field.i2repr(layer, value))
    # A port has a name for scapy, and a number for who compares it with another.
    return f"{value} ({text})" if isinstance(value, int) and text.isidentifier() else text


def _bytes(got: bytes, wanted: bytes) -> list[str]:
    lines = []
    for at in range(0, max(len(got), len(wanted)), _ROW):
        ours, theirs = got[at : at + _ROW], wanted[at : at + _ROW]
        if ours != theirs:
            lines += [f"- {at:04x}  {theirs.hex(' ')}", f"+ {at:04x}  {ours.hex(' ')}"]
    return lines
