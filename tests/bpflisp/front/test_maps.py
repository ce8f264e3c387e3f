"""Maps, ring buffers and tail calls, by running programs and looking at what is then in the maps."""

import pytest

from simulator.run import run
from simulator.world import World
from tests.bpflisp.front.running import PACKET, engines, loaded, result, value

M = "(defmap m :type {} :key-size {} :value-size {} :max-entries 8)\n"
PAIR = "(defstruct pair (a u32) (b u64))\n(defstruct small (x u16) (y u16))\n"


def after(source: str, packet: bytes = PACKET, runs: int = 1, **kept: bytes) -> list[World]:
    """One world for each engine, after running program `p`; `kept` puts values under key 1 of maps before."""
    worlds = []
    program = loaded(source)["p"]
    for engine in engines():
        world = World()
        world.bind(program)
        for name, content in kept.items():
            world.maps[name].update((1).to_bytes(world.maps[name].definition.key_size, "little"), content)
        for _ in range(runs):
            outcome = run(program, packet, world, engine)
            assert outcome.fault is None
        worlds.append(world)
    return worlds


def contents(world: World, name: str = "m") -> dict[bytes, bytes]:
    return dict(world.maps[name].raw_items())


@pytest.mark.parametrize("kind", [":hash", ":lru-hash", ":array", ":percpu-hash", ":percpu-array"])
@pytest.mark.parametrize("size", [4, 8])
def test_count(kind: str, size: int) -> None:
    source = (
        M.format(kind, 4, size)
        + """
    (defprog p () (incf (getmap m 3)) (incf (getmap m 3) 10) (decf (getmap m 3) 2) 0)"""
    )
    for world in after(source, runs=2):
        found = contents(world)[(3).to_bytes(4, "little")]
        assert int.from_bytes(found[:size], "little") == 18


@pytest.mark.parametrize("size", [1, 2])
def test_count_narrow_per_cpu(size: int) -> None:
    source = M.format(":percpu-hash", 4, size) + "(defprog p () (incf (getmap m 3) 257) (getmap m 3))"
    for world in after(source):
        assert contents(world)[(3).to_bytes(4, "little")][:size] == (257).to_bytes(2, "little")[:size]


def test_counting_down_from_nothing_wraps() -> None:
    source = M.format(":hash", 4, 8) + "(defprog p () (decf (getmap m 3)) 0)"
    for world in after(source):
        assert contents(world)[b"\3\0\0\0"] == b"\xff" * 8


@pytest.mark.parametrize("key_size", [1, 2, 4, 8, 3, 12])
@pytest.mark.parametrize("value_size", [1, 2, 4, 8, 6, 16])
def test_a_narrow_value_is_zero_extended(key_size: int, value_size: int) -> None:
    """What is stored is the number and zeros, and nothing of the stack beside it."""
    source = (
        M.format(":hash", key_size, value_size)
        + """
    (defprog p ()
      (let ((noise (struct-alloc 64)))
        (memset noise 0 255 64)
        (with-packet (data end :min-len 20)
          (setf (getmap m (load u8 data 0)) (load u8 data 1))
          (load u8 noise 3))))"""
    )
    for world in after(source, bytes([5, 7, *range(62)])):
        assert contents(world) == {(5).to_bytes(key_size, "little"): (7).to_bytes(value_size, "little")}


def test_struct_keys_and_values_by_pointer() -> None:
    source = (
        PAIR
        + """
    (defmap m :type :hash :key-type pair :value-type pair :max-entries 8)
    (defprog p ()
      (let ((k (make-pair)) (v (make-pair)))
        (setf (pair-a k) 1 (pair-b k) 2 (pair-b v) 5)
        (setf (getmap m k) v)
        (let ((found (getmap m k)))
          (when found
            (incf (pair-b found) 10)
            (return (pair-b found))))
        99))"""
    )
    for world in after(source):
        key = (1).to_bytes(8, "little") + (2).to_bytes(8, "little")
        assert contents(world) == {key: bytes(8) + (15).to_bytes(8, "little")}


