"""Our objects in other hands: llvm-readelf reads them without a warning, bpftool lists the BTF that was declared and
loads them, libbpf relocates them as our loader does, and the kernel's log quotes the Lisp source.

Each test skips where its tool, or bpf(2), is not there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from bpflisp import compile_file
from bpflisp.diagnostics import Diagnostics, Source
from bpflisp.front.read import read_unit
from bpflisp.front.types import ArrayOf, Number, Struct, c_name
from bpflisp.front.unit import MapDecl, Unit
from bpflisp.spec import maps as map_types
from simulator.loader import load
from tests import bpftool
from tests.agreement.fixtures import ROOT
from tests.simulator.libbpf import library

SOURCES = [*sorted(ROOT.glob("programs/*/program.lisp")), *sorted(ROOT.glob("language/*/program.lisp"))]
EVERYTHING, MOVING, REFUSED = (ROOT / "loading" / f"{name}.lisp" for name in ("everything", "moving", "refused"))
ALL = [*SOURCES, EVERYTHING, MOVING]
READELF = shutil.which("llvm-readelf-19") or shutil.which("llvm-readelf")
GOPATH = Path("/usr/share/gocode")
"""Where Debian has the sources of Go packages."""
CILIUM = GOPATH / "src" / "github.com" / "cilium" / "ebpf"
VMLINUX = Path("/sys/kernel/btf/vmlinux")
NUMBERS = {"type", "key_size", "value_size", "max_entries", "map_flags"}

every_source = pytest.mark.parametrize(
    "path", ALL, ids=["/".join(path.relative_to(ROOT).parts).removesuffix("/program.lisp") for path in ALL]
)


@cache
def compiled(path: Path) -> bytes:
    return compile_file(path)


@pytest.fixture
def made(path: Path, tmp_path: Path) -> Path:
    """The object of a source, as a file."""
    out = tmp_path / "made.bpf.o"
    out.write_bytes(compiled(path))
    return out


@every_source
def test_llvm_readelf_has_nothing_to_say_against_it(made: Path) -> None:
    if READELF is None:
        pytest.skip("llvm-readelf is not installed")
    done = subprocess.run([READELF, "-a", made], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning" not in done.stdout.lower()


# ---- what BTF says, and what was declared ----------------------------------------------------------------------------


class Types:
    """The BTF of an object as bpftool lists it."""

    def __init__(self, made: Path) -> None:
        rows = bpftool.answer("btf", "dump", "file", made, kernel=False)["types"]
        self.rows: dict[int, dict[str, Any]] = {row["id"]: row for row in rows}

    def of_kind(self, kind: str) -> dict[str, dict[str, Any]]:
        """Name -> row."""
        return {row["name"]: row for row in self.rows.values() if row["kind"] == kind}

    def shown(self, type_id: int) -> str:
        """A type as declarations show it: `__u32`, `__u8[16]`, `struct event`."""
        row = self.rows[type_id] if type_id else {"kind": "VOID"}
        match row["kind"]:
            case "ARRAY":
                return f"{self.shown(row['type_id'])}[{row['nr_elems']}]"
            case "STRUCT" | "UNION":
                return f"{row['kind'].lower()} {row['name']}"
            case "PTR":
                return f"{self.shown(row['type_id'])} *"
            case "VOID":
                return "void"
            case _:
                return str(row["name"])

    def map(self, name: str) -> dict[str, Any]:
        """The attributes of a map: numbers, and types as they are shown."""
        definition = self.rows[self.of_kind("VAR")[name]["type_id"]]
        found: dict[str, Any] = {}
        for member in definition["members"]:
            target = self.rows[member["type_id"]]["type_id"]
            if member["name"] == "values":  # an array of no length of pointers to what a tail call may reach
                assert self.rows[self.rows[target]["type_id"]]["kind"] == "FUNC_PROTO"
                continue
            is_number = member["name"] in NUMBERS
            found[member["name"]] = self.rows[target]["nr_elems"] if is_number else self.shown(target)
        return found


def unit_of(path: Path) -> Unit:
    return read_unit(Source(str(path), path.read_text()), Diagnostics())


def declared_type(kind: object) -> str:
    """A type of the source, as it is shown."""
    if isinstance(kind, Number):
        return f"__{'s' if kind.signed else 'u'}{kind.bits}"
    if isinstance(kind, ArrayOf):
        return f"{declared_type(kind.element)}[{kind.count}]"
    assert isinstance(kind, Struct)
    return f"{'union' if kind.union else 'struct'} {kind.c_name}"


def declared_map(decl: MapDecl) -> dict[str, Any]:
    """The attributes that BTF has to have: a type where one was declared, else a size; of two, both as types."""
    kind = map_types.by_name(decl.type)
    assert kind is not None
    wanted: dict[str, Any] = {"type": kind.number}
    typed = decl.key_type is not None or decl.value_type is not None
    for name, ctype, size in (("key", decl.key_type, decl.key_size), ("value", decl.value_type, decl.value_size)):
        if ctype is not None:
            wanted[name] = declared_type(ctype)
        elif size and typed:
            wanted[name] = f"__u{size * 8}" if size in (1, 2, 4, 8) else f"__u8[{size}]"
        elif size:
            wanted[f"{name}_size"] = size
    wanted |= {"max_entries": decl.max_entries} if decl.max_entries else {}
    return wanted | ({"map_flags": decl.flags} if decl.flags else {})


@every_source
def test_btf_has_the_maps_that_were_declared(path: Path, made: Path) -> None:
    types, unit = Types(made), unit_of(path)
    assert {decl.symbol: types.map(decl.symbol) for decl in unit.maps.values()} == {
        decl.symbol: declared_map(decl) for decl in unit.maps.values()
    }
    in_section = types.of_kind("DATASEC").get(".maps", {"vars": []})["vars"]
    assert [types.rows[each["type_id"]]["name"] for each in in_section] == [d.symbol for d in unit.maps.values()]


@every_source
def test_btf_has_the_structs_that_were_declared(path: Path, made: Path) -> None:
    types = Types(made)
    for struct in unit_of(path).structs.values():
        row = types.of_kind("UNION" if struct.union else "STRUCT")[struct.c_name]
        assert row["size"] == struct.size
        found = [(each["name"], each["bits_offset"], types.shown(each["type_id"])) for each in row["members"]]
        assert found == [(c_name(f.name), f.offset * 8, declared_type(f.type)) for f in struct.fields.values()]


@every_source
def test_btf_has_the_functions_and_variables_that_were_declared(path: Path, made: Path) -> None:
    types, unit = Types(made), unit_of(path)
    linkages = {name: row["linkage"] for name, row in types.of_kind("FUNC").items()}
    wanted = {program.symbol: "global" for program in unit.programs.values()}
    wanted |= {d.symbol: "global" if d.is_global else "static" for d in unit.subprograms.values()}
    assert linkages == wanted
    for program in unit.programs.values():
        proto = types.rows[types.of_kind("FUNC")[program.symbol]["type_id"]]
        assert [each["name"] for each in proto["params"]] == ["ctx"]
    for name, decl in unit.globals.items():
        row = types.of_kind("VAR")[c_name(name)]
        assert (types.shown(row["type_id"]), row["linkage"]) == (declared_type(decl.type), "global")


@every_source
def test_each_data_section_in_btf_is_that_of_the_file(made: Path) -> None:
    types = Types(made)
    with made.open("rb") as file:
        elf = ELFFile(file)
        symbols = {each.name: each for each in elf.get_section_by_name(".symtab").iter_symbols()}
        sections = types.of_kind("DATASEC")
        assert set(sections) >= {"license"}
        for name, row in sections.items():
            assert row["size"] == elf.get_section_by_name(name)["sh_size"]
            for each in row["vars"]:
                symbol = symbols[types.rows[each["type_id"]]["name"]]
                assert (each["offset"], each["size"]) == (symbol["st_value"], symbol["st_size"])
                assert elf.get_section(symbol["st_shndx"]).name == name


# ---- what loads ------------------------------------------------------------------------------------------------------


def test_everything_loads_with_its_maps_and_its_lines(tmp_path: Path) -> None:
    made = tmp_path / "everything.bpf.o"
    made.write_bytes(compiled(EVERYTHING))
    unit, programs = unit_of(EVERYTHING), load(compiled(EVERYTHING), name="everything")
    with bpftool.loaded(made) as pins:
        [entry] = bpftool.answer("map", "dump", "pinned", pins / "maps" / "stages")
        assert int(entry["key"][0], 16) == 1
        for decl in unit.maps.values():
            shown = bpftool.answer("map", "show", "pinned", pins / "maps" / decl.symbol)
            assert shown["type"] == decl.type
            assert (shown["bytes_key"], shown["bytes_value"]) == (decl.key_size, decl.value_size)
            assert (shown["max_entries"], shown.get("flags", 0)) == (decl.max_entries, decl.flags)
            if decl.key_type is not None:
                assert shown["btf_id"]
        for name, program in programs.items():
            text = bpftool.ran("prog", "dump", "xlated", "pinned", pins / name, "linum").stdout
            missing = {line.text.strip() for line in program.line_info if line.text.strip() not in text}
            assert not missing
            assert f"[file:{EVERYTHING} line_num:" in text


def test_variables_have_their_first_values(tmp_path: Path) -> None:
    made = tmp_path / "everything.bpf.o"
    made.write_bytes(compiled(EVERYTHING))
    with bpftool.loaded(made) as pins:
        by_section = {}
        for pin in (pins / "maps").iterdir():
            kind = pin.name.rpartition(".")[2].rpartition("_")[2]
            if kind in ("data", "rodata", "bss"):
                [row] = bpftool.answer("map", "dump", "pinned", pin)
                by_section[kind] = {
                    name: value for section in row["formatted"]["value"].values() for each in section
                    for name, value in each.items()
                }  # fmt: skip
        assert by_section["data"] == {"started": 40, "offset": -3}
        assert by_section["rodata"]["limits"] == [10, 20, 30, 40]
        assert by_section["bss"] == {"seen": 0, "last_peer": {"address": 0, "port": 0, "flags": 0}}


def test_the_log_of_a_refusal_quotes_the_source(tmp_path: Path) -> None:
    made = tmp_path / "refused.bpf.o"
    made.write_bytes(compiled(REFUSED))
    done = bpftool.ran("prog", "loadall", made, bpftool.BPFFS / "bpflisp_never")
    assert done.returncode != 0
    lines = done.stderr.splitlines()
    quoted = lines.index(f"; (when (= (load u8 data 12) 8) @ {REFUSED.name}:5")
    assert "R1 invalid mem access" in lines[quoted + 2] or "invalid access to packet" in lines[quoted + 2]


def test_what_a_loader_moves_loads(tmp_path: Path) -> None:
    made = tmp_path / "moving.bpf.o"
    made.write_bytes(compiled(MOVING))
    with bpftool.loaded(made) as pins:
        assert {pin.name for pin in pins.iterdir()} == {"watch", "maps"}


def test_a_c_program_loads_it_by_its_skeleton(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("clang-19")
    if compiler is None or not Path("/usr/include/bpf/libbpf.h").exists():
        pytest.skip("a C compiler or libbpf's headers are not installed")
    made, out = tmp_path / "everything.bpf.o", tmp_path / "program"
    made.write_bytes(compiled(EVERYTHING))
    skeleton = bpftool.ran("gen", "skeleton", made, "name", "everything")
    assert skeleton.returncode == 0, skeleton.stderr
    (tmp_path / "everything.skel.h").write_text(skeleton.stdout)
    source = ROOT / "loading" / "skeleton.c"
    command = [compiler, "-Wall", "-Werror", f"-I{tmp_path}", source, "-o", out, "-lbpf"]
    subprocess.run(command, check=True, timeout=60)
    done = subprocess.run([out], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "70 -3 0 128\n"), done.stderr


@every_source
def test_the_static_linker_takes_it(made: Path) -> None:
    """It checks more of an object than a loader does."""
    linked = made.with_name("linked.bpf.o")
    done = bpftool.ran("gen", "object", linked, made, kernel=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(load(linked)) == set(load(made))


def test_cilium_loads_them_all(tmp_path: Path) -> None:
    """All but what it moves: Debian's release of it is older than the kernel's BTF."""
    bpftool.require(kernel=True)
    go = shutil.which("go")
    if go is None or not CILIUM.exists():
        pytest.skip("Go or its package cilium/ebpf is not installed")
    loader, objects = tmp_path / "loader", []
    environment = {**os.environ, "GOPATH": str(GOPATH), "GO111MODULE": "off", "GOCACHE": str(tmp_path / "cache")}
    command = [go, "build", "-o", loader, ROOT / "loading" / "cilium.go"]
    subprocess.run(command, env=environment, check=True, timeout=300)
    for number, path in enumerate([*SOURCES, EVERYTHING]):
        objects.append(tmp_path / f"{number}_{path.parent.name}.o")
        objects[-1].write_bytes(compiled(path))
    done = subprocess.run([loader, *objects], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")


@every_source
def test_libbpf_relocates_it_as_our_loader_does(path: Path, made: Path) -> None:
    bpftool.require(kernel=True)
    if path is MOVING and not VMLINUX.exists():
        pytest.skip("this kernel has no BTF")
    try:
        library()
    except OSError:
        pytest.skip("libbpf.so.1 is not installed")
    command = [sys.executable, "-m", "tests.simulator.libbpf", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    ours = load(made, kernel_btf=VMLINUX if path is MOVING else None)
    theirs = {name: bytes.fromhex(code) for name, code in answers[made.name]["programs"].items()}
    assert theirs == {name: program.insns for name, program in ours.items()}
