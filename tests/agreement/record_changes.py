"""Small changes to a record, beside those of its code: what it is loaded as, its maps, its types, its raw bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from bpflisp.spec import helpers, programs
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import CALL_KFUNC, Kind
from simulator.program import Program
from tests.agreement.code import Code, Node
from tests.agreement.mutate import mutated
from tests.agreement.record_code import code_of, with_code

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Pool:
    """The records that are changed, and what can be taken from one and put into another."""

    records: Sequence[Record]

    @cached_property
    def kfuncs(self) -> list[str]:
        """Every kernel function that a record calls."""
        return sorted({name for record in self.records for name in (record.get("kfuncs") or {}).values()})

    @cached_property
    def targets(self) -> list[str]:
        """Everything that a record attaches to."""
        return sorted({record["attach_btf_name"] for record in self.records if record.get("attach_btf_name")})

    @cached_property
    def loaded_as(self) -> list[tuple[str, int]]:
        """Every program type with an attach type that records have it with."""
        return sorted({(record["type"], record.get("attach_type") or 0) for record in self.records})

    @cached_property
    def maps(self) -> list[Record]:
        """Every map but maps in maps, which name others by their place."""
        rows = [row for record in self.records for row in record.get("maps") or [] if row]
        return [row for row in rows if row.get("inner") is None]


def mutant(pool: Pool, blobs: Mapping[str, bytes], seed: int) -> dict[str, Any]:
    """The record that a seed makes of one of the pool: its id names the seed and the record."""
    rng = random.Random(seed)
    base = rng.choice(pool.records)
    record = {**base, "id": f"{seed}/{base['id']}"}
    if rng.random() < 0.8:
        record = _other_code(rng, pool, blobs, record)
    if rng.random() < 0.3:
        change = rng.choices(list(_SURROUNDINGS), list(_SURROUNDINGS.values()))[0]
        record = {**record, **change(rng, pool, record)}
    if rng.random() < 0.04:
        record["insns"] = _other_bits(rng, record["insns"])
    return record


def _other_code(rng: random.Random, pool: Pool, blobs: Mapping[str, bytes], record: dict[str, Any]) -> dict[str, Any]:
    try:
        before = code_of(record, Program.from_record(record, blobs))
    except ValueError:
        return record
    after = before
    if not before.nodes:
        return record
    if rng.random() < 0.75:
        after = mutated(rng, after)
    if rng.random() < 0.4:
        after = rng.choice(_OF_CODE)(rng, pool, after) if after.nodes else after
    return with_code(record, before, after)


def _places(code: Code, wanted: Callable[[Node], bool]) -> list[int]:
    return [at for at, node in enumerate(code.nodes) if wanted(node)]


def _another_call(rng: random.Random, pool: Pool, code: Code) -> Code:
    """Another helper, or another kernel function, in place of one that is called."""
    places = _places(code, lambda node: node.insn.row.kind is Kind.CALL and node.to is None and node.insn.src in (0, 2))
    if not places:
        return code
    at = rng.choice(places)
    insn = code.nodes[at].insn
    if insn.src == CALL_KFUNC and pool.kfuncs:
        return code.with_node(at, Node(insn, None, rng.choice(pool.kfuncs)))
    return code.with_insn(at, replace(insn, imm=rng.choice(list(helpers.all_helpers())).id))


def _drop_call(rng: random.Random, pool: Pool, code: Code) -> Code:
    """A release, an unlock, an acquisition less."""
    places = _places(code, lambda node: node.insn.row.kind is Kind.CALL)
    return code.without({rng.choice(places)}) if places else code


def _twice(rng: random.Random, pool: Pool, code: Code) -> Code:
    """A short run of instructions once more, where it was or elsewhere."""
    start = rng.randrange(len(code.nodes))
    nodes = code.nodes[start : start + rng.choice((1, 1, 2, 3, 5))]
    at = rng.choice((start, min(len(code.nodes) - 1, start + len(nodes)), rng.randrange(len(code.nodes))))
    for offset, node in enumerate(nodes):
        code = code.inserted(at + offset, node)
    return code


def _elsewhere(rng: random.Random, pool: Pool, code: Code) -> Code:
    """An instruction that is moved."""
    at = rng.randrange(len(code.nodes))
    node, less = code.nodes[at], code.without({at})
    return less.inserted(rng.randrange(len(less.nodes)), node) if less.nodes else code


def _of_another(rng: random.Random, pool: Pool, code: Code) -> Code:
    """An instruction of one place in place of another's."""
    return code.with_node(rng.randrange(len(code.nodes)), rng.choice(code.nodes))


def _new_instruction(rng: random.Random, pool: Pool, code: Code) -> Code:
    """Arithmetic, a spill, a fill or a comparison that nobody asked for."""
    dst, src, slot = rng.randrange(10), rng.randrange(11), -8 * rng.randrange(1, 65)
    alu = rng.choice((0x07, 0x0F, 0x1F, 0x57, 0x67, 0x77, 0xC7, 0x04, 0x0C, 0x54, 0x64, 0x74, 0xBC, 0xAF, 0x87, 0x2F))
    added = rng.choice(
        (
            Insn(
                alu, dst, src if alu & 8 else 0, imm=0 if alu & 8 or alu == 0x87 else rng.choice((1, 4, 8, 31, 32, 63))
            ),
            Insn(0x7B, 10, src, off=slot),
            Insn(rng.choice((0x61, 0x69, 0x71, 0x79)), dst, 10, off=slot),
            Insn(rng.choice((0x62, 0x6A, 0x72, 0x7A)), 10, 0, off=slot, imm=rng.choice((0, 1, -1))),
            Insn(
                rng.choice((0x55, 0x15, 0x25, 0xA5, 0x65, 0xC5, 0x26, 0x46)), dst, 0, off=1, imm=rng.choice((0, 1, 64))
            ),
            Insn(rng.choice((0x5D, 0x1D, 0x2D, 0xAD, 0x6D, 0xCD, 0x3E)), dst, src, off=1),
            Insn(rng.choice((0xDB, 0xC3)), 10, dst, off=slot, imm=rng.choice((0, 1, 0x41, 0xE1, 0xF1))),
        )
    )
    at = rng.randrange(len(code.nodes))
    if added.row.kind is Kind.BRANCH:
        labels = (*code.labels, rng.randrange(len(code.nodes)))
        return Code(code.nodes, labels).inserted(at, Node(added, len(labels) - 1))
    return code.inserted(at, Node(added))


