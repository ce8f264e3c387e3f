"""The fixture programs: each a Lisp source, a C twin, and cases that say what both must do on every engine.

A case is a world, packets in order, and what is there afterwards. Its file, fixtures/programs/NAME/cases.toml, has:
`before.MAP = { key = value }`; `runs` with `packet` (hex digits, or a scapy expression in which `eth`, `ip` and `ip6`
are ready), `context`, `retval` (a number or a name), `context_after`, `packet_after`, `times`, `after_ms` (time that
passes first); `after.MAP` with keys and values, or a list of records for a ring buffer; `after_count.MAP`; `user`, what
lies in user memory. A key is a number, an address, or hex digits with a space in them. A value is a number, a list with
one for each CPU, or hex digits in which `?` stands for any.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.maps.base import Map
    from simulator.outcome import Outcome
    from simulator.program import Object
    from simulator.world import World

ROOT = Path(__file__).parents[2] / "fixtures"

RETURN_VALUES: Mapping[str, int] = {
    "XDP_ABORTED": 0, "XDP_DROP": 1, "XDP_PASS": 2, "XDP_TX": 3, "XDP_REDIRECT": 4,
    "TC_ACT_OK": 0, "TC_ACT_SHOT": 2, "TC_ACT_PIPE": 3, "TC_ACT_REDIRECT": 7,
}  # fmt: skip

EVERY_ENGINE = ("reference", "python", "native", "kernel")


@dataclass(frozen=True)
class Step:
    """One packet, or one context, and what the program makes of it; `times` in a row, after `after_ms`."""

    retval: int
    packet: bytes | None = None
    context: Mapping[str, Any] | None = None
    context_after: Mapping[str, int] | None = None
    packet_after: bytes | None = None
    times: int = 1
    after_ms: int = 0


@dataclass(frozen=True)
class Case:
    """A world before, steps, and the world after. `engines` are those that can give it, `why` says why not all."""

    name: str
    program: str
    steps: Sequence[Step]
    before: Mapping[str, Mapping[str, Any]]
    after: Mapping[str, Any]
    after_count: Mapping[str, int]
    cpu: int
    engines: Sequence[str]
    user: Mapping[str, str]


@dataclass(frozen=True)
class Fixture:
    """A program, or several in one object. `twin_names` has the C names where they are others."""

    name: str
    about: str
    programs: Sequence[str]
    twin_names: Mapping[str, str]
    cases: Sequence[Case]

    @property
    def source(self) -> Path:
        """The Lisp source."""
        return ROOT / "programs" / self.name / "program.lisp"

    @property
    def twin(self) -> Path:
        """The object that clang-19 made of the C twin."""
        return ROOT / "twins" / f"{self.name}.o"


@cache
def all_fixtures() -> Sequence[Fixture]:
    """Every fixture, by name."""
    return [read_fixture(path) for path in sorted((ROOT / "programs").glob("*/cases.toml"))]


def fixture(name: str) -> Fixture:
    """The fixture of this name."""
    return next(found for found in all_fixtures() if found.name == name)


def read_fixture(path: Path) -> Fixture:
    """The fixture of a cases.toml."""
    data = tomllib.loads(path.read_text())
    name = path.parent.name
    programs = data.get("programs", [name])
    cases = [_case(row, row.get("program", programs[0])) for row in data["case"]]
    return Fixture(name, data["about"], programs, data.get("twin", {}), cases)


def _case(row: Mapping[str, Any], program: str) -> Case:
    return Case(
        name=row["name"],
        program=program,
        steps=[_step(step) for step in row["runs"]],
        before=row.get("before", {}),
        after=row.get("after", {}),
        after_count=row.get("after_count", {}),
        cpu=row.get("cpu", 0),
        engines=row.get("engines", EVERY_ENGINE),
        user=row.get("user", {}),
    )


def _step(row: Mapping[str, Any]) -> Step:
    retval = row["retval"]
    return Step(
        retval=RETURN_VALUES[retval] if isinstance(retval, str) else retval,
        packet=packet(row["packet"]) if "packet" in row else None,
        context=_context(row["context"]) if "context" in row else None,
        context_after=row.get("context_after"),
        packet_after=packet(row["packet_after"]) if "packet_after" in row else None,
        times=row.get("times", 1),
        after_ms=row.get("after_ms", 0),
    )


def _context(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: bytes.fromhex(value) if isinstance(value, str) else value for name, value in row.items()}


@cache
def packet(text: str) -> bytes:
    """A packet of hex digits, or of a scapy expression. Addresses are given, so that scapy asks no host for them."""
    if re.fullmatch(r"[0-9a-f ]+", text):
        return bytes.fromhex(text)
    from scapy.layers import dns, inet, inet6, l2
    from scapy.packet import Raw

    names = {name: getattr(module, name) for module in (dns, inet, inet6, l2) for name in dir(module)}
    names |= {
        "Raw": Raw,
        "eth": l2.Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02"),
        "ip": inet.IP(src="10.0.0.1", dst="10.0.0.2"),
        "ip6": inet6.IPv6(src="fd00::1", dst="fd00::2"),
    }
    return bytes(eval(text, names))  # the fixtures are ours


# ---- playing a case --------------------------------------------------------------------------------------------------


def play(case: Case, obj: Object, names: Mapping[str, str], engine: str) -> tuple[World, list[Outcome]]:
    """Runs a case's steps in a fresh world; the world after it, and the outcomes.

    `names` translates the case's program names into the object's.
    """
    from simulator.run import run

    world = world_before(case, obj, names)
    outcomes = []
    for step in case.steps:
        if step.after_ms:
            world.clock.advance(ms=step.after_ms)
        for _ in range(step.times):
            program = obj[names.get(case.program, case.program)]
            outcomes.append(run(program, step.packet, world, engine, context=step.context or {}))
    return world, outcomes


def world_before(case: Case, obj: Object, names: Mapping[str, str]) -> World:
    """The world that a case begins with."""
    from simulator.world import World

    world = World(obj, cpu=case.cpu)
    for name, entries in case.before.items():
        for key, value in entries.items():
            _set(world.maps[name], key, names.get(value, value) if isinstance(value, str) else value)
    for place, content in case.user.items():
        world.user_memory[int(place, 0)] = bytes.fromhex(content)
    return world


def check(case: Case, world: World, outcomes: Sequence[Outcome]) -> None:
    """Raises AssertionError for the first thing that is not as the case says."""
    expected = [step for step in case.steps for _ in range(step.times)]
    for number, (step, outcome) in enumerate(zip(expected, outcomes, strict=True), 1):
        assert outcome.fault is None, f"run {number}: {outcome.fault}"
        assert outcome.retval == step.retval, f"run {number}: returned {outcome.retval}, not {step.retval}"
        if step.packet_after is not None:
            assert outcome.packet == step.packet_after, f"run {number}: {outcome.packet!r}"
        for name, value in (step.context_after or {}).items():
            assert outcome.context[name] == value, f"run {number}: {name} is {outcome.context[name]}, not {value}"
    for name, wanted in case.after.items():
        _check_map(world.maps[name], wanted)
    for name, count in case.after_count.items():
        assert len(world.maps[name]) == count, f"map {name} has {len(world.maps[name])} entries, not {count}"


def _check_map(found: Map, wanted: Any) -> None:
    if isinstance(wanted, list):
        records = list(found)
        assert len(records) == len(wanted), f"{found.name} has {len(records)} records, not {len(wanted)}"
        pairs = [(pattern, record, str(at)) for at, (pattern, record) in enumerate(zip(wanted, records, strict=True))]
    else:
        pairs = [(pattern, found.lookup(_key(found, key)), key) for key, pattern in wanted.items()]
        if "array" not in found.definition.type:
            unexpected = set(found.keys()) - {_key(found, key) for key in wanted}
            assert not unexpected, f"{found.name} has {sorted(key.hex() for key in unexpected)} besides"
    for pattern, value, place in pairs:
        assert value is not None, f"{found.name} has no {place}"
        assert _matches(found, pattern, value), f"{found.name}[{place}] is {value.hex()}, not {pattern}"


def _matches(found: Map, pattern: Any, value: bytes) -> bool:
    if isinstance(pattern, str):
        return re.fullmatch(pattern.replace(" ", "").replace("?", "."), value.hex()) is not None
    return value == _value(found, pattern)


def _set(target: Map, key: str, value: Any) -> None:
    if target.definition.type == "prog_array":
        target[int(key)] = value
    else:
        target.update(_key(target, key), _value(target, value))


def _key(of: Map, text: str) -> bytes:
    size = of.definition.key_size
    if " " in text:
        return bytes.fromhex(text)
    return int(text).to_bytes(size, "little") if text.isdigit() else ipaddress.ip_address(text).packed


def _value(of: Map, value: Any) -> bytes:
    size = of.definition.value_size
    if isinstance(value, list):
        return b"".join(each.to_bytes((size + 7) & -8, "little") for each in value)
    return bytes.fromhex(value) if isinstance(value, str) else value.to_bytes(size, "little")


def cases() -> Iterator[tuple[Fixture, Case]]:
    """Every case of every fixture."""
    return ((found, case) for found in all_fixtures() for case in found.cases)
