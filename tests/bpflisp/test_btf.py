"""BTF: what is written is read back, and no bytes make the reader do worse than raise BtfError."""

import contextlib
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpflisp.spec.btf import Btf, BtfError, BtfKind, BtfMember, BtfVariable, read_btf
from bpflisp.spec.btf_build import (
    INT,
    S64,
    U8,
    U32,
    U64,
    Array,
    BtfBuilder,
    CType,
    Enum,
    Float,
    Forward,
    Int,
    Member,
    Pointer,
    Qualified,
    Signature,
    Struct,
    Typedef,
    TypeTag,
    Void,
)
from bpflisp.spec.btf_ext import BtfExt, CoreRecord, FuncRecord, LineRecord, encode_btf_ext, read_btf_ext

VMLINUX = Path("/sys/kernel/btf/vmlinux")
NODE = Struct("node", 16, [Member("next", Pointer(Forward("node")), 0), Member("value", S64, 64)])
FLAGS = Struct("flags", 4, [Member("low", U32, 0, 3), Member("high", U32, 3, 29)])


def _one(ctype: CType) -> tuple[Btf, int]:
    builder = BtfBuilder()
    type_id = builder.add(ctype)
    return Btf(builder.to_bytes()), type_id


@pytest.mark.parametrize(
    ("ctype", "size"),
    [
        (U8, 1), (U64, 8), (Pointer(Void()), 8), (Array(U32, 5), 20), (Array(Array(U8, 3), 7), 21), (NODE, 16),
        (Typedef("t", Qualified("const", U32)), 4), (Enum("e", 4, [("A", 1)]), 4), (Enum("e", 8, [("A", 1)]), 8),
        (Float("double", 8), 8), (Pointer(TypeTag("kptr", NODE)), 8), (Struct("u", 8, [], union=True), 8),
    ],
)  # fmt: skip
def test_sizes(ctype: CType, size: int) -> None:
    btf, type_id = _one(ctype)
    assert btf.size_of(type_id) == size


@pytest.mark.parametrize("ctype", [Forward("f"), Signature(Void())])
def test_what_has_no_size(ctype: CType) -> None:
    btf, type_id = _one(ctype)
    with pytest.raises(BtfError, match="has no size"):
        btf.size_of(type_id)


def test_members_and_bit_fields() -> None:
    btf, type_id = _one(FLAGS)
    low, high = btf.members(type_id)
    assert (low.name, low.bit_offset, low.bits) == ("low", 0, 3)
    assert (high.name, high.bit_offset, high.bits) == ("high", 3, 29)


def test_a_struct_that_points_to_itself() -> None:
    btf, type_id = _one(NODE)
    following, value = btf.members(type_id)
    assert btf.pointee(following.type) == type_id
    assert value == BtfMember("value", value.type, 64, 0)
    assert btf.pointee(value.type) is None


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("size", [4, 8])
def test_enumerators(size: int, signed: bool) -> None:
    values = (("ZERO", 0), ("MANY", (1 << size * 8 - 1) - 1), ("LESS", -5 if signed else 5))
    btf, type_id = _one(Enum("e", size, values, signed))
    assert btf.enumerators(type_id) == values


def test_functions_variables_and_sections() -> None:
    builder = BtfBuilder()
    func = builder.func("f", Signature(INT, [("ctx", Pointer(Void())), ("n", U32)]), linkage=1)
    tag = builder.decl_tag("arg:nonnull", func, 0)
    variable = builder.var("counter", builder.add(U64), 0)
    section = builder.datasec(".bss", 8, [(variable, 0, 8)])
    btf = Btf(builder.to_bytes())
    assert [p.name for p in btf.params(func)] == ["ctx", "n"]
    assert btf.type(btf.result(func)).name == "int"
    assert (btf.linkage(func), btf.linkage(variable)) == (1, 0)
    assert btf.tags(func) == (("arg:nonnull", 0),)
    assert (btf.type(tag).kind, btf.component(tag)) == (BtfKind.DECL_TAG, 0)
    assert btf.variables(section) == (BtfVariable(variable, 0, 8),)
    assert btf.find("f", BtfKind.FUNC) == func
    assert btf.find("f", BtfKind.VAR) is None
    assert list(btf.of_kind(BtfKind.DATASEC, BtfKind.VAR)) == [section, variable]


def test_split_btf_goes_on_where_its_base_ends() -> None:
    builder = BtfBuilder()
    integer = builder.add(Int("u32", 4))
    base = Btf(builder.to_bytes())
    # Strings and ids of the split part are numbered behind the base's: one typedef "mine" of the base's u32.
    split = (
        bytes.fromhex("9feb010018000000000000000c0000000c00000005000000")
        + b"".join(n.to_bytes(4, "little") for n in (5, 8 << 24, integer))
        + b"mine\0"
    )
    btf = Btf(split, base)
    found = btf.find("mine")
    assert found == len(base)
    assert btf.type(btf.resolve(found)).name == "u32"
    assert btf.find("u32") == integer
    assert btf.size_of(found) == 4
    assert list(btf.ids()) == [found]


