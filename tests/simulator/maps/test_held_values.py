"""A program may go on with the address of an element that is gone: the kernel frees it after a grace period."""

from __future__ import annotations

from copy import deepcopy

import pytest

from simulator.memory import ADDRESS_LIMIT, RETIRED, Memory, MemoryFault
from simulator.run import run
from simulator.world import World
from tests import oracle
from tests.engines import as_parameters
from tests.simulator.verifier import readable

HELD = """\
%map t lpm_trie 8 8 4 flags=1
*(u32 *)(r10 -8) = 8
*(u32 *)(r10 -4) = 1
*(u64 *)(r10 -16) = 5
r1 = map t
r2 = r10
r2 += -8
r3 = r10
r3 += -16
r4 = 0
call bpf_map_update_elem
r1 = map t
r2 = r10
r2 += -8
call bpf_map_lookup_elem
if r0 == 0 goto out
r6 = r0
r1 = map t
r2 = r10
r2 += -8
{gone}
r0 = *(u64 *)(r6 +0)
out:
exit
"""

GONE = {
    "deleted": "call bpf_map_delete_elem",
    "written anew": "*(u64 *)(r10 -16) = 7\nr3 = r10\nr3 += -16\nr4 = 0\ncall bpf_map_update_elem",
}


@pytest.mark.parametrize("engine", as_parameters())
@pytest.mark.parametrize("how", GONE)
def test_a_value_that_is_held_stays(engine: str, how: str) -> None:
    program = readable.program(HELD.format(gone=GONE[how]), "held")
    world = World()
    for _ in range(3):
        assert run(program, bytes(64), world, engine).retval == 5
    assert len(world.maps["t"]) == (how != "deleted")


@pytest.mark.parametrize("how", GONE)
def test_the_kernel_lets_it_stay(how: str) -> None:
    possible, why = oracle.available()
    if not possible:
        pytest.skip(why)
    program = readable.program(HELD.format(gone=GONE[how]), "held")
    assert run(program, bytes(64), World(), "kernel").retval == 5


def test_only_the_last_are_kept() -> None:
    memory = Memory()
    gone = [memory.allocate("element", 8) for _ in range(RETIRED + 1)]
    for region in gone:
        memory.retire(region)
    with pytest.raises(MemoryFault):
        memory.read(gone[0].base, 8)
    copy = deepcopy(memory)
    assert copy.read(gone[1].base, 8) == memory.read(gone[1].base, 8) == bytes(8)
    copy.retire(copy.allocate("element", 8))
    with pytest.raises(MemoryFault):
        copy.read(gone[1].base, 8)
    assert memory.read(gone[1].base, 8) == bytes(8)


def test_what_is_kept_gives_way_where_there_is_no_room() -> None:
    memory = Memory()
    size = ADDRESS_LIMIT * 3 // 4
    most = memory.allocate("most of it", size)
    with pytest.raises(MemoryError):
        memory.allocate("as much again", size)
    memory.retire(most)
    assert memory.allocate("as much again", size).base == most.base