_OF_CODE = (_another_call, _drop_call, _drop_call, _twice, _elsewhere, _of_another, _new_instruction, _new_instruction)


def _other_bits(rng: random.Random, insns: str) -> str:
    """The bytes with one bit, or one byte, of one instruction changed; never of the register byte of a 64-bit load,
    which would name a descriptor of ours."""
    code = bytearray.fromhex(insns)
    slot, byte = rng.randrange(len(code) // 8), rng.randrange(8)
    at = slot * 8 + byte
    if (code[slot * 8] == 0x18 and byte < 8) or (not byte and code[at] ^ 0x18 in (1 << bit for bit in range(8))):
        return insns
    code[at] = code[at] ^ 1 << rng.randrange(8) if rng.random() < 0.5 else rng.randrange(256)
    return insns if code[slot * 8] == 0x18 else code.hex()


# ---- what stands around the code -------------------------------------------------------------------------------------

Change = Callable[[random.Random, Pool, Record], dict[str, Any]]


def _other_type(rng: random.Random, pool: Pool, record: Record) -> dict[str, Any]:
    kind, attach = rng.choice(pool.loaded_as)
    return {"type": kind, "attach_type": attach}


def _other_attach_type(rng: random.Random, pool: Pool, record: Record) -> dict[str, Any]:
    if record["type"] == "struct_ops":
        return {"attach_type": rng.randrange(40)}
    return {"attach_type": rng.choice(list(programs.attach_numbers().values()))}


def _other_flags(rng: random.Random, pool: Pool, record: Record) -> dict[str, Any]:
    flags = record.get("prog_flags") or 0
    return {"prog_flags": flags ^ rng.choice((0x1, 0x2, 0x4, 0x8, 0x8, 0x10, 0x10, 0x20, 0x40, 0x80, 0x80, 0x100))}


def _other_license(rng: random.Random, pool: Pool, record: Record) -> dict[str, Any]:
    return {"license": "" if record.get("license") == "GPL" else "GPL"}


def _other_target(rng: random.Random, pool: Pool, record: Record) -> dict[str, Any]:
    return {"attach_btf_name": rng.choice(pool.targets)} if record.get("attach_btf_name") and pool.targets else {}


def _no_types(rng: random.Random, pool: Pool, record: Record) -> dict[str, Any]:
    return rng.choice(({"prog_btf": None, "func_info": ""}, {"func_info": ""}))


def _other_functions(rng: random.Random, pool: Pool, record: Record) -> dict[str, Any]:
    """Function records with one less, or one changed."""
    data, size = bytearray.fromhex(record.get("func_info") or ""), record.get("func_info_rec_size") or 8
    if not data:
        return {}
    at = rng.randrange(len(data) // size) * size
    if rng.random() < 0.4:
        del data[at : at + size]
    else:
        place = at + rng.choice((0, 4))
        data[place : place + 4] = max(
            0, int.from_bytes(data[place : place + 4], "little") + rng.choice((-1, 1))
        ).to_bytes(4, "little")
    return {"func_info": data.hex()}


def _other_map(rng: random.Random, pool: Pool, record: Record) -> dict[str, Any]:
    """One map with another size, flag, type, or without its types; or another's map in its place."""
    rows = list(record.get("maps") or [])
    places = [at for at, row in enumerate(rows) if row]
    if not places:
        return {}
    at = rng.choice(places)
    row = dict(rows[at])
    if rng.random() < 0.2 and row.get("inner") is None:
        row = dict(rng.choice(pool.maps))
    else:
        row |= rng.choice(
            (
                {"key_size": max(0, row["key_size"] + rng.choice((-4, -1, 1, 4)))},
                {"value_size": max(0, row["value_size"] + rng.choice((-8, -4, -1, 1, 4, 8)))},
                {"value_size": rng.choice((1, 4, 8, 16, 64))},
                {"max_entries": rng.choice((1, 2, 4096))},
                {"map_flags": row["map_flags"] ^ rng.choice((1, 0x8, 0x10, 0x80, 0x100, 0x400))},
                {"type": rng.choice((1, 2, 5, 6, 9, 10))},
                {"frozen": not row.get("frozen")},
                _UNTYPED,
            )
        )
        if row.get("btf") and (row | _SIZES) != (rows[at] | _SIZES):
            row |= _UNTYPED
    rows[at] = row
    return {"maps": rows}


_UNTYPED = {"btf": None, "btf_key": 0, "btf_value": 0}
_SIZES = {"max_entries": 0, "frozen": False}
"""What changes in a map without its types becoming wrong, which a kernel would then not take."""


_SURROUNDINGS: dict[Change, int] = {
    _other_type: 5, _other_attach_type: 3, _other_flags: 4, _other_license: 1, _other_target: 2, _no_types: 1,
    _other_functions: 2, _other_map: 6,
}  # fmt: skip