def test_a_small_struct_key_is_not_its_address() -> None:
    source = (
        PAIR
        + """
    (defmap m :type :hash :key-type small :value-type u32 :max-entries 8)
    (defprog p ()
      (let ((k (make-small)))
        (setf (small-x k) 3 (small-y k) 4)
        (setf (getmap m k) 9)
        (incf (getmap m k))
        (getmap m k)))"""
    )
    for world in after(source):
        assert contents(world) == {b"\3\0\4\0": b"\12\0\0\0"}


def test_small_struct_values() -> None:
    source = (
        PAIR
        + """
    (defmap m :type :array :key-size 4 :value-type small :max-entries 2)
    (defprog p ()
      (let ((v (make-small)))
        (setf (small-y v) 4 (getmap m 1) v)
        (let ((found (getmap m 1))) (if found (small-y found) 77))))"""
    )
    for world in after(source):
        assert contents(world)[b"\1\0\0\0"] == b"\0\0\4\0"


def test_value_of_setf_getmap() -> None:
    assert value("(let ((x (setf (getmap m 1) 42))) (+ x (getmap m 1)))", M.format(":hash", 4, 8)) == 84


def test_missing_key_is_zero() -> None:
    assert value("(+ 5 (getmap m 1))", M.format(":hash", 4, 8)) == 5


def test_signed_values() -> None:
    before = "(defmap m :type :hash :key-type u32 :value-type i32 :max-entries 4)\n"
    assert value("(progn (setf (getmap m 1) -5) (s< (getmap m 1) 0))", before) == 1


def test_primitives() -> None:
    source = (
        M.format(":hash", 4, 8)
        + """
    (defprog p ()
      (let ((r 0))
        (when (= (map-update m 1 5 BPF_NOEXIST) 0) (incf r))
        (when (/= (map-update m 1 6 BPF_NOEXIST) 0) (incf r 10))
        (when (/= (setmap m 2 7 BPF_EXIST) 0) (incf r 100))
        (when-let ((p (map-lookup m 1))) (when (= (load u64 p) 5) (incf r 1000)))
        (when (= (map-delete m 1) 0) (incf r 10000))
        (when (/= (delmap m 1) 0) (incf r 100000))
        (when (/= (remmap m 1) 0) (incf r 1000000))
        r))"""
    )
    program = loaded(source)["p"]
    assert [run(program, PACKET, World(), engine).retval for engine in engines()] == [1111111] * len(engines())


def test_pointer_forms() -> None:
    source = (
        M.format(":hash", 12, 16)
        + """
    (defprog p ()
      (let ((k (struct-alloc 12)) (v (struct-alloc 16)))
        (store u32 k 8 1) (store u64 v 8 9)
        (map-update-ptr m k v)
        (let ((r (if-let (p (map-lookup-ptr m k)) (load u64 p 8) 0)))
          (+ r (map-delete-ptr m k)))))"""
    )
    program = loaded(source)["p"]
    assert [run(program, PACKET, World(), engine).retval for engine in engines()] == [9] * len(engines())


def test_ring_buffer_record() -> None:
    source = """
    (defstruct event (a u32) (b u64))
    (defmap events :type :ringbuf :max-entries 4096)
    (defprog p ()
      (with-ringbuf (e events (sizeof event))
        (setf (event-a e) 7 (event-b e) 9)
        5))"""
    program = loaded(source)["p"]
    for engine in engines():
        world = World()
        assert run(program, PACKET, world, engine).retval == 5


@pytest.mark.parametrize(
    "body",
    [
        "(when (ctx ingress-ifindex) (return 3)) 5",
        "(dotimes (i 3) (when (= i 1) (return 3)))",
        "(return (progn (setf (event-a e) 1) 3))",
    ],
)
def test_a_record_is_discarded_on_the_way_out(body: str) -> None:
    """Otherwise the kernel refuses the program: the record would never be released."""
    source = f"""
    (defstruct event (a u32))
    (defmap events :type :ringbuf :max-entries 4096)
    (defprog p () (with-ringbuf (e events (sizeof event)) {body}))"""
    program = loaded(source)["p"]
    assert [run(program, PACKET, World(), engine).retval for engine in engines()] == [3] * len(engines())


