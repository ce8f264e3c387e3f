"""Generated programs with what the kernel made of them, kept so that engines are held to it where there is no kernel.

`python -m tests.agreement.recorded --programs N` writes fixtures/runs/generated.jsonl.gz anew: programs of all kinds of
fragments, the states and inputs that they were run in, and what the kernel left behind.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bpflisp.spec.btf import Btf
from simulator.engines.kernel import KernelRefusedError
from simulator.packet import Input, InputRefused
from simulator.program import FuncInfo, MapDef, Program
from tests.agreement.engines import drafted, generated
from tests.agreement.fixtures import ROOT
from tests.agreement.runs_compared import Plan, Seen, compare, not_comparable, once
from tests.agreement.worlds import State, new_world, put

FILE = ROOT / "runs" / "generated.jsonl.gz"
SIZE = (2, 3)
_ENOUGH = 5
"""Programs in which the same kind of fragment may occur."""


# ---- values as JSON --------------------------------------------------------------------------------------------------


def _map_row(made: MapDef) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": made.name, "type": made.type, "key": made.key_size, "value": made.value_size,
        "entries": made.max_entries, "flags": made.flags,
    }  # fmt: skip
    if made.init is not None:
        row |= {"init": made.init.hex(), "frozen": made.frozen}
    if made.inner is not None:
        row["inner"] = _map_row(made.inner)
    if made.slots:
        row["slots"] = dict(made.slots)
    return row


def _map_of(row: Mapping[str, Any]) -> MapDef:
    return MapDef(
        row["name"], row["type"], row["key"], row["value"], row["entries"], row["flags"],
        init=bytes.fromhex(row["init"]) if "init" in row else None, frozen=row.get("frozen", False),
        inner=_map_of(row["inner"]) if "inner" in row else None,
        slots={int(index): name for index, name in row.get("slots", {}).items()},
    )  # fmt: skip


def _program_row(program: Program) -> dict[str, Any]:
    row: dict[str, Any] = {
        "insns": program.insns.hex(), "type": program.type, "attach": program.attach_type, "flags": program.flags,
        "maps": [_map_row(made) for made in program.maps],
    }  # fmt: skip
    if program.btf is not None:
        row["btf"] = program.btf.data.hex()
        row["functions"] = [[info.insn, info.type_id] for info in program.func_info]
    return row


def _program_of(row: Mapping[str, Any], name: str) -> Program:
    return Program(
        bytes.fromhex(row["insns"]), row["type"], [_map_of(made) for made in row["maps"]], name=name,
        attach_type=row["attach"], flags=row["flags"], btf=Btf(bytes.fromhex(row["btf"])) if "btf" in row else None,
        func_info=[FuncInfo(*pair) for pair in row.get("functions", ())],
    )  # fmt: skip


def _plain(value: Any) -> Any:
    """Bytes as hex, and what contains them."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _input_row(given: Input) -> dict[str, Any]:
    return {"packet": _plain(given.packet), "context": _plain(given.context)}


def _input_of(row: Mapping[str, Any]) -> Input:
    context = {
        name: bytes.fromhex(value) if isinstance(value, str) else value for name, value in row["context"].items()
    }
    return Input(None if row["packet"] is None else bytes.fromhex(row["packet"]), context)


def _state_of(row: Mapping[str, Any]) -> State:
    entries = {
        name: [(bytes.fromhex(key), bytes.fromhex(value)) for key, value in pairs]
        for name, pairs in row["entries"].items()
    }
    return State(entries, row["cpu"])


def seen_row(seen: Seen | InputRefused) -> dict[str, Any]:
    """What a run left behind, or that its input was refused, as the file has it."""
    if isinstance(seen, InputRefused):
        return {"refused": True}
    if seen.fault is not None:
        return {"fault": seen.fault.message}
    return {"retval": seen.retval, "packet": _plain(seen.packet), "maps": _plain(seen.maps)}


# ---- one program -----------------------------------------------------------------------------------------------------


def runs(program: Program, todo: Plan, engine: str) -> list[list[dict[str, Any]]]:
    """What every input in every state leaves behind on an engine."""
    world = new_world(program, todo.others)
    found = []
    for state in todo.states:
        put(world, state)
        rows = []
        for given in todo.inputs:
            try:
                rows.append(seen_row(once(program, world, given, engine)))
            except InputRefused as error:
                rows.append(seen_row(error))
        found.append(rows)
    return found


def row_of(program: Program, todo: Plan, name: str) -> dict[str, Any]:
    """A program as the file has it, with what the running kernel makes of it."""
    return {
        "id": name,
        "program": _program_row(program),
        "others": {name: _program_row(other) for name, other in todo.others.items()},
        "states": [{"entries": _plain(state.entries), "cpu": state.cpu} for state in todo.states],
        "inputs": [_input_row(given) for given in todo.inputs],
        "seen": runs(program, todo, "kernel"),
    }


def case_of(row: Mapping[str, Any]) -> tuple[Program, Plan]:
    """The program of a row, and what it is run on."""
    others = {name: _program_of(other, name) for name, other in row["others"].items()}
    states = [_state_of(state) for state in row["states"]]
    return _program_of(row["program"], row["id"]), Plan(states, [_input_of(given) for given in row["inputs"]], others)


def rows() -> list[dict[str, Any]]:
    """What is kept."""
    return [json.loads(line) for line in gzip.decompress(FILE.read_bytes()).splitlines()]


# ---- the file --------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the file anew."""
    parser = argparse.ArgumentParser(prog="python -m tests.agreement.recorded", description=__doc__)
    parser.add_argument("--programs", type=int, default=400, metavar="N", help="how many to draw from")
    parser.add_argument("--seed", type=int, default=int(time.strftime("%Y%m%d")) * 1_000_000, help="(from the date)")
    parser.add_argument("--to", type=Path, default=FILE)
    options = parser.parse_args(arguments)
    kept: list[dict[str, Any]] = []
    tiers: Counter[str] = Counter()
    for number in range(options.seed, options.seed + options.programs):
        program, todo = generated(number, SIZE)
        of = [f"{program.type}/{tier}" for tier in drafted(number).tiers]
        if len(program.insns) > 2000 or all(tiers[tier] >= _ENOUGH for tier in of) or not_comparable(program):
            continue
        before = os.sched_getaffinity(0)
        tally = compare(program, todo, ("reference", "python"))
        os.sched_setaffinity(0, before)
        if {kind for _, kind in tally.counts} != {"agree"}:
            continue
        try:
            kept.append(row_of(program, todo, f"generated-{number}"))
        except KernelRefusedError:
            continue
        tiers.update(of)
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in kept)
    options.to.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{len(kept)} programs, {sum(map(len, kept[0]['seen'])) if kept else 0} cases each, in {options.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
