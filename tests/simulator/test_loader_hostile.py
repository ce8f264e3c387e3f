"""Objects built to cost much: each is refused, or loaded, in bounded time."""

import struct
import time
from collections.abc import Callable

import pytest

from bpflisp.link import CoreAccess, LinkFunction, LinkObject, Relocation, RelocKind, link
from bpflisp.spec import elf
from bpflisp.spec.btf import HEADER, MAGIC, Btf, BtfError, BtfKind
from bpflisp.spec.btf_build import INT, U32, BtfBuilder, CType, Member, Pointer, Signature, Struct, Void
from bpflisp.spec.elf import ElfWriter
from bpflisp.spec.insn import Insn
from simulator.loader import LoadError, load

SLOWEST = 10.0
RETURN_ZERO = [Insn(0xB7), Insn(0x95)]
CODE = b"".join(insn.encode() for insn in RETURN_ZERO)


def _doubling(depth: int, name: str) -> CType:
    """A struct with two anonymous members of the next, and so on: 2 ** depth ways down."""
    inner: CType = Struct("", 4, [Member("leaf", U32, 0)])
    for _ in range(depth):
        inner = Struct("", 8, [Member("", inner, 0), Member("", inner, 32)])
    return Struct(name, 8, [Member("", inner, 0), Member("wanted", U32, 32)])


def _core_object(local: CType, access: str, kind: int) -> bytes:
    function = LinkFunction(
        "f", "raw_tp", [Insn(0xB7, 1), *RETURN_ZERO], Signature(INT, [("ctx", Pointer(Void()))]),
        core=[CoreAccess(0, kind, local, access)],
    )  # fmt: skip
    return link(LinkObject([function]))


def _btf_of(*types: CType) -> bytes:
    builder = BtfBuilder()
    for ctype in types:
        builder.add(ctype)
    return builder.to_bytes()


def _search_without_end() -> tuple[bytes, bytes]:
    local = Struct("s", 4, [Member("gone", U32, 0)])
    return _core_object(local, "0:0", 2), _btf_of(_doubling(30, "s"))


def _match_without_end() -> tuple[bytes, bytes]:
    def deep(leaf: CType) -> CType:
        inner = leaf
        for _ in range(28):
            inner = Struct("t", 8, [Member("a", inner, 0), Member("a", inner, 32)])
        return Struct("s", 8, [Member("m", inner, 0)])

    return _core_object(deep(U32), "0", 12), _btf_of(deep(Struct("other", 4, [])))


@pytest.mark.parametrize("build", [_search_without_end, _match_without_end])
def test_types_that_are_compared_without_end(build: Callable[[], tuple[bytes, bytes]]) -> None:
    data, target = build()
    started = time.monotonic()
    with pytest.raises(LoadError, match=r"comparisons|nested"):
        load(data, kernel_btf=target)
    assert time.monotonic() - started < SLOWEST


def test_functions_that_overlap() -> None:
    writer = ElfWriter()
    code = CODE * 5000
    section = writer.section("xdp", elf.SHF_ALLOC | elf.SHF_EXECINSTR, code)
    for at in range(2000):
        writer.symbol(f"f{at}", section, 0, len(code), elf.STT_FUNC, elf.STB_GLOBAL)
    with pytest.raises(LoadError, match="functions overlap"):
        load(writer.to_bytes())


def test_sections_that_overlap() -> None:
    writer = ElfWriter()
    writer.section("xdp", elf.SHF_ALLOC | elf.SHF_EXECINSTR, CODE * 10000)
    for at in range(200):
        writer.section(f".data.{at}", elf.SHF_ALLOC, b"\0")
    data = bytearray(writer.to_bytes())
    (headers,) = struct.unpack_from("<Q", data, 40)
    for at in range(2, 202):
        struct.pack_into("<QQ", data, headers + 64 * at + 24, 64, len(CODE) * 10000)
    with pytest.raises(LoadError, match="they overlap"):
        load(bytes(data))


def test_names_inside_one_long_string() -> None:
    count, text = 30_000, b"\0" + b"a" * 500_000 + b"\0"
    types = b"".join(struct.pack("<III", 1 + at, BtfKind.FWD << 24, 0) for at in range(count))
    header = HEADER.pack(MAGIC, 1, 0, HEADER.size, 0, len(types), len(types), len(text))
    started = time.monotonic()
    assert Btf(header + types + text).find("nobody") is None
    assert time.monotonic() - started < SLOWEST


@pytest.mark.parametrize("size", [1 << 29, 1 << 40, (1 << 64) - 1])
def test_data_that_nobody_can_hold(size: int) -> None:
    writer = ElfWriter()
    writer.symbol("x", writer.section(".bss", elf.SHF_ALLOC, b"", zero_size=size), 0, 8, elf.STT_OBJECT, elf.STB_GLOBAL)
    with pytest.raises(LoadError, match="bytes of data"):
        load(writer.to_bytes())


def test_a_long_chain_of_subprograms_is_followed() -> None:
    """Five thousand deep: the kernel will refuse it, the loader has only to come back."""
    count = 5_000
    signature = Signature(INT, [("ctx", Pointer(Void()))])
    functions = [LinkFunction("main", "xdp", [Insn(0x85), Insn(0x95)], signature,
                              [Relocation(0, RelocKind.CALL, "f0")])]  # fmt: skip
    for at in range(count - 1):
        relocation = [Relocation(0, RelocKind.CALL, f"f{at + 1}")]
        functions.append(LinkFunction(f"f{at}", ".text", [Insn(0x85), Insn(0x95)], Signature(INT), relocation))
    functions.append(LinkFunction(f"f{count - 1}", ".text", RETURN_ZERO, Signature(INT)))
    data = link(LinkObject(functions))
    started = time.monotonic()
    assert len(load(data)["main"].insns) == 8 * 2 * (count + 1)
    assert time.monotonic() - started < SLOWEST


def test_a_program_that_would_be_too_long() -> None:
    code = [Insn(0xB7)] * 1_000_001 + [Insn(0x95)]
    function = LinkFunction("p", "xdp", code, Signature(INT))
    with pytest.raises(LoadError, match="longer than 1000000 instructions"):
        load(link(LinkObject([function])))


def test_arrays_in_each_other() -> None:
    """Sizes are bounded by what the kernel takes, however they are multiplied."""
    from bpflisp.spec.btf_build import Array

    nested: CType = U32
    for _ in range(40):
        nested = Array(nested, 0xFFFFFFFF)
    builder = BtfBuilder()
    type_id = builder.add(nested)
    with pytest.raises(BtfError, match="too many"):
        Btf(builder.to_bytes()).size_of(type_id)
