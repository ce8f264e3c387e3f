"""The ELF reader and writer, held against each other and against pyelftools."""

from io import BytesIO
from pathlib import Path

import pytest

from bpflisp.link import link
from bpflisp.spec import elf
from bpflisp.spec.elf import ElfWriter
from bpflisp.spec.elf_read import ElfError, ElfImage
from tests.bpflisp.test_link import WHOLE

OBJECTS = sorted((Path(__file__).parents[2] / "fixtures/objects").glob("*.bpf.o"))
INPUTS = {path.name: path.read_bytes() for path in OBJECTS if path.name != "big_endian.bpf.o"} | {"ours": link(WHOLE)}


@pytest.mark.parametrize("name", INPUTS)
def test_pyelftools_sees_the_same(name: str) -> None:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.relocation import RelocationSection

    image, other = ElfImage(INPUTS[name]), ELFFile(BytesIO(INPUTS[name]))
    theirs = list(other.iter_sections())
    assert [(s.name, s.size, s.flags) for s in image.sections] == [
        (s.name, s["sh_size"], s["sh_flags"]) for s in theirs
    ]
    for mine, section in zip(image.sections, theirs, strict=True):
        if section["sh_type"] not in ("SHT_NOBITS", "SHT_NULL"):
            assert mine.data == section.data()
    symbols = list(other.get_section_by_name(".symtab").iter_symbols())
    assert [(s.name, s.value, s.size) for s in image.symbols if s.type != elf.STT_SECTION] == [
        (s.name, s["st_value"], s["st_size"]) for s in symbols if s["st_info"]["type"] != "STT_SECTION"
    ]
    for section in theirs:
        if isinstance(section, RelocationSection):
            mine_of = image.relocations(image.sections[section["sh_info"]])
            assert [(r.offset, r.symbol, r.type) for r in mine_of] == [
                (r["r_offset"], r["r_info_sym"], r["r_info_type"]) for r in section.iter_relocations()
            ]


def test_what_is_written_is_read() -> None:
    writer = ElfWriter()
    code = writer.section("xdp", elf.SHF_ALLOC | elf.SHF_EXECINSTR, bytes(16))
    writer.section(".bss", elf.SHF_ALLOC | elf.SHF_WRITE, b"", zero_size=24)
    extern = writer.symbol("outside", 0, 0, 0, elf.STT_NOTYPE, elf.STB_WEAK)
    writer.symbol("local", code, 8, 8, elf.STT_FUNC, elf.STB_LOCAL)
    writer.relocation(code, 8, extern, elf.R_BPF_64_32)
    image = ElfImage(writer.to_bytes())
    section = image.section("xdp")
    assert section is not None
    assert section.is_code
    bss = image.section(".bss")
    assert bss is not None
    assert (bss.size, bss.data) == (24, b"")
    names = [(symbol.name, symbol.is_extern) for symbol in image.symbols]
    assert names == [("", False), ("local", False), ("outside", True)]  # local symbols come first
    (relocation,) = image.relocations(section)
    assert image.symbols[relocation.symbol].name == "outside"
    assert image.section("nowhere") is None


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"\x7fELG", "does not start with"),
        (4, b"\x01", "not 64-bit"),
        (5, b"\x02", "big-endian"),
        (5, b"\x07", "neither little nor big"),
        (16, b"\x03", "not a relocatable object"),
        (18, b"\x3e", "machine is 62"),
        (40, b"\xff" * 8, "end after the file's"),
        (58, b"\x20", "32 bytes each"),
        (62, b"\xff\xff", "names are in section 65535"),
    ],
)
def test_headers_that_are_refused(at: int, value: bytes, message: str) -> None:
    data = bytearray(INPUTS["ours"])
    data[at : at + len(value)] = value
    with pytest.raises(ElfError, match=message):
        ElfImage(bytes(data))


def test_a_foreign_file_is_read_when_asked_for() -> None:
    data = bytearray(INPUTS["ours"])
    data[16:20] = bytes([2, 0, 62, 0])  # an executable for x86-64, as a vmlinux is
    assert ElfImage(bytes(data), foreign=True).section(".BTF") is not None
