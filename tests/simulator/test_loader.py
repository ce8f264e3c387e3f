"""Loading objects: what clang, libbpf and the kernel agree on, held on small objects of our own (fixtures/objects)."""

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bpflisp.link import LinkFunction, LinkGlobal, LinkObject, link
from bpflisp.spec.btf import Btf, BtfKind
from bpflisp.spec.btf_build import INT, Pointer, Signature, Void
from bpflisp.spec.insn import Insn
from simulator.loader import LoadError, load
from simulator.program import Object, Program
from simulator.world import World
from tests import oracle
from tests.engines import as_parameters

OBJECTS = Path(__file__).parents[2] / "fixtures/objects"
LIBBPF = json.loads((OBJECTS / "libbpf.json").read_text())
KCONFIG: dict[str, Any] = {"CONFIG_HZ": 250, "CONFIG_BPF_SYSCALL": "y", "CONFIG_NET": "m"}
KSYMS = {"jiffies_to_msecs": 0xFFFFFFFF8141A310}
VMLINUX = Path("/sys/kernel/btf/vmlinux")


def _load(name: str, **options: Any) -> Object:
    if name == "core":
        options.setdefault("kernel_btf", OBJECTS / "core_target.bpf.o")
    return load(OBJECTS / f"{name}.bpf.o", **options)


def _bytes(program: Program) -> list[str]:
    code = program.insns.hex()
    return [code[at : at + 16] for at in range(0, len(code), 16)]


# -- as libbpf does ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(LIBBPF))
def test_instructions_and_maps_are_those_of_libbpf(name: str) -> None:
    loaded = _load(name.removesuffix(".bpf.o"))
    assert list(loaded.maps) == LIBBPF[name]["maps"]
    assert {each: program.insns.hex() for each, program in loaded.programs.items()} == LIBBPF[name]["programs"]


@pytest.mark.parametrize("path", sorted(Path("/usr/lib/x86_64-linux-gnu/bpf").glob("*.o")), ids=lambda path: path.name)
def test_objects_of_debian_are_loaded_as_libbpf_loads_them(path: Path) -> None:
    if not oracle.available()[0]:
        pytest.skip(oracle.available()[1])
    try:
        ctypes.CDLL("libbpf.so.1")
    except OSError as error:
        pytest.skip(str(error))
    command = [sys.executable, "-m", "tests.simulator.libbpf", str(path)]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)[path.name]
    loaded = load(path, kernel_btf=VMLINUX)
    assert list(loaded.maps) == answer["maps"]
    assert {each: program.insns.hex() for each, program in loaded.programs.items()} == answer["programs"]


@pytest.mark.parametrize("name", ["maps", "data", "subprograms", "newest", "legacy_maps"])
def test_the_kernel_accepts_what_is_loaded(name: str) -> None:
    if not oracle.available()[0]:
        pytest.skip(oracle.available()[1])
    loaded = _load(name, kconfig=KCONFIG, ksyms=KSYMS, kernel_btf=VMLINUX)
    for program in loaded.programs.values():
        answer = oracle.ask(program)
        assert answer.accepted, answer.log[-500:]


# -- maps --------------------------------------------------------------------------------------------------------------


def test_declared_maps() -> None:
    maps = _load("maps").maps
    flows = maps["flows"]
    assert (flows.type, flows.key_size, flows.value_size, flows.max_entries, flows.flags) == ("hash", 8, 16, 1024, 1)
    assert flows.btf is not None
    assert flows.btf.type(flows.btf_key).name == "flow"
    assert [member.name for member in flows.btf.members(flows.btf_value)] == ["packets", "bytes"]
    assert (maps["totals"].btf_key, maps["totals"].value_size) == (0, 16)
    assert (maps["seen"].key_size, maps["seen"].extra) == (0, 3)
    assert maps["events"].max_entries == 8192


def test_maps_in_maps_and_programs_in_maps() -> None:
    maps = _load("maps").maps
    assert maps["outer"].slots == {1: "first", 3: "second"}
    inner = maps["outer"].inner
    assert inner is not None
    assert (inner.type, inner.value_size, inner.max_entries) == ("array", 8, 2)
    assert maps["jumps"].slots == {5: "tail_one"}


