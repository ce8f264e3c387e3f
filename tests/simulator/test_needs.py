"""The least kernel: each feature is seen where it is used, and no older kernel was seen to load what asks for it."""

from __future__ import annotations

import gzip
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bpflisp.spec import kernels
from simulator.loader import program_from_record
from simulator.needs import least_kernel, missing, needs
from simulator.program import MapDef, Program

CORPUS = Path(os.environ.get("BPF_CORPUS", Path(__file__).resolve().parents[3] / "shared" / "corpus"))


def slot(opcode: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, dst | src << 4, off, imm)


EXIT = slot(0xB7) + slot(0x95)

# What stands before r0 = 0; exit -> the feature's release and the slot that asks.
CODE = {
    "nothing new": (b"", "4.8", None),
    "if r0 < 1": (slot(0xA5, imm=1), "4.14", 0),
    "if w0 == 1": (slot(0x16, imm=1), "5.1", 0),
    "gotol": (slot(0x06), "6.6", 0),
    "bswap": (slot(0xD7, imm=16), "6.6", 0),
    "movsx": (slot(0xBF, off=8), "6.6", 0),
    "sdiv": (slot(0x37, off=1, imm=3), "6.6", 0),
    "ldsx": (slot(0x81, 0, 1), "6.6", 0),
    "atomic add": (slot(0xDB, 10, 0, -8, 0), "4.8", None),
    "atomic fetch": (slot(0xDB, 10, 0, -8, 1), "5.12", 0),
    "atomic or": (slot(0xDB, 10, 0, -8, 0x40), "5.12", 0),
    "load acquire": (slot(0xDB, 0, 10, -8, 0x100), "6.15", 0),
    "may_goto": (slot(0xE5), "6.9", 0),
    "address space cast": (slot(0xBF, 1, 1, 1, 1), "6.9", 0),
    "helper": (slot(0x85, imm=181), "5.17", 0),
    "kfunc": (slot(0x85, src=2, imm=7), "5.13", 0),
    "weak kfunc that is not there": (slot(0x85, src=2), "4.8", None),
    "subprogram": (slot(0x85, src=1, imm=-1), "4.16", 0),
    "callback": (slot(0x18, 1, 4) + slot(0), "5.13", 0),
    "loop": (slot(0xB7) + slot(0x05, off=-2), "5.3", 1),
    "jump back without a loop": (slot(0x05, off=1) + slot(0x05, off=1) + slot(0x05, off=-2), "4.8", None),
}


@pytest.mark.parametrize("name", CODE)
def test_features_of_instructions(name: str) -> None:
    code, kernel, insn = CODE[name]
    program = Program(code + EXIT, "xdp")
    assert least_kernel(program) == kernel
    newest = needs(program)[0]
    assert newest.insn == insn
    assert newest.feature


def test_features_of_program_and_maps() -> None:
    maps = [MapDef("r", "ringbuf", max_entries=4096), MapDef("a", "arena", flags=1 << 10), MapDef("x", "no_such")]
    load = slot(0x18, 1, 5, imm=0) + slot(0)
    program = Program(load + EXIT, "sched_cls", maps, attach_type="tcx_ingress", flags=16)
    found = {need.feature: need for need in needs(program)}
    assert found["map type ringbuf"].kernel == "5.8"
    assert "map type arena" not in found, "a map that no instruction names is not asked for"
    assert found["attach type tcx_ingress"].to_attach
    assert found["program flag BPF_F_SLEEPABLE"].kernel == "5.10"
    assert least_kernel(program) == "5.10", "the attach type is not looked at before attaching"
    assert [need.kernel for need in needs(program)] == sorted(
        (need.kernel for need in needs(program)), key=kernels.parse, reverse=True
    )


def test_a_helper_that_the_type_was_given_later() -> None:
    """bpf_get_current_comm is of 4.2; a socket filter may call it since a release after 6.12."""
    program = Program(slot(0x85, imm=16) + EXIT, "socket_filter")
    later = next(need for need in needs(program) if "for program type" in need.feature)
    assert kernels.parse(later.kernel) > (6, 12, 0)
    assert later.insn == 0


def test_tail_calls_beside_subprograms() -> None:
    program = Program(slot(0x85, imm=12) + slot(0x85, src=1, imm=-1) + EXIT, "xdp")
    assert least_kernel(program) == "5.10"


def test_what_a_kernel_lacks() -> None:
    program = Program(slot(0x06) + slot(0x85, imm=181) + EXIT, "xdp")
    assert [need.feature for need in missing(program, "5.10")] == ["isa v4: gotol", "helper bpf_loop"]
    assert [need.insn for need in missing(program, "5.15")] == [0, 1]
    assert missing(program, "6.1") == [], "6.1.192 got gotol with a fix"
    assert [need.feature for need in missing(program, "6.2")] == ["isa v4: gotol"]
    assert missing(program, "6.18") == []
    with pytest.raises(kernels.UnknownKernelError):
        missing(program, "newest")


def test_length() -> None:
    assert least_kernel(Program(slot(0xB7) * 4096 + EXIT, "xdp")) == "5.2"


def _lines(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(CORPUS / name, "rt") as file:
        for line in file:
            yield json.loads(line)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not here")
def test_no_kernel_loads_what_it_lacks() -> None:
    blobs = {row["name"]: bytes.fromhex(row["hex"]) for row in _lines("btf.jsonl.gz")}
    answers = {row["id"]: row["kernels"] for row in _lines("kernels.jsonl.gz")}
    wrong, foretold = [], 0
    for record in _lines("verdicts.jsonl.gz"):
        asked = answers.get(record["id"])
        if not asked:
            continue
        program = program_from_record(record, blobs)
        for kernel, answer in asked.items():
            lacking = missing(program, kernel)
            foretold += bool(lacking)
            if lacking and answer["verdict"] == "accept":
                wrong.append((record["id"], kernel, lacking))
    assert not wrong
    assert foretold > 500
