"""Helpers of programs that the kernel does not test-run: events of sockets, options, messages, system controls."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

import pytest

from bpflisp.spec.alu import M32
from bpflisp.spec.isa import Op
from simulator.outcome import Outcome
from simulator.program import MapDef
from simulator.run import engine_named, run
from simulator.sockets import Socket
from simulator.world import World
from tests.simulator.assembly import EXIT, copy, function, load, mov, program, reg
from tests.simulator.helpers.calls import CONTEXT, Case, MapArgument, Memory, _call

BOTH = pytest.mark.parametrize("engine", ["reference", "python"])


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_named("python"), "first_runs", 0)


def asked(engine: str, kind: str, helper: str, arguments: Sequence[Any], given: Any = None, **more: Any) -> Outcome:
    """What one call of a helper comes to."""
    world: World = more.get("world") or World()
    case = Case("one", kind, [(helper, arguments)], maps=more.get("maps", ()))
    outcome = run(case.program(), given if given is not None else {}, world, engine)
    assert outcome.fault is None, outcome.fault
    return outcome


def error(number: int) -> int:
    """A negative error number as r0 has it."""
    return -number & M32


@BOTH
def test_system_controls(engine: str) -> None:
    given = {"name": "net/ipv4/tcp_mem", "current_value": "3 4 5", "new_value": "7", "file_pos": 2}

    def value(helper: str, *arguments: Any, given: Any = given) -> int:
        return asked(engine, "cgroup_sysctl", helper, (CONTEXT, *arguments), given).retval

    room = Memory(bytes(24))
    assert value("sysctl_get_name", room, 24, 0) == 16
    assert value("sysctl_get_name", room, 24, 1) == 7
    assert value("sysctl_get_name", room, 16, 0) == error(errno.E2BIG)
    assert value("sysctl_get_current_value", room, 24) == 5
    assert value("sysctl_get_current_value", room, 5) == error(errno.E2BIG)
    assert value("sysctl_get_new_value", room, 24) == 1
    assert value("sysctl_get_new_value", room, 24, given={"name": "a"}) == error(errno.EINVAL)
    assert value("sysctl_set_new_value", Memory(b"900"), 3) == 0
    assert value("sysctl_set_new_value", Memory(b"900"), 3, given={"name": "a"}) == error(errno.EINVAL)


@BOTH
def test_messages(engine: str) -> None:
    def changed(helper: str, *arguments: int) -> tuple[int, bytes | None]:
        outcome = asked(engine, "sk_msg", helper, (CONTEXT, *arguments), b"abcdefgh")
        return outcome.retval, outcome.packet

    whole = b"abcdefgh"
    assert changed("msg_apply_bytes", 4) == (0, whole)
    assert changed("msg_push_data", 2, 3, 0) == (0, b"ab\0\0\0cdefgh")
    assert changed("msg_push_data", 9, 3, 0) == (error(errno.EINVAL), whole)
    assert changed("msg_pop_data", 2, 3, 0) == (0, b"abfgh")
    assert changed("msg_pop_data", 6, 3, 0) == (error(errno.EINVAL), whole)
    assert changed("msg_pull_data", 2, 6, 0) == (0, whole)
    assert changed("msg_pull_data", 2, 9, 0) == (error(errno.EINVAL), whole)
    assert changed("msg_pull_data", 2, 2, 0) == (error(errno.EINVAL), whole)


@BOTH
def test_a_pulled_message_shows_what_was_asked_for(engine: str) -> None:
    code = [copy(6, 1), *_call("msg_pull_data", (CONTEXT, 2, 6, 0)), load(8, 2, 6, 0), load(8, 0, 6, 8)]
    outcome = run(program([*code, reg(Op.SUB, 0, 2), EXIT], "sk_msg", ()), b"abcdefgh", World(), engine)
    assert outcome.retval == 4


@BOTH
def test_options_are_kept(engine: str) -> None:
    world, socket = World(), Socket("10.0.0.1", 80, kind="tcp")
    four = Memory((100).to_bytes(4, "little"))

    def value(helper: str, level: int, name: int, data: Memory, size: int) -> int:
        given = {"op": 3, "sk": socket}
        return asked(engine, "sock_ops", helper, (CONTEXT, level, name, data, size), given, world=world).retval

    assert value("setsockopt", 6, 2, four, 4) == 0
    assert world.options[socket.address, 6, 2] == four.data
    assert value("setsockopt", 1, 8, four, 4) == 0
    assert world.options[socket.address, 1, 8] == (2304).to_bytes(4, "little")
    assert value("setsockopt", 6, 13, Memory(b"bbr\0"), 4) == 0
    assert world.options[socket.address, 6, 13] == b"bbr"
    assert value("setsockopt", 6, 3, four, 4) == error(errno.EINVAL)
    assert value("setsockopt", 6, 2, four, 2) == error(errno.EINVAL)
    out = Memory(b"\xff" * 8, out=True)
    assert value("getsockopt", 6, 2, out, 4) == (0 * 31 + 100 + (0xFFFFFFFF << 32)) & M32
    assert value("getsockopt", 6, 13, out, 8) == int.from_bytes(b"bbr\0", "little")


@BOTH
def test_what_an_event_asks_for(engine: str) -> None:
    outcome = asked(engine, "sock_ops", "sock_ops_cb_flags_set", (CONTEXT, 0x185), {"op": 4})
    assert outcome.retval == 0x180


@BOTH
def test_a_socket_goes_into_a_map(engine: str) -> None:
    made, socket = MapDef("m", "sockmap", 4, 4, 2), Socket("10.0.0.1", 80)
    world = World([made])
    key = Memory(bytes(4))
    arguments = (CONTEXT, MapArgument(), key, 0)
    assert asked(engine, "sock_ops", "sock_map_update", arguments, {"sk": socket}, world=world, maps=[made]).retval == 0
    assert world.maps.m[0] is socket


@BOTH
def test_views_of_a_socket(engine: str) -> None:
    world = World()
    tcp = world.add_socket(Socket("10.0.0.1", 80, tcp={"snd_cwnd": 12}))
    udp = world.add_socket(Socket("fd00::1", 53, kind="udp"))
    for helper, found in (
        ("skc_to_tcp_sock", (tcp.address, 0)), ("skc_to_tcp6_sock", (0, 0)), ("skc_to_udp6_sock", (0, udp.address)),
        ("skc_to_unix_sock", (0, 0)), ("tcp_sock", (tcp.tcp_address, 0)),
    ):  # fmt: skip
        values = tuple(
            asked(engine, "sched_cls", helper, (one.address,), bytes(64), world=world).retval for one in (tcp, udp)
        )
        assert values == found, helper
    code = [mov(1, tcp.tcp_address), load(4, 0, 1, 0), EXIT]
    assert run(program(code, "sched_cls", ()), bytes(64), world, engine).retval == 12


@BOTH
def test_iterators_write(engine: str) -> None:
    world = World()
    given = {"args": [77], "seq_num": 3}
    code = [copy(6, 1), load(8, 7, 6, 0), load(8, 1, 7, 0), *_with_first("seq_write", Memory(b"abc"), 3)]
    code += [
        load(8, 1, 7, 0),
        *_with_first("seq_printf", Memory(b"%d-%s\n"[:3] + b"\n\0"), 5, Memory(bytes([9, *bytes(7)])), 8),
    ]
    code += [load(8, 0, 6, 8), load(8, 1, 7, 16), reg(Op.ADD, 0, 1), EXIT]
    made = program(code, "tracing", (), attach_type="trace_iter")
    outcome = run(made, given, world, engine)
    assert outcome.fault is None, outcome.fault
    assert (bytes(world.sequence), outcome.retval) == (b"abc9-\n", 80)


def _with_first(helper: str, *arguments: Any) -> list[Any]:
    """A call whose first argument is in r1 already."""
    code = _call(helper, (0, *arguments))
    return [insn for insn in code if not (insn.dst == 1 and insn.opcode == 0xB7)][:-2]


@BOTH
def test_storage_has_a_value_for_each_owner(engine: str) -> None:
    from simulator.maps.base import MapError

    made = MapDef("m", "cgroup_storage", 8, 8, 0)
    world = World([made])
    asked(engine, "cgroup_skb", "get_local_storage", (MapArgument(), 0), bytes(64), world=world, maps=[made])
    assert len(world.maps.m) == 1
    assert world.maps.m[world.task.cgroup_id] == 0
    with pytest.raises(MapError, match="EINVAL"):
        World([MapDef("m", "sk_storage", 4, 8, 0, flags=0)])


@BOTH
def test_a_user_ring_is_drained(engine: str) -> None:
    made = MapDef("m", "user_ringbuf", max_entries=4096)
    world = World([made])
    ring: Any = world.maps.m
    for sample in (b"\x05", b"\x06", b"\x07"):
        ring.write(sample)
    # The function returns 1: it stops at the first sample.
    main = [mov(0, 0), *_drain(), EXIT]
    outcome = run(program([*main, mov(0, 1), EXIT], "raw_tracepoint", [made]), {}, world, engine)
    assert outcome.fault is None, outcome.fault
    assert (outcome.retval, ring.samples) == (1, [b"\x06", b"\x07"])


def _drain() -> list[Any]:
    code = _call("user_ringbuf_drain", (MapArgument(), 0, 0, 0))[:-2]
    at = next(index for index, insn in enumerate(code) if insn.dst == 2)
    slots = sum(insn.slots for insn in code[at + 1 :])
    code[at] = function(2, slots + 2)
    return code


@BOTH
def test_the_area_of_an_address_is_shown(engine: str) -> None:
    world = World()
    world.task.areas.append((0x1000, 0x2000, 99))
    code = [mov(1, 1), mov(2, 0x1800), function(3, 5), mov(4, 0), mov(5, 0), _number("find_vma"), EXIT]
    made = program([*code, mov(0, 0), EXIT], "raw_tracepoint", ())
    assert run(made, {}, world, engine).retval == 0
    world.task.areas.clear()
    assert run(made, {}, world, engine).retval == error(errno.ENOENT)


def _number(helper: str) -> Any:
    from bpflisp.spec import helpers as spec
    from tests.simulator.assembly import call

    found = spec.by_name(helper)
    assert found is not None
    return call(found.id)


@BOTH
def test_cgroups_above(engine: str) -> None:
    world = World()
    world.task.cgroup_id, world.task.cgroup_ancestors = 30, [10, 20]
    for level, wanted in ((0, 10), (1, 20), (2, 30), (3, 0), (-1, 0)):
        assert asked(engine, "kprobe", "get_current_ancestor_cgroup_id", (level,), world=world).retval == wanted
        one = asked(engine, "sched_cls", "skb_ancestor_cgroup_id", (CONTEXT, level), bytes(64), world=world)
        assert one.retval == wanted