def test_equal_types_get_one_id() -> None:
    builder = BtfBuilder()
    assert builder.add(Pointer(NODE)) == builder.add(Pointer(NODE))
    assert builder.add(Void()) == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "shorter than its header"),
        (bytes(24), "magic is 0x0000"),
        (bytes.fromhex("eb9f0100") + bytes(20), "big-endian"),
        (bytes.fromhex("9feb0200") + bytes(20), "version is 2"),
        (bytes.fromhex("9feb010018000000000000000c0000000c00000005000000"), "ends after the 24 bytes"),
    ],
)
def test_what_is_no_btf(data: bytes, message: str) -> None:
    with pytest.raises(BtfError, match=message):
        Btf(data)


def test_circular_types_end() -> None:
    builder = BtfBuilder()
    builder.add(Typedef("t", U32))
    data = bytearray(builder.to_bytes())
    # The typedef comes after the int and is made its own target.
    at = data.index((8 << 24).to_bytes(4, "little")) + 4
    data[at : at + 4] = (2).to_bytes(4, "little")
    btf = Btf(bytes(data))
    with pytest.raises(BtfError, match="circular"):
        btf.resolve(2)


def _ask_everything(btf: Btf) -> None:
    for type_id in btf.ids():
        for question in (btf.members, btf.params, btf.enumerators, btf.array, btf.integer, btf.variables, btf.linkage,
                         btf.component, btf.size_of, btf.resolve, btf.pointee, btf.tags):  # fmt: skip
            with contextlib.suppress(BtfError):
                question(type_id)
    list(btf.names())


@given(st.randoms(use_true_random=False), st.integers(1, 8))
def test_mutated_bytes_raise_btf_error_or_answer(rng: random.Random, changes: int) -> None:
    builder = BtfBuilder()
    for ctype in (NODE, FLAGS, Enum("e", 8, [("A", 1)]), Signature(INT, [("x", U32)]), Array(U8, 9)):
        builder.add(ctype)
    builder.datasec(".data", 8, [(builder.var("v", builder.add(U64), 1), 0, 8)])
    data = bytearray(builder.to_bytes())
    for _ in range(changes):
        data[rng.randrange(len(data))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    with contextlib.suppress(BtfError):
        _ask_everything(Btf(bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.2 else data)))


def test_ext_round_trip() -> None:
    builder = BtfBuilder()
    ext = BtfExt(
        {"xdp": [FuncRecord(0, 3)], ".text": [FuncRecord(0, 4), FuncRecord(16, 5)]},
        {"xdp": [LineRecord(0, builder.string("a.lisp"), builder.string("(f)"), 70000, 12)]},
        {"xdp": [CoreRecord(8, 3, builder.string("0:1:2"), 0)]},
    )
    data = encode_btf_ext(ext, builder.string)
    assert read_btf_ext(data, Btf(builder.to_bytes())) == ext


@given(st.data())
def test_mutated_ext_raises_btf_error_or_answers(data: st.DataObject) -> None:
    builder = BtfBuilder()
    encoded = bytearray(encode_btf_ext(BtfExt({"xdp": [FuncRecord(0, 1)]}, {}, {}), builder.string))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.sampled_from([0, 1, 8, 127, 255]))
    with contextlib.suppress(BtfError):
        read_btf_ext(bytes(encoded), Btf(builder.to_bytes()))


@pytest.mark.skipif(not VMLINUX.exists(), reason="no BTF of a running kernel here")
def test_a_whole_kernel() -> None:
    btf = read_btf(VMLINUX)
    task = btf.find("task_struct", BtfKind.STRUCT)
    assert task is not None
    members = {member.name: member for member in btf.members(task)}
    assert btf.size_of(members["pid"].type) == 4
    actions = btf.find("xdp_action", BtfKind.ENUM)
    assert actions is not None
    assert dict(btf.enumerators(actions))["XDP_TX"] == 3


@pytest.mark.skipif(not shutil.which("bpftool"), reason="no bpftool here")
def test_bpftool_reads_what_is_written(tmp_path: Path) -> None:
    builder = BtfBuilder()
    builder.func("f", Signature(INT, [("node", Pointer(NODE)), ("flags", FLAGS)]), 1)
    builder.add(Enum("e", 8, [("BIG", 1 << 40)]))
    path = tmp_path / "types.btf"
    path.write_bytes(builder.to_bytes())
    shown = subprocess.run(["bpftool", "btf", "dump", "file", path], capture_output=True, text=True, check=True).stdout
    assert "STRUCT 'node' size=16 vlen=2" in shown
    assert "bitfield_size=29" in shown
    assert "FUNC 'f' type_id=" in shown
    assert "1099511627776" in shown
