"""Contexts: every access that the kernel allows gives what it gives there; where it runs no test, what was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bpflisp.spec.contexts import Field, context_struct, pt_regs, pt_regs_parm, struct, struct_names
from bpflisp.spec.isa import Op
from bpflisp.spec.tabledata import table
from simulator.packet import InputRefused
from simulator.program import Program
from simulator.run import engine_named, run
from simulator.sockets import Socket
from simulator.world import World
from tests.engines import HERE
from tests.simulator.assembly import EXIT, big, copy, load, mov, program, reg, store, value_of
from tests.simulator.contexts import RESULT, RUNNABLE, WRITTEN, answer, cases, recorded, table_of

ENGINES = list(HERE)
ARGUMENTS = ("raw_tracepoint", "raw_tracepoint_writable")
UNTESTED = sorted(
    (kind, attach)
    for kind, attach, name, *_ in table("contexts")["kinds"]
    if kind not in (*RUNNABLE, *ARGUMENTS, "netfilter") and name in (*struct_names(), "pt_regs") and name != "__sk_buff"
)
"""The contexts that have a structure and that no test run of the kernel takes. netfilter's has pointers alone."""


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_named("python"), "first_runs", 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_fields_read_as_in_the_kernel(engine: str) -> None:
    wanted = recorded()
    asked = [case for case in cases() if case.name in wanted]
    assert len(asked) == len(wanted)
    different = [case for case in asked if answer(case, engine) != wanted[case.name]]
    assert [case.name for case in different] == []


def _pattern(field: Field) -> bytes:
    """Bytes that say where they are."""
    return bytes((offset * 7 + 3) & 0xFF for offset in range(field.offset, field.offset + field.size))


def _given(kind: str, attach: str) -> dict[str, Any]:
    """Every field that holds numbers, with such bytes."""
    layout, reads = context_struct(kind), table_of(kind, attach).reads
    assert layout is not None
    if not reads:
        return {field.name: _pattern(field) for field in layout.fields}
    pointers = {offset for (offset, _), access in reads.items() if access.kind != "scalar"}
    return {field.name: _pattern(field) for field in layout.fields if field.offset not in pointers}


def _run(kind: str, attach: str, code: Sequence[Any], given: Mapping[str, Any], engine: str) -> tuple[int, Any]:
    made = program([copy(6, 1), *code, value_of(1, 0), store(8, 1, 0, 0), mov(0, 1), EXIT], kind, (RESULT,))
    world = World([RESULT])
    outcome = run(Program(made.insns, kind, (RESULT,), "GPL", attach_type=attach), dict(given), world, engine)
    assert outcome.fault is None, outcome.fault
    return int.from_bytes(world.maps.result.lookup(bytes(4)) or b"", "little"), outcome


def _places(kind: str, attach: str) -> list[tuple[int, int]]:
    layout, found = context_struct(kind), table_of(kind, attach)
    assert layout is not None
    named = {offset for field in layout.fields for offset in range(field.offset, field.offset + field.size)}
    if not found.spans:
        return [place for place, access in found.reads.items() if access.kind == "scalar" and place[0] in named]
    spans = [(low, high) for low, high in found.spans]
    return [(at, size) for low, high in spans for size in (1, 2, 4, 8) for at in range(low, high, size) if at in named]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("kind", "attach"), UNTESTED)
def test_every_field_is_read_as_it_was_given(kind: str, attach: str, engine: str) -> None:
    given, layout = _given(kind, attach), context_struct(kind)
    assert layout is not None
    bytes_of = bytearray(layout.size)
    for field in layout.fields:
        if field.name in given:
            bytes_of[field.offset : field.offset + field.size] = given[field.name]
    places = _places(kind, attach)
    assert places
    for offset, size in places:
        wanted = int.from_bytes(bytes_of[offset : offset + size], "little")
        assert _run(kind, attach, [load(size, 0, 6, offset)], given, engine)[0] == wanted, (offset, size)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("kind", "attach"), UNTESTED)
def test_every_field_is_written(kind: str, attach: str, engine: str) -> None:
    layout, given = context_struct(kind), _given(kind, attach)
    assert layout is not None
    for offset, size in sorted(table_of(kind, attach).writes):
        mask = (1 << 8 * size) - 1
        code = [big(2, WRITTEN), store(size, 6, offset, 2), load(size, 0, 6, offset)]
        value, outcome = _run(kind, attach, code, given, engine)
        assert value == WRITTEN & mask, (offset, size)
        field = next(field for field in layout.fields if field.offset <= offset < field.offset + field.size)
        assert outcome.context[field.name] >> 8 * (offset - field.offset) & mask == WRITTEN & mask, (offset, size)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_lookup_is_not_given(engine: str) -> None:
    made = program([mov(0, 1), EXIT], "sk_lookup", ())
    for given, said in (
        ({}, "EINVAL"), ({"family": 5}, "EAFNOSUPPORT"), ({"family": 2, "local_port": 1 << 16}, "ERANGE"),
        ({"family": 2, "sk": 1}, "EINVAL"), ({"family": 2, "ingress_ifindex": 1}, "EINVAL"),
    ):  # fmt: skip
        with pytest.raises(InputRefused, match=said):
            run(made, given, World(), engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_registers_by_architecture(engine: str) -> None:
    for arch in ("x86_64", "arm64"):
        layout, names = pt_regs(arch), pt_regs_parm(arch)
        for number in ("1", "2", "3"):
            field = layout.field(names[number])
            assert field is not None
            code = [load(8, 0, 6, field.offset)]
            given = {"arch": arch, f"parm{number}": 40 + int(number)}
            assert _run("kprobe", "", code, given, engine)[0] == 40 + int(number)
    with pytest.raises(InputRefused, match="registers of 'vax'"):
        _run("kprobe", "", [mov(0, 0)], {"arch": "vax"}, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_window_is_given_as_bytes(engine: str) -> None:
    fields = {"sk_msg": (0, 8), "sk_reuseport": (0, 8), "cgroup_sockopt": (8, 16)}
    for kind, (begin, end) in fields.items():
        code = [load(8, 2, 6, begin), load(8, 3, 6, end), load(1, 4, 2, 1), store(1, 2, 0, 4), copy(0, 3)]
        made = program([copy(6, 1), *code, reg(Op.SUB, 0, 2), EXIT], kind, ())
        outcome = run(made, b"abcde", World(), engine)
        assert outcome.fault is None
        assert (outcome.retval, outcome.packet) == (5, b"bbcde"), kind


@pytest.mark.parametrize("engine", ENGINES)
def test_a_socket_is_given_as_a_value(engine: str) -> None:
    socket = Socket("10.0.0.1", 443, "10.0.0.2", 999, mark=77)
    sk = context_struct("cgroup_sock_addr").field("sk")  # type: ignore[union-attr]
    mark = struct("bpf_sock").field("mark")
    assert sk is not None
    assert mark is not None
    code = [load(8, 2, 6, sk.offset), load(4, 0, 2, mark.offset)]
    assert _run("cgroup_sock_addr", "cgroup_inet4_connect", code, {"sk": socket}, engine)[0] == 77
    assert _run("cgroup_sock_addr", "cgroup_inet4_connect", code, {}, engine)[0] == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_arguments_of_raw_tracepoints(engine: str) -> None:
    for number in range(12):
        value = _run("raw_tracepoint", "", [load(8, 0, 6, 8 * number)], {"args": range(100, 112)}, engine)[0]
        assert value == 100 + number