def test_a_record_is_discarded_by_break() -> None:
    source = """
    (defmap events :type :ringbuf :max-entries 4096)
    (defprog p ()
      (let ((n 0))
        (dotimes (i 5)
          (with-ringbuf (e events 8)
            (when (= i 2) (continue))
            (when (= i 4) (break))
            (store u64 e 0 i)
            (incf n)))
        n))"""
    program = loaded(source)["p"]
    assert [run(program, PACKET, World(), engine).retval for engine in engines()] == [3] * len(engines())


ONE = "(= (ctx ingress-ifindex) 1)"  # true in a test run, and not known when compiling


@pytest.mark.parametrize(
    ("body", "expected", "sent"),
    [
        ("(store u64 e 0 5) 4", 4, 1),
        (f"(store u64 e 0 5) (when {ONE} (ringbuf-discard e 0) (return 3)) 4", 3, 0),
        (f"(store u64 e 0 5) (unless {ONE} (ringbuf-discard e 0) (return 3)) 4", 4, 1),
        (f"(store u64 e 0 5) (when {ONE} (ringbuf-submit e 0) (return 3)) 4", 3, 1),
        (f"(store u64 e 0 5) (if {ONE} (ringbuf-submit e) (ringbuf-discard e)) (when {ONE} (return 3)) 4", 3, 1),
        ("(store u64 e 0 5) (ringbuf-submit e) 4", 4, 1),
        ("(store u64 e 0 5) (bpf-ringbuf-discard e 0) (return 4)", 4, 0),
        ("(store u64 e 0 5) (ringbuf-discard e) 4", 4, 0),
        (f"(with-ringbuf (f r 8) (store u64 f 0 1) (ringbuf-discard e) (when {ONE} (return 3)) 4)", 3, 0),
        ("(store u64 e 0 1) (with-ringbuf (f r 8) (store u64 f 0 1) (ringbuf-discard e) 4)", 4, 1),
        (f"(store u64 e 0 1) (block b (when {ONE} (ringbuf-discard e) (return-from b 3)) 4)", 3, 0),
    ],
)
def test_a_record_that_is_released_by_name_is_not_released_again(body: str, expected: int, sent: int) -> None:
    """The book discards a record by hand before `return`."""
    source = f"""
    (defmap r :type :ringbuf :max-entries 4096)
    (defprog p (:type :xdp) (with-ringbuf (e r 8) {body}))"""
    assert result(source) == expected
    for opt in (0, 2):
        world = World(loaded(source, opt))
        run(loaded(source, opt)["p"], PACKET, world, "reference")
        assert len(list(world.maps["r"])) == sent


def test_tail_call_falls_through() -> None:
    before = "(defmap jumps :type :prog-array :key-size 4 :value-size 4 :max-entries 2)\n"
    assert value("(+ (tail-call jumps 0) 6)", before) == 6


def test_map_types_are_in_btf() -> None:
    """`:key-type` and `:value-type` give the map its BTF types, so that tools can show its contents."""
    source = (
        PAIR
        + """
    (defmap m :type :hash :key-type u16 :value-type pair :max-entries 8)
    (defprog p () (getmap m 1) 0)"""
    )
    definition = loaded(source).maps["m"]
    assert (definition.key_size, definition.value_size) == (2, 16)
    world = World()
    world.bind(loaded(source)["p"])
    world.maps["m"][5] = {"a": 1, "b": 2}
    assert dict(world.maps["m"].raw_items()) == {b"\5\0": (1).to_bytes(8, "little") + (2).to_bytes(8, "little")}


def test_flags_may_be_left_out() -> None:
    """The book reserves a record by a map and a size alone."""
    before = "(defmap r :type :ringbuf :max-entries 4096)"
    body = """
    (let ((e (ringbuf-reserve r 16)) (b (struct-alloc 16)))
      (when e (store u64 e 0 1) (ringbuf-submit e))
      (let ((second (ringbuf-reserve r 16))) (when second (ringbuf-discard second)))
      (+ 3 (ringbuf-output r b 16)))"""
    assert value(body, before) == 3
