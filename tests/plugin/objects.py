"""Programs small enough to be seen through, for tests of what happens around them."""

from __future__ import annotations

from pathlib import Path

from simulator import MapDef, Program

ROOT = Path(__file__).parents[2]
PORT_BLOCKER = ROOT / "fixtures" / "twins" / "port_blocker.o"

EXIT = "9500000000000000"


def xdp(code: str, *maps: MapDef) -> Program:
    """An XDP program of hex digits."""
    return Program(bytes.fromhex(code), "xdp", maps=maps, name="p")


RETURNS_2 = f"b700000002000000 {EXIT}"
BAD_CONTEXT = f"7110000000000000 {EXIT}"
"""Reads a byte of the context, which the verifier refuses and a run can do."""

NO_MEMORY = f"b701000000000000 7910000000000000 {EXIT}"
"""Reads address 0."""

PRANDOM = f"8500000007000000 {EXIT}"