def test_data_sections() -> None:
    maps = _load("data").maps
    rodata, data, bss = maps["data.rodata"], maps["data.data"], maps["data.bss"]
    assert rodata.init is not None
    assert rodata.frozen
    assert rodata.init.startswith(bytes([7, 0, 0, 0]))
    assert rodata.flags == 1 << 7 | 1 << 10  # read-only for programs; user space may map it
    assert (data.frozen, data.flags, data.value_size) == (False, 1 << 10, 12)
    assert bss.init == bytes(28)
    assert maps[".data.apart"].init == (99).to_bytes(8, "little")
    assert maps[".rodata.limits"].flags == 1 << 7  # its only variable is static


def test_sizes_and_offsets_of_variables_are_filled_in() -> None:
    """The compiler leaves them out; the kernel and whoever reads a variable by its name need them."""
    btf = _load("data").btf
    assert btf is not None
    section = btf.find(".bss", BtfKind.DATASEC)
    assert section is not None
    assert btf.type(section).size == 28
    placed = {btf.type(variable.type).name: (variable.offset, variable.size) for variable in btf.variables(section)}
    assert placed == {"calls": (0, 4), "zeros": (4, 24)}


def test_data_maps_whose_names_are_cut_off_alike_stay_apart() -> None:
    """clang makes a section for each table of a switch: .rodata..Lswitch.table.one, .rodata..Lswitch.table.two."""
    names = [".rodata..Lswitch.table.one", ".rodata..Lswitch.table.two"]
    variables = [LinkGlobal(f"v{at}", name, INT, bytes([at, 0, 0, 0]), 4) for at, name in enumerate(names)]
    maps = load(link(LinkObject([], [], variables))).maps
    assert {name: definition.init for name, definition in maps.items()} == {
        ".rodata..Lswitc": bytes(4),
        ".rodata..Lswitch.table.two": bytes([1, 0, 0, 0]),
    }


def test_maps_of_the_old_way() -> None:
    loaded = _load("legacy_maps")
    counts = loaded.maps["counts"]
    assert (counts.type, counts.key_size, counts.value_size, counts.max_entries, counts.flags) == ("hash", 4, 8, 16, 1)
    assert loaded["classify"].type == "sched_cls"
    assert (loaded.btf, loaded["classify"].func_info) == (None, [])


def test_struct_ops() -> None:
    loaded = _load("struct_ops")
    fixed = loaded.maps["fixed"]
    assert (fixed.type, fixed.slots) == ("struct_ops", {0: "threshold", 1: "avoid", 2: "undo"})
    assert fixed.init is not None
    assert b"fixed\0" in fixed.init
    undo = loaded["undo"]
    assert (undo.type, undo.attach_type, undo.attach_target) == ("struct_ops", "2", "tcp_congestion_ops")


# -- programs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "type", "attach_type", "target", "flags"),
    [
        ("plain_xdp", "xdp", "xdp", "", 0),
        ("xdp_frags", "xdp", "xdp", "", 32),
        ("xdp_frags_devmap", "xdp", "xdp_devmap", "", 32),
        ("on_entry", "tracing", "trace_fentry", "bpf_fentry_test1", 0),
        ("on_exit_sleeping", "tracing", "trace_fexit", "bpf_fentry_test1", 16),
        ("on_tracepoint", "tracing", "trace_raw_tp", "btf_trace_sched_switch", 0),
        ("raw_tracepoint", "raw_tracepoint", "", "", 0),
        ("lsm_open", "lsm", "lsm_mac", "bpf_lsm_file_open", 16),
        ("iterate_tasks", "tracing", "trace_iter", "bpf_iter_task", 0),
        ("probe", "kprobe", "", "", 0),
        ("tracepoint", "tracepoint", "", "", 0),
        ("on_connect", "cgroup_sock_addr", "cgroup_inet4_connect", "", 0),
        ("on_egress", "cgroup_skb", "cgroup_inet_egress", "", 0),
        ("not_loaded", "socket_filter", "", "", 0),
        ("by_syscall", "syscall", "", "", 16),
        ("lookup", "sk_lookup", "sk_lookup", "", 0),
    ],
)
def test_what_section_names_say(name: str, type: str, attach_type: str, target: str, flags: int) -> None:
    program = _load("sections")[name]
    assert (program.type, program.attach_type) == (type, attach_type)
    assert (program.attach_target, program.flags) == (target, flags)
    assert not program.section.startswith("?")


