"""Programs from records of the corpus' form."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from simulator.loader import UNUSED_MAP, LoadError, program_from_record
from simulator.program import MapDef

CORPUS = Path(os.environ.get("BPF_CORPUS", Path(__file__).parents[3] / "shared/corpus"))

RECORD: dict[str, Any] = {
    "id": "own/lookup",
    "type": "cgroup_sock_addr",
    "attach_type": 10,
    "license": "GPL",
    "insns": "18110000030000000000000000000000" + "18220000070000000000000008000000" + "9500000000000000",
    "relocs": [[0, "map", 2], [2, "map_value", 1]],
    "maps": [
        None,
        {"name": ".rodata", "type": 2, "key_size": 4, "value_size": 4, "max_entries": 1, "map_flags": 128,
         "frozen": True, "init": "01020304"},
        {"name": "outer", "type": 12, "key_size": 4, "value_size": 4, "max_entries": 1, "map_flags": 0, "inner": 1},
    ],
    "prog_flags": 16,
    "kfuncs": {"4": "bpf_rcu_read_lock"},
    "attach_btf_name": "tcp_sendmsg",
}  # fmt: skip


def test_a_record() -> None:
    program = program_from_record(RECORD)
    assert (program.type, program.attach_type, program.flags) == ("cgroup_sock_addr", "cgroup_inet4_connect", 16)
    assert (program.attach_target, dict(program.kfuncs)) == ("tcp_sendmsg", {4: "bpf_rcu_read_lock"})
    first, _, second, _, _ = program.code
    assert first is not None
    assert second is not None
    assert (first.src, first.imm) == (5, 2)
    assert (second.src, second.imm, second.imm_high) == (6, 1, 8)
    assert program.maps[0] is UNUSED_MAP
    rodata = MapDef(".rodata", "array", 4, 4, 1, 128, init=bytes([1, 2, 3, 4]), frozen=True)
    assert program.maps[1] == rodata
    assert program.maps[2].inner == rodata


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"insns": "12"}, "not whole instructions|relocation at instruction"),
        ({"insns": "xx"}, "does not read"),
        ({"relocs": [[1, "map", 0]]}, "instruction 1, which is no 64-bit load"),
        ({"relocs": [[0, "map", 3]]}, "there are 3 maps"),
        ({"relocs": [[0, "prog", 0]]}, "relocation 'prog'"),
        ({"attach_type": 999}, "attach type 999"),
        ({"prog_btf": "absent"}, "BTF 'absent' is not among the 0 given"),
        ({"func_info": "00", "func_info_rec_size": 8}, "func_info of 1 bytes"),
        ({"maps": [{"name": "m"}]}, "not of the form"),
        ({"maps": 7}, "not of the form"),
    ],
)
def test_what_a_record_may_not_say(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        program_from_record({**RECORD, **change})


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus in {CORPUS}")
def test_every_record_of_the_corpus() -> None:
    with gzip.open(CORPUS / "btf.jsonl.gz", "rt") as lines:
        blobs = {row["name"]: bytes.fromhex(row["hex"]) for row in map(json.loads, lines)}
    refused = []
    with gzip.open(CORPUS / "verdicts.jsonl.gz", "rt") as lines:
        for record in map(json.loads, lines):
            try:
                program = program_from_record(record, blobs)
            except LoadError as error:
                refused.append(str(error))
                continue
            assert len(program.insns) == 8 * record["n_insns"]
            assert len(program.code) == record["n_insns"]
    assert not refused
