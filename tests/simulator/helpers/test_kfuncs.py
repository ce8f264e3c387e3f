"""Kernel functions: mocked by name, and those that only hand on."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from bpflisp.spec.alu import M32
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import CALL_KFUNC
from simulator.run import engine_named, run
from simulator.sockets import Socket
from simulator.world import World
from tests.simulator.assembly import EXIT, mov, program

BOTH = pytest.mark.parametrize("engine", ["reference", "python"])


def called(name: str, argument: int, world: World, engine: str) -> int | str:
    """What a call of a kernel function gives, or the fault that it is."""
    code = [mov(1, argument), Insn(0x85, 0, CALL_KFUNC, 0, 0), EXIT]
    outcome = run(replace(program(code, "raw_tracepoint"), kfuncs={1: name}), {}, world, engine)
    return outcome.retval if outcome.fault is None else outcome.fault.message


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_named("python"), "first_runs", 0)


@BOTH
def test_a_kernel_function_is_mocked_by_name(engine: str) -> None:
    world = World()
    said = called("bpf_xdp_metadata_rx_hash", 1, world, engine)
    assert said == (
        "the kernel function bpf_xdp_metadata_rx_hash is not modelled: mock it, as in "
        "world.helpers.bpf_xdp_metadata_rx_hash.returns(0)"
    )
    world.helpers.bpf_xdp_metadata_rx_hash.returns(12)
    assert called("bpf_xdp_metadata_rx_hash", 1, world, engine) == 12


@BOTH
def test_tasks_and_cgroups_are_the_world_s(engine: str) -> None:
    world = World()
    world.task.address, world.task.cgroup_address = 77, 88
    world.task.pid, world.task.cgroup_id = 5, 6
    assert [called("bpf_task_from_pid", pid, world, engine) for pid in (5, 4)] == [77, 0]
    assert [called("bpf_cgroup_from_id", number, world, engine) for number in (6, 4)] == [88, 0]
    assert called("bpf_task_acquire", 77, world, engine) == 77


@BOTH
def test_a_socket_is_closed(engine: str) -> None:
    world = World()
    socket = world.add_socket(Socket("10.0.0.1", 80))
    assert called("bpf_sock_destroy", socket.address, world, engine) == 0
    assert world.sockets == []
    assert called("bpf_sock_destroy", socket.address, world, engine) == -errno.EOPNOTSUPP & M32
