"""Every type of map: from `defmap` to a map that the engines model and that the kernel creates."""

import pytest

from bpflisp import compile_text
from bpflisp.front.declare_maps import NOT_BUILT
from bpflisp.spec import maps
from simulator.loader import load
from simulator.world import World
from tests import oracle

SIZES = {
    "stack_trace": ":key-size 4 :value-size 1016 :max-entries 4",
    "ringbuf": ":max-entries 4096",
    "user_ringbuf": ":max-entries 4096",
    "queue": ":value-size 8 :max-entries 4",
    "stack": ":value-size 8 :max-entries 4",
    "bloom_filter": ":value-size 8 :max-entries 4",
    "lpm_trie": ":key-size 8 :value-size 8 :max-entries 4 :map-flags BPF_F_NO_PREALLOC",
    "cgroup_storage": ":key-size 8 :value-size 8",
    "percpu_cgroup_storage": ":key-size 8 :value-size 8",
    **dict.fromkeys(maps.LOCAL_STORAGE, ":key-size 4 :value-size 8 :map-flags BPF_F_NO_PREALLOC"),
    **dict.fromkeys(
        ("prog_array", "perf_event_array", "cgroup_array", "devmap", "devmap_hash", "sockmap", "sockhash", "cpumap",
         "xskmap", "reuseport_sockarray"), ":key-size 4 :value-size 4 :max-entries 4"
    ),
}  # fmt: skip
TYPES = [kind.name for kind in maps.all_map_types() if kind.name not in NOT_BUILT]
NEWER = {"insn_array", "rhash"}
"""Types that 6.18 does not have, or creates only with what a source does not say."""

USES = {
    "queue": "(map-push-elem m (stack-addr x) 0)", "stack": "(map-push-elem m (stack-addr x) 0)",
    "bloom_filter": "(map-push-elem m (stack-addr x) 0)", "ringbuf": "(ringbuf-output m (stack-addr x) 8 0)",
    "perf_event_array": "(perf-event-output (ctx-ptr) m BPF_F_CURRENT_CPU (stack-addr x) 8)",
    "prog_array": "(tail-call m 0)", "devmap": "(redirect-map m 0 0)", "devmap_hash": "(redirect-map m 0 0)",
    "cpumap": "(redirect-map m 0 0)", "xskmap": "(redirect-map m 0 0)",
    **dict.fromkeys(
        ("hash", "array", "percpu_hash", "percpu_array", "lru_hash", "lru_percpu_hash", "lpm_trie"), "(getmap m x)"
    ),
}  # fmt: skip


def source(kind: str) -> str:
    sizes = SIZES.get(kind, ":key-size 4 :value-size 8 :max-entries 4")
    use = USES.get(kind, "x")
    return f"(defmap m :type :{kind.replace('_', '-')} {sizes})\n(defprog p (:type :xdp) (let ((x 1)) {use}))"


@pytest.mark.parametrize("kind", TYPES)
def test_the_object_has_the_map(kind: str) -> None:
    found = load(compile_text(source(kind))).maps["m"]
    assert found.type == kind


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind not in NEWER])
def test_engines_model_it_and_the_kernel_takes_a_program_with_it(kind: str) -> None:
    program = load(compile_text(source(kind)))["p"]
    World().bind(program)
    works, why = oracle.available()
    if not works:
        pytest.skip(why)
    if kind in USES:
        answer = oracle.ask(program)
        assert answer.accepted, answer.log
