"""XDP hands metadata on to TC: a program of each, one after the other in one world."""

from __future__ import annotations

import pytest

from simulator import EngineUnavailable, InputRefused, Program, World

# r6 = ctx; adjust_meta(ctx, -4); r1 = data_meta; r2 = data; r1 + 4 > data: pass; *(u32 *)r1 = 77; return 2
XDP = (
    "bf16000000000000 b7020000fcffffff 8500000036000000 6161080000000000 6162000000000000 bf13000000000000"
    "0703000004000000 2d23010000000000 620100004d000000 b700000002000000 9500000000000000"
)
# r2 = data_meta; r3 = data; r0 = 0; r2 + 4 > r3: return 0; r0 = *(u32 *)r2; exit
TC = (
    "61128c0000000000 61134c0000000000 b700000000000000 bf24000000000000 0704000004000000 2d34010000000000"
    "6120000000000000 9500000000000000"
)


def _program(code: str, kind: str) -> Program:
    return Program(bytes.fromhex(code), kind, name=kind)


@pytest.mark.parametrize("engine", ["reference", "python"])
def test_what_xdp_leaves_tc_reads(engine: str) -> None:
    world, packet = World(), bytes(range(64))
    passed = _program(XDP, "xdp")(packet, world=world, engine=engine)
    assert (passed.retval, len(passed.packet or b"")) == (2, 68)
    metadata, rest = bytes(passed.packet or b"")[:4], bytes(passed.packet or b"")[4:]
    assert rest == packet
    classify = _program(TC, "sched_cls")
    for _ in range(6):
        read = classify(rest, world=world, engine=engine, context={"data_meta": metadata})
        assert (read.retval, read.packet) == (77, packet)
    assert classify(rest, world=world, engine=engine) == 0


def test_the_kernel_s_test_run_takes_none() -> None:
    with pytest.raises(EngineUnavailable):
        _program(TC, "sched_cls")(bytes(64), engine="kernel", context={"data_meta": bytes(4)})


@pytest.mark.parametrize(
    ("kind", "metadata"), [("sched_cls", bytes(3)), ("sched_cls", bytes(256)), ("cgroup_skb", bytes(4))]
)
def test_what_cannot_be_is_refused(kind: str, metadata: bytes) -> None:
    with pytest.raises(InputRefused, match="data_meta is up to 252 bytes in words of 4, of TC programs"):
        _program("b700000001000000 9500000000000000", kind).run(bytes(64), context={"data_meta": metadata})
