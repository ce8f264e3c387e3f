"""What a map has before anyone writes to it: the programs of a prog-array, the name under which it is kept."""

from pathlib import Path

from bpflisp import compile_text
from simulator.loader import load
from simulator.run import run
from simulator.world import World
from tests.bpflisp.front.running import PACKET
from tests.bpflisp.front.test_miscompilations import libbpf_loads
from tests.engines import HERE

SOURCE = """
(defmap stages :type :prog-array :key-size 4 :value-size 4 :max-entries 8 :programs (on-tcp (5 on-udp) on-rest))
(defprog entry (:type :xdp :section "xdp")
  (tail-call stages (+ {} (ctx rx-queue-index)))
  7)
(defprog on-tcp (:type :xdp :section "xdp") XDP_DROP)
(defprog on-udp (:type :xdp :section "xdp") XDP_TX)
(defprog on-rest (:type :xdp :section "xdp") XDP_REDIRECT)
"""


def test_a_prog_array_holds_programs_from_the_start(tmp_path: Path) -> None:
    for index, expected in ((0, 1), (1, 7), (5, 3), (6, 4), (7, 7)):
        loaded = load(compile_text(SOURCE.format(index)), name="t")
        for engine in HERE:
            assert run(loaded["entry"], PACKET, World(loaded), engine).retval == expected
    libbpf_loads(SOURCE.format(0), tmp_path)


def test_a_map_is_pinned_by_its_name(tmp_path: Path) -> None:
    pin = Path("/sys/fs/bpf/bpflisp_pinned_by_test")
    source = """
    (defmap bpflisp-pinned-by-test :type :hash :key-size 4 :value-size 8 :max-entries 4 :pinning :by-name)
    (defmap own :type :hash :key-size 4 :value-size 8 :max-entries 4 :pinning :none)
    (defprog p (:type :xdp :section "xdp") (+ (getmap bpflisp-pinned-by-test 1) (getmap own 1)))"""
    try:
        libbpf_loads(source, tmp_path)
        assert pin.exists()
        assert not pin.with_name("own").exists()
    finally:
        if pin.exists():
            pin.unlink()