def test_subprograms_bring_their_records() -> None:
    loaded = _load("subprograms")
    loops = loaded["loops"]
    assert loops.btf is not None
    names = [loops.btf.type(record.type_id).name for record in loops.func_info]
    assert names == ["loops", "step", "add_one", "shared", "middle", "leaf"]
    starts = {record.insn for record in loops.func_info}
    assert starts <= {record.insn for record in loops.line_info}
    assert all(record.text and record.file.endswith("subprograms.c") for record in loops.line_info)
    assert loaded["second"].license == "GPL"


def test_a_call_across_sections_that_libbpf_would_refuse() -> None:
    """Other loaders take a subprogram beside the program, and so do we."""
    functions = [
        LinkFunction("main", "tc", [Insn(0x85, 0, 1, 0, 1), Insn(0x95)], Signature(INT, [("ctx", Pointer(Void()))])),
        LinkFunction("other", "tc", [Insn(0xB7, 0, 0, 0, 1), Insn(0x95)], Signature(INT), is_global=False),
    ]
    loaded = load(link(LinkObject(functions)), name="across.o")
    assert list(loaded.programs) == ["main"]
    assert _bytes(loaded["main"]) == ["8510000001000000", "9500000000000000", "b700000001000000", "9500000000000000"]


# -- externs -----------------------------------------------------------------------------------------------------------


