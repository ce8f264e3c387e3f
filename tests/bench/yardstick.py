"""The yardstick of the engine benchmarks: a plain if/elif loop over decoded instructions, fixed for good.

Run it for microseconds a run of each program of programs.json; import `prepare` to time it beside an engine in one
process: run = prepare("xdp"); run(packet_index). In the same round it takes about 45 (xorshift1k), 33 (cksum) and 40
(xdp) times as long as uBPF's C interpreter (medians of 5). Only what those programs use is here: it measures, it is no
engine to build on. Change nothing that it does: figures of years would no longer compare.
"""

import json
import pathlib
import statistics
import struct
import time
from collections.abc import Callable
from typing import Any

M, M32 = 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF
U = {1: struct.Struct("<B"), 2: struct.Struct("<H"), 4: struct.Struct("<I"), 8: struct.Struct("<Q")}
SIZE = {0x10: 1, 0x08: 2, 0x00: 4, 0x18: 8}
SHIFT, OFFSET = 24, (1 << 24) - 1
CTX, STACK, PACKET, VALUES, MAP = 1 << SHIFT, 2 << SHIFT, 3 << SHIFT, 4 << SHIFT, 5 << SHIFT
Decoded = tuple[int, int, int, int, int]
DATA = json.loads((pathlib.Path(__file__).parent / "programs.json").read_text())
PACKETS = [bytes.fromhex(p) for p in DATA["packets"]]


def signed(x: int, bits: int) -> int:
    return x - (1 << bits) if x >> (bits - 1) else x


def swap(v: int, n: int) -> int:
    return int.from_bytes((v & ((1 << n) - 1)).to_bytes(n // 8, "little"), "big")


def decode(code: bytes) -> list[Decoded]:
    out = []
    for i in range(0, len(code), 8):
        op, regs, off, imm = struct.unpack_from("<BBhi", code, i)
        if op == 0x18:
            high = struct.unpack_from("<I", code, i + 12)[0]
            imm = MAP if regs >> 4 == 5 else (imm & M32) | high << 32
        out.append((op, regs & 15, regs >> 4, off, imm))
    return out


def interpret(prog: list[Decoded], mem: list[Any], helpers: dict[int, Callable[..., int]], r1: int) -> int:
    R = [0] * 11
    R[1], R[10], pc = r1, STACK + 512, 0

    def ld(a: int, n: int) -> Any:
        if a >> 30:
            raise MemoryError(hex(a))
        return U[n].unpack_from(mem[a >> SHIFT], a & OFFSET)[0]

    def st(a: int, n: int, v: int) -> None:
        if a >> 30:
            raise MemoryError(hex(a))
        U[n].pack_into(mem[a >> SHIFT], a & OFFSET, v & ((1 << 8 * n) - 1))

    while True:
        op, d, s, off, imm = prog[pc]
        pc += 1
        cls, k = op & 7, op & 0xF0
        if cls == 7 or cls == 4:
            w = cls == 7
            mask, bits = (M, 64) if w else (M32, 32)
            a, b = R[d] & mask, (R[s] if op & 8 else imm) & mask
            if k == 0x00:
                v = a + b
            elif k == 0x10:
                v = a - b
            elif k == 0xB0:
                v = b
            elif k == 0x50:
                v = a & b
            elif k == 0x40:
                v = a | b
            elif k == 0xA0:
                v = a ^ b
            elif k == 0x60:
                v = a << (b & bits - 1)
            elif k == 0x70:
                v = a >> (b & bits - 1)
            elif k == 0xC0:
                v = signed(a, bits) >> (b & bits - 1)
            elif k == 0x20:
                v = a * b
            elif k == 0xD0:
                v, mask = (swap(R[d], imm) if w or op & 8 else R[d] & ((1 << imm) - 1)), M
            else:
                raise NotImplementedError(hex(op))
            R[d] = v & mask
        elif cls == 1:
            R[d] = ld((R[s] + off) & M, SIZE[op & 0x18])
        elif cls == 3:
            a, n = (R[d] + off) & M, SIZE[op & 0x18]
            if op & 0xE0 == 0x60:
                st(a, n, R[s])
            elif imm == 0:
                st(a, n, ld(a, n) + R[s])
            else:
                raise NotImplementedError(hex(op))
        elif cls == 2:
            st((R[d] + off) & M, SIZE[op & 0x18], imm)
        elif cls == 5 or cls == 6:
            if k == 0x00:
                pc += off
            elif k == 0x90:
                return R[0]
            elif k == 0x80:
                R[0] = helpers[imm](R[1], R[2], R[3], R[4]) & M
            else:
                a, b = R[d], R[s] if op & 8 else imm & M
                if cls == 6:
                    a, b = a & M32, b & M32
                t: Any
                if k == 0x10:
                    t = a == b
                elif k == 0x50:
                    t = a != b
                elif k == 0x20:
                    t = a > b
                elif k == 0x30:
                    t = a >= b
                elif k == 0xA0:
                    t = a < b
                elif k == 0xB0:
                    t = a <= b
                elif k == 0x40:
                    t = a & b
                else:
                    bits = 64 if cls == 5 else 32
                    a, b = signed(a, bits), signed(b, bits)
                    t = a > b if k == 0x60 else a >= b if k == 0x70 else a < b if k == 0xC0 else a <= b
                if t:
                    pc += off
        elif op == 0x18:
            R[d] = imm
            pc += 1
        else:
            raise NotImplementedError(hex(op))


def prepare(name: str) -> Callable[[int], int]:
    """A function of a packet's index (ignored but by xdp) that runs the program once and returns r0."""
    prog = decode(bytes.fromhex(DATA["programs"][name]))
    mem: list[Any] = [
        None,
        bytearray(bytes.fromhex(DATA["data1500"])),
        bytearray(512),
        bytearray(60),
        bytearray(16 * 4096),
    ] + [None] * 59
    slots: dict[bytes, Any] = {}
    free = list(range(4095, -1, -1))

    def lookup(m: int, key: int, *_: int) -> Any:
        k = bytes(mem[key >> SHIFT][key & OFFSET : (key & OFFSET) + 16])
        return slots.get(k, 0)

    def update(m: int, key: int, value: int, *_: int) -> int:
        k = bytes(mem[key >> SHIFT][key & OFFSET : (key & OFFSET) + 16])
        at = slots.setdefault(k, None) or VALUES + 16 * free.pop()
        slots[k] = at
        mem[4][at & OFFSET : (at & OFFSET) + 16] = mem[value >> SHIFT][value & OFFSET : (value & OFFSET) + 16]
        return 0

    helpers: dict[int, Callable[..., int]] = {1: lookup, 2: update}
    if name != "xdp":
        return lambda i: interpret(prog, mem, helpers, CTX)
    mem[1] = bytearray(24)
    struct.pack_into("<II", mem[1], 0, PACKET, PACKET + 60)
    packet = mem[3]

    def once(i: int) -> int:
        packet[:] = PACKETS[i & 255]
        return interpret(prog, mem, helpers, CTX)

    return once


if __name__ == "__main__":
    for name, runs in (("ten", 20000), ("ctr1k", 60), ("xorshift1k", 20), ("cksum", 30), ("xdp", 2000)):
        once, times = prepare(name), []
        for _ in range(5):
            start = time.process_time()
            for i in range(runs):
                result = once(i)
            times.append((time.process_time() - start) / runs * 1e6)
        print(f"{name:12} {statistics.median(times):10.2f} us  r0={result:#x}")
