"""The checks before exploration answer as kernel 6.18.44 did, case by case."""

from __future__ import annotations

import json
import platform
from typing import Any

import pytest

from bpflisp.spec.kernels import profile
from simulator.verifier.callfacts import kfunc_flags
from simulator.verifier.layout import Layout, prepare
from simulator.verifier.refusal import UNCLASSED, Refused
from tests.simulator.verifier.layout_cases import FIXTURE, answer_of, program_of

ROWS = [json.loads(line) for line in FIXTURE.read_text().splitlines()]
NAMES = [row["record"]["id"] for row in ROWS]
REFUSED = [row for row in ROWS if "message" in row["answer"]]
PASSED = [row for row in ROWS if "message" not in row["answer"]]


def name_of(row: dict[str, Any]) -> str:
    return str(row["record"]["id"])


def layout_of(name: str) -> Layout:
    return prepare(program_of(ROWS[NAMES.index(name)]), profile())


@pytest.mark.parametrize("row", REFUSED, ids=name_of)
def test_refuses_in_the_kernels_words(row: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        prepare(program_of(row), profile())
    assert caught.value.message == row["answer"]["message"]
    assert caught.value.errno == row["answer"]["errno"]
    assert caught.value.code != UNCLASSED


@pytest.mark.parametrize("row", PASSED, ids=name_of)
def test_finds_the_kernels_functions_loops_and_live_registers(row: dict[str, Any]) -> None:
    layout = prepare(program_of(row), profile())
    assert [one.start for one in layout.subprograms] == row["answer"]["functions"]
    for slot, (loop, registers) in row["answer"]["live"].items():
        mask = layout.live_registers[int(slot)]
        ours = "".join(str(number) if mask >> number & 1 else "." for number in range(10))
        assert (layout.loop[int(slot)], ours) == (loop, registers), slot


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_the_running_kernel_still_answers_so(row: dict[str, Any]) -> None:
    from tests import oracle

    can_ask, why = oracle.available()
    if not can_ask:
        pytest.skip(why)
    if not platform.release().startswith("6.18."):
        pytest.skip("the answers are those of kernel 6.18")
    try:
        assert answer_of(program_of(row)) == row["answer"]
    except oracle.CannotAskError as error:
        pytest.skip(str(error))


def test_states_are_compared_where_paths_meet_and_split() -> None:
    layout = layout_of("loop")
    assert [slot for slot, marked in enumerate(layout.prune_point) if marked] == [1, 2]
    assert [slot for slot, marked in enumerate(layout.jump_point) if marked] == [1]
    assert not any(layout.force_checkpoint)


def test_a_call_is_a_prune_point_and_so_are_both_its_ends() -> None:
    layout = layout_of("call")
    assert [slot for slot, marked in enumerate(layout.prune_point) if marked] == [0, 1, 2]


def test_may_goto_always_keeps_a_state() -> None:
    layout = layout_of("may_goto")
    assert [slot for slot, marked in enumerate(layout.force_checkpoint) if marked] == [1]


def test_a_map_is_used_from_its_first_load_on() -> None:
    layout = layout_of("value")
    assert layout.maps == (0,)
    assert (layout.loaded[0].kind, layout.loaded[0].map, layout.loaded[0].offset) == ("map_value", 0, 4)


def test_functions_know_their_names_and_what_they_may_do() -> None:
    main, sub = layout_of("functions with BTF").subprograms
    assert (main.name, sub.name) == ("main", "sub")
    assert (main.is_global, sub.is_global) == (False, False)


@pytest.mark.parametrize(
    ("name", "kind", "attach", "may"),
    [
        ("bpf_rcu_read_lock", "socket_filter", "", True),
        ("bpf_dynptr_from_xdp", "xdp", "", True),
        ("bpf_dynptr_from_xdp", "sched_cls", "", False),
        ("bpf_session_cookie", "kprobe", "", False),
        ("bpf_session_cookie", "kprobe", "trace_kprobe_session", True),
        ("bpf_sock_destroy", "tracing", "trace_raw_tp", False),
        ("bpf_sock_destroy", "tracing", "trace_iter", True),
        ("bpf_cgroup_acquire", "cgroup_skb", "", True),
    ],
)
def test_who_may_call_a_kernel_function_is_what_the_kernel_answered(
    name: str, kind: str, attach: str, may: bool
) -> None:
    assert (kfunc_flags(name, kind, attach) is not None) == may