def test_externs() -> None:
    loaded = _load("externs", kconfig={**KCONFIG, "CONFIG_CC_VERSION_TEXT": "clang"}, ksyms=KSYMS)
    program = loaded["uses"]
    config = loaded.maps["externs.kconfig"]
    assert (config.frozen, config.flags) == (True, 1 << 7 | 1 << 10)
    assert config.init is not None
    assert b"\x01clang\0" in config.init  # CONFIG_BPF_SYSCALL and the text behind it
    assert set(program.kfuncs.values()) == {"bpf_rcu_read_lock", "bpf_rcu_read_unlock"}
    assert set(program.btf_ids.values()) == {"cpu_loops_per_jiffy"}
    loads = {insn.imm64 for insn in program.code if insn and insn.slots == 2 and insn.src == 0}
    assert loads == {0, KSYMS["jiffies_to_msecs"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ksyms": KSYMS}, r"'CONFIG_HZ' has no value[\s\S]*kconfig=\{'CONFIG_HZ': \.\.\.\}"),
        ({"kconfig": KCONFIG}, r"'jiffies_to_msecs' has no address[\s\S]*ksyms=\{'jiffies_to_msecs': 0x"),
        ({"ksyms": KSYMS, "kconfig": {**KCONFIG, "CONFIG_HZ": 1 << 40}}, "'CONFIG_HZ' cannot be 1099511627776"),
        ({"ksyms": KSYMS, "kconfig": {**KCONFIG, "CONFIG_HZ": "y"}}, "'CONFIG_HZ' cannot be 'y'"),
        ({"ksyms": KSYMS, "kconfig": {**KCONFIG, "CONFIG_NET": "maybe"}}, "'CONFIG_NET' cannot be 'maybe'"),
    ],
)
def test_externs_that_are_not_given(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        _load("externs", **options)


def test_weak_externs_follow_the_kernel_that_is_given() -> None:
    from bpflisp.spec.btf_build import S64, BtfBuilder

    builder = BtfBuilder()
    builder.var("cpu_loops_per_jiffy", builder.add(S64), 1)
    with pytest.raises(LoadError, match="no function 'bpf_rcu_read_lock'"):
        _load("externs", kconfig=KCONFIG, ksyms=KSYMS, kernel_btf=builder.to_bytes())
    for name in ("bpf_rcu_read_lock", "bpf_rcu_read_unlock", "bpf_no_such_kfunc"):
        builder.func(name, Signature(Void()), 1)
    program = _load("externs", kconfig=KCONFIG, ksyms=KSYMS, kernel_btf=builder.to_bytes())["uses"]
    assert "bpf_no_such_kfunc" in program.kfuncs.values()
    assert "bpf_no_such_kfunc" in program.btf_ids.values()  # its address is tested before it is called


# -- CO-RE -------------------------------------------------------------------------------------------------------------


def _stored(program: Program) -> list[int]:
    """The constants that `kinds` stores into out[], in order."""
    from bpflisp.spec.isa import Kind

    value: dict[int, int] = {}
    out: dict[int, int] = {}
    for insn in program.code:
        if insn is None:
            continue
        if insn.row.kind is Kind.ALU and not insn.row.reg:
            value[insn.dst] = insn.imm
        elif insn.row.kind is Kind.LOAD_IMM64:
            value[insn.dst] = insn.imm64
        elif insn.row.kind is Kind.STORE:
            out[insn.off] = value[insn.src]
    return [out[offset] for offset in sorted(out)]


def test_every_kind_of_core_record_against_a_target() -> None:
    target = Btf(_section("core_target", ".BTF"))
    shape, wide = target.find("shape", BtfKind.STRUCT), 0x500000000
    assert shape is not None
    assert _stored(_load("core")["kinds"]) == [
        48,  # inner.items[2]: 32 for inner, 12 for items, 2 * 2
        8,  # grown has grown
        0,  # gone is gone
        1,  # deep is found through the anonymous structs
        1,  # added is there, whatever the flavour
        1,  # bits_b is signed
        64 - (14 + 7),
        64 - 7,
        64,
        1,
        0,
        target.size_of(shape),
        1,  # same has what is asked for
        0,  # different.x is wider
        1,
        300,
        0,  # no RED any more
        wide,
        shape,
        _load("core", kernel_btf=None)["kinds"].btf.find("shape", BtfKind.STRUCT),  # type: ignore[union-attr]
    ]


def test_loads_move_and_grow_and_what_is_gone_is_poisoned() -> None:
    loads = [insn for insn in _load("core")["loads"].code if insn and insn.opcode & 7 == 1][1:]
    assert [(insn.row.size, insn.off) for insn in loads if insn.src != 10][:4] == [(4, 8), (8, 24), (4, 16), (2, 46)]


def test_without_a_kernel_btf_the_objects_own_types_count_and_that_is_noted() -> None:
    loaded = _load("core", kernel_btf=None)
    assert "26 CO-RE records are resolved against the object's own types" in loaded.notes[0]
    assert _stored(loaded["kinds"])[:5] == [20, 4, 1, 1, 1]
    assert not _load("core").notes


def _section(name: str, section: str) -> bytes:
    from bpflisp.spec.elf_read import ElfImage

    found = ElfImage((OBJECTS / f"{name}.bpf.o").read_bytes()).section(section)
    assert found is not None
    return found.data


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_big_endian_object_is_refused_by_name() -> None:
    with pytest.raises(LoadError, match="big-endian"):
        _load("big_endian")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not start with"),
        (b"\x7fELF", "header is cut off"),
        (b"\x7fELF\x01\x01" + bytes(60), "not 64-bit"),
        (b"#!/bin/sh\n", "does not start with"),
    ],
)
def test_what_is_no_object(data: bytes, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        load(data)


def test_a_missing_file_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        load("/nonexistent/x.bpf.o")


def test_a_section_that_names_no_type() -> None:
    function = LinkFunction("p", "strange", [Insn(0xB7), Insn(0x95)], Signature(INT))
    data = link(LinkObject([function]))
    with pytest.raises(LoadError, match=r"section 'strange' names no program type[\s\S]*type=\"xdp\""):
        load(data)
    assert load(data, type="xdp")["p"].type == "xdp"


def test_a_kernel_btf_that_is_none() -> None:
    with pytest.raises(LoadError, match="the kernel's BTF: BTF magic"):
        _load("core", kernel_btf=bytes(100))


def test_the_section_name_serves_as_key() -> None:
    loaded = _load("subprograms")
    assert loaded["xdp"] is loaded["loops"]
    with pytest.raises(KeyError, match="several programs"):
        loaded["tc"]


# -- Lisp --------------------------------------------------------------------------------------------------------------

LISP = "(defprog pass (:type :xdp) XDP_PASS)\n"


def test_a_lisp_source_is_compiled_on_the_way(tmp_path: Path) -> None:
    source = tmp_path / "pass.lisp"
    source.write_text(LISP)
    program = load(source)["pass"]
    assert program.type == "xdp"
    assert program.line_info[0].file.endswith("pass.lisp")
    assert program.line_info[0].text in LISP


def test_an_error_in_a_lisp_source_is_the_compilers(tmp_path: Path) -> None:
    from bpflisp import CompileError

    source = tmp_path / "wrong.lisp"
    source.write_text("(defprog p (:type :xdp) (no-such-thing))")
    with pytest.raises(CompileError, match="no-such-thing"):
        load(source)


@pytest.mark.parametrize("engine", as_parameters())
def test_an_object_of_gcc_runs(engine: str) -> None:
    """It counts a packet, and finds what it counted."""
    obj = load(OBJECTS / "gcc.bpf.o")
    world = World(obj)
    assert [obj["counted"].run(bytes(64), world=world, engine=engine).retval for _ in range(3)] == [2, 2, 2]
    assert world.maps.counts.lookup(bytes(4)) == (7).to_bytes(8, "little")
    assert world.maps["gcc.bss"].lookup(bytes(4)) == (9).to_bytes(8, "little")


@pytest.mark.parametrize("engine", as_parameters())
def test_exceptions_that_a_function_handles_are_refused_by_name(engine: str) -> None:
    """The kernel gives what the handler makes of 6, which is 7: none of ours runs it, or gives 6."""
    program = load(OBJECTS / "exceptions.bpf.o")["prog"]
    outcome = program.run(bytes(64), engine=engine)
    assert outcome.fault is not None
    assert "handles exceptions by its function 'handler', which is not modelled" in outcome.fault.message
    assert program.run(bytes(15), engine=engine).retval == 1


@pytest.mark.parametrize("engine", as_parameters())
def test_an_object_of_rustc_runs(engine: str) -> None:
    """A function in a section of its own counts packets by protocol; the third of a kind is dropped."""
    obj = load(OBJECTS / "rustc.bpf.o")
    world = World(obj)
    packet = bytes(12) + b"\x08\x00" + bytes(50)
    assert list(obj.programs) == ["by_protocol"]
    assert [note.partition(":")[0] for note in obj.notes] == [".text.count", "the section 'maps'"]  # as libbpf says
    assert [obj["by_protocol"].run(packet, world=world, engine=engine).retval for _ in range(4)] == [2, 2, 1, 1]
    assert obj["by_protocol"].run(bytes(64), world=world, engine=engine).retval == 2
    assert world.maps.PROTOCOLS.lookup(b"\x08\x00") == (4).to_bytes(8, "little")


@pytest.mark.parametrize("engine", as_parameters())
def test_an_object_as_aya_lays_it_out_runs(engine: str) -> None:
    """Maps of seven words, two programs of different types, a function in .text."""
    obj = load(OBJECTS / "aya_layout.bpf.o")
    assert {name: (made.type, made.license) for name, made in obj.programs.items()} == {
        "firewall": ("xdp", "Dual MIT/GPL"), "egress": ("sched_cls", "Dual MIT/GPL"),
    }  # fmt: skip
    world = World(obj)
    assert obj["firewall"].run(bytes(64), world=world, engine=engine).retval == 2
    assert world.maps.EVENTS.lookup(b"\3\0\0\0") == (65).to_bytes(8, "little")
    assert obj["egress"].run(bytes(64), world=world, engine=engine).retval == 0
