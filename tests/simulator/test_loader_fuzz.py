"""No bytes make the loader do worse than raise LoadError, in bounded time.

    python -m tests.simulator.test_loader_fuzz 20000 [seed]

Real objects are changed: bytes flipped, the file cut off, fields of section headers, symbols, relocations and BTF set
to extremes. What still loads is asked for its code and lines, so that lazy parts are reached too.
"""

from __future__ import annotations

import random
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bpflisp.spec import elf
from bpflisp.spec.elf_read import ElfImage, ElfSection
from simulator.loader import LoadError, load

OBJECTS = sorted((Path(__file__).parents[2] / "fixtures/objects").glob("*.bpf.o"))
KCONFIG: dict[str, int | bool | str] = {"CONFIG_HZ": 250, "CONFIG_BPF_SYSCALL": "y", "CONFIG_NET": "m"}
KSYMS = {"jiffies_to_msecs": 1}
TARGET = (Path(__file__).parents[2] / "fixtures/objects/core_target.bpf.o").read_bytes()

EXTREMES = (0, 1, 2, 7, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1)
SLOWEST = 5.0
"""Seconds that one object may take, on a machine that does other things too."""

Mutation = Callable[[bytearray, random.Random], None]


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.randrange(256)


def _cut_off(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _section_header(data: bytearray, rng: random.Random) -> None:
    at, count = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    for _ in range(rng.randint(1, 3)):
        header = at + rng.randrange(count) * elf.SECTION.size
        offset, size = rng.choice([(0, 4), (4, 4), (8, 8), (24, 8), (32, 8), (40, 4), (44, 4), (56, 8)])
        _extreme(data, header + offset, size, rng)


def _extreme(data: bytearray, at: int, size: int, rng: random.Random) -> None:
    old = int.from_bytes(data[at : at + size], "little")
    number = rng.choice([*EXTREMES, old + 1, old - 1, old * 2, rng.randrange(len(data))])
    data[at : at + size] = (number & (1 << 8 * size) - 1).to_bytes(size, "little")


def _inside(wanted: Callable[[ElfSection], bool], stride: int) -> Mutation:
    """Sets words inside the bytes of some section."""

    def mutate(data: bytearray, rng: random.Random) -> None:
        sections = [section for section in ElfImage(bytes(data), foreign=True).sections if wanted(section)]
        sections = [section for section in sections if len(section.data) >= stride]
        if not sections:
            return
        section = rng.choice(sections)
        start = bytes(data).find(section.data)
        for _ in range(rng.randint(1, 4)):
            _extreme(data, start + rng.randrange(len(section.data) // stride) * stride, stride, rng)

    return mutate


MUTATIONS: tuple[Mutation, ...] = (
    _flip,
    _cut_off,
    _section_header,
    _inside(lambda section: section.type == elf.SHT_SYMTAB, 4),
    _inside(lambda section: section.type == elf.SHT_REL, 4),
    _inside(lambda section: section.name == ".BTF", 4),
    _inside(lambda section: section.name == ".BTF.ext", 4),
    _inside(lambda section: section.is_code, 4),
    _inside(lambda section: section.name in (".maps", "maps", ".struct_ops"), 4),
)


def check(rng: random.Random, path: Path) -> str:
    """Loads one changed object; what came of it. Raises whatever the loader should not have raised."""
    data = bytearray(path.read_bytes())
    for mutation in rng.choices(MUTATIONS, k=rng.randint(1, 2)):
        try:
            mutation(data, rng)
        except (ValueError, struct.error, IndexError):
            break  # the first change left nothing for the second
    target = TARGET if rng.random() < 0.5 else None
    started = time.monotonic()
    try:
        loaded = load(bytes(data), kconfig=KCONFIG, ksyms=KSYMS, type="xdp", kernel_btf=target)
        sum(len(program.code) + len(program.line_info) for program in loaded.programs.values())
        result = "loaded"
    except LoadError:
        result = "refused"
    assert time.monotonic() - started < SLOWEST
    return result


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_changed_objects(path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # shown by pytest when it fails
    rng = random.Random(seed)
    results = {check(rng, path) for _ in range(40)}
    assert "refused" in results


def main() -> None:
    """Runs as many cases as the first argument says; prints what came of them."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() & 0xFFFFFFFF
    print(f"seed {seed}")
    rng = random.Random(seed)
    results: dict[str, int] = {}
    started = time.monotonic()
    for case in range(count):
        path = rng.choice(OBJECTS)
        state = rng.getstate()
        try:
            result = check(rng, path)
        except Exception as error:  # any other exception is the finding
            result = f"{type(error).__name__}: {error}"
            rng.setstate(state)
            print(f"case {case} {path.name}: {result}")
            if results.get("found", 0) > 5:
                raise
            check_again(rng, path)
            results["found"] = results.get("found", 0) + 1
            continue
        results[result] = results.get(result, 0) + 1
    print(results, f"{time.monotonic() - started:.0f} s")


def check_again(rng: random.Random, path: Path) -> None:
    """Prints the traceback of a case that went wrong."""
    import traceback

    try:
        check(rng, path)
    except Exception:
        traceback.print_exc(limit=-4)


if __name__ == "__main__":
    main()
