"""The library beyond the chapter: further protocols, `defunion`, `defheader`, forms for tracing."""

import struct
from pathlib import Path

import pytest

from bpflisp import CompileError, compile_text
from bpflisp.spec.insn import decode
from bpflisp.spec.isa import Kind
from simulator.loader import load
from simulator.run import run
from simulator.world import World
from tests.bpflisp.front.running import result, value

MACS = bytes(range(12))
ETH4, ETH6, ARP = (MACS + struct.pack("!H", number) for number in (0x0800, 0x86DD, 0x0806))
IP4 = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 7, 0, 64, 1, 0, bytes(4), bytes(4))
IP6 = struct.pack("!IHBB16s16s", 0x60000000, 20, 6, 64, bytes(range(16)), bytes(range(16, 32)))
TCP = struct.pack("!HHIIBBHHH", 1234, 443, 1, 2, 0x50, 2, 512, 0, 0)
ICMP = struct.pack("!BBHI", 8, 0, 0x1111, 7)
PAD = bytes(40)

PACKETS = {
    "ipv6": ETH6 + IP6 + TCP + PAD,
    "icmp": ETH4 + IP4 + ICMP + PAD,
    "icmpv6": ETH6 + IP6[:6] + b"\x3a" + IP6[7:] + ICMP + PAD,
    "arp": ARP + struct.pack("!HHBBH6sI6sI", 1, 0x0800, 6, 4, 2, bytes(6), 1, bytes(6), 0x0A000001) + PAD,
    "tcp6": ETH6 + IP6 + TCP + PAD,
    "udp6": ETH6 + IP6[:6] + b"\x11" + IP6[7:] + TCP + PAD,
}


@pytest.mark.parametrize(
    ("form", "read", "expected"),
    [
        ("ipv6", "(ipv6-hop-limit h)", 64),
        ("ipv6", "(cast u8 (ipv6-dst-addr-hi h))", 16),
        ("icmp", "(icmp-type h)", 8),
        ("icmpv6", "(icmpv6-checksum h)", 0x1111),
        ("arp", "(arp-op h)", 2),
        ("arp", "(ntohl (arp-target-addr h))", 0x0A000001),
        ("tcp6", "(tcp-dst-port h)", 443),
        ("udp6", "(udp-dst-port h)", 443),
    ],
)
def test_protocol(form: str, read: str, expected: int) -> None:
    packet = PACKETS[form]
    other = PACKETS["arp" if form != "arp" else "icmp"]
    body = f"(with-{form} (data end h) (return {read})) 99"
    assert value(body, packet=packet) == expected
    assert value(body, packet=other) == 99
    tc = f'(defprog p (:type :tc :section "tc") (with-tc-{form} (data end h) (return {read})) 99)'
    assert result(tc, packet) == expected
    body = f"(let ((data (xdp-data)) (end (xdp-data-end))) (if-let (h (parse-{form} data end)) {read} 99))"
    assert value(body, packet=packet) == expected
    assert value(body, packet=other) == 99
    body = f"(let ((data (tc-data)) (end (tc-data-end))) (if-let (h (parse-{form} data end)) {read} 99))"
    assert result(f'(defprog p (:type :tc :section "tc") {body})', packet) == expected


@pytest.mark.parametrize("tags", [0, 1, 2])
def test_vlan_tags(tags: int) -> None:
    body = """
    (with-vlan (data end l3 type)
      (when (= type +ethertype-ipv4+)
        (when (> (+ l3 +ipv4-hdr-len+) end) (return 98))
        (return (ipv4-ttl l3))))
    99"""
    tag = struct.pack("!HH", 0x88A8, 5) + struct.pack("!HH", 0x8100, 6)
    packet = MACS + tag[(2 - tags) * 4 :] + struct.pack("!H", 0x0800) + IP4 + PAD
    assert value(body, packet=packet) == 64
    assert value(body, packet=PACKETS["arp"]) == 99
    body = """
    (let ((data ({0}-data)) (end ({0}-data-end)))
      (when-let ((l3 (parse-vlan data end)))
        (when (> (+ l3 +ipv4-hdr-len+) end) (return 98))
        (return (+ (ipv4-ttl l3) (ntohs (load u16 (- l3 2)))))))
    99"""
    assert value(body.format("xdp"), packet=packet) == 0x0800 + 64
    assert value(body.format("xdp"), packet=packet[: 14 + 4 * tags + 5]) == 98
    assert result(f'(defprog p (:type :tc :section "tc") {body.format("tc")})', packet) == 0x0800 + 64


def test_a_tag_that_is_cut_off() -> None:
    body = "(let ((data (xdp-data)) (end (xdp-data-end))) (if (parse-vlan data end) 1 99))"
    assert value(body, packet=MACS + bytes([0x81, 0, 0, 5])) == 99


@pytest.mark.parametrize("form", ["tcp", "udp", "icmp"])
def test_parsers_that_go_by_the_headers_own_length(form: str) -> None:
    body = f"(let ((d (xdp-data)) (e (xdp-data-end))) (if-let (h (parse-{form} d e :ihl t)) (load u8 h 1) 99))"
    proto = bytes([{"tcp": 6, "udp": 17, "icmp": 1}[form]])
    header = b"\x47" + IP4[1:9] + proto + IP4[10:] + bytes(8)
    size = {"tcp": 20, "udp": 8, "icmp": 8}[form]
    assert value(body, packet=ETH4 + header + bytes([7, 5]) + bytes(size - 2)) == 5
    assert value(body, packet=ETH4 + header + bytes(size - 1)) == 99


def test_union() -> None:
    before = "(defstruct a (x u32)) (defstruct b (y u16) (z u64)) (defunion either a b)\n"
    assert value("(sizeof either)", before) == 16
    assert value("(let ((u (make-either))) (setf (a-x u) #x12345) (b-y u))", before) == 0x2345


def test_header() -> None:
    before = """
    (defheader vxlan (flags :offset 0 :type u8) (vni :offset 4 :type u32 :net-order t) (id :offset 8 :type u64))
    """
    body = "(let ((h (struct-alloc 16))) (setf (vxlan-vni h) #x11223344) (incf (vxlan-flags h) 3) {})"
    assert value(body.format("(load u32 h 4)"), before) == 0x44332211
    assert value(body.format("(vxlan-vni h)"), before) == 0x11223344
    assert value(body.format("(vxlan-flags h)"), before) == 3


def test_a_signed_field_in_network_order() -> None:
    before = "(defheader h (at :offset 2 :type i16 :net-order t))"
    body = "(let ((h (struct-alloc 8))) (setf (h-at h) -2) (incf (h-at h) -1) (+ (h-at h) (* 256 (load u8 h 3))))"
    assert value(body, before) == 256 * 0xFD - 3


def offsets(form: str, arch: str) -> list[int]:
    text = f'(defprog p (:type :kprobe :section "kprobe/f") {form})'
    program = load(compile_text(text, arch=arch))["p"]
    return [insn.off for insn in decode(program.insns) if insn and insn.row.kind is Kind.LOAD]


@pytest.mark.parametrize(
    ("form", "x86", "arm"),
    [
        ("(pt-regs-parm1)", 112, 0),
        ("(pt-regs-parm2)", 104, 8),
        ("(pt-regs-parm3)", 96, 16),
        ("(pt-regs-parm4)", 88, 24),
        ("(pt-regs-parm5)", 72, 32),
        ("(pt-regs-parm6)", 64, 40),
        ("(pt-regs-ret)", 80, 0),
    ],
)
def test_registers_of_the_target(form: str, x86: int, arm: int) -> None:
    assert offsets(form, "x86_64") == [x86]
    assert offsets(form, "arm64") == [arm]


def test_registers_that_only_arm64_passes() -> None:
    assert offsets("(+ (pt-regs-parm7) (pt-regs-parm8))", "arm64") == [48, 56]
    with pytest.raises(CompileError, match="names no register of x86_64"):
        offsets("(pt-regs-parm7)", "x86_64")


def test_registers_need_a_kprobe() -> None:
    with pytest.raises(CompileError, match="context-access"):
        compile_text("(defprog p () (pt-regs-parm1))")


TRACING = """
(defstruct event (pid u32) (uid u32) (ts u64) (comm (array u8 16)) (total u64))
(defstruct item (a u32) (b u32))
(defmap events :type :ringbuf :max-entries 4096)
(defprog p (:type :kprobe :section "kprobe/f")
  (with-ringbuf (e events (sizeof event))
    (fill-process-info e :pid-field event-pid :uid-field event-uid :timestamp-field event-ts
                         :comm-field event-comm-ptr :comm-size 16)
    (setf (event-total e) 0)
    (do-user-ptrs (p (pt-regs-parm2) 3 4 :index i) (incf (event-total e) (+ p i)))
    (do-user-array (n u16 (pt-regs-parm2) 3 4) (incf (event-total e) n))
    (do-user-array (x item (pt-regs-parm2) 3 4) (incf (event-total e) (item-b x)))
    (incf (event-total e) (kernel-load u32 (pt-regs-parm1) 8)))
  0)
"""


def test_tracing_forms_compile() -> None:
    assert load(compile_text(TRACING))["p"].type == "kprobe"


def test_asm() -> None:
    """`(asm opcode dst src off imm)`: here `r3 = 42`, then `r2 = r10` and a load."""
    assert value("(+ (asm #xb7 3 0 0 42) (ctx ingress-ifindex))") == 43
    assert value("(> (asm #x85 0 0 0 5) 0)") == 1  # the book's example: ktime_get_ns
    with pytest.raises(CompileError, match="bad-instruction"):
        compile_text("(defprog p () (asm #x95 0 0 0 0))")


def test_core_accesses_have_records() -> None:
    """The access is described by the name of the structure and of the member, so that a loader can find it again."""
    source = """
    (defprog p (:type :xdp)
      (core-ctx-load u32 12 xdp-md ingress-ifindex))
    (defprog q (:type :tracing :section "fentry/do_unlinkat")
      (let ((task (get-current-task-btf)))
        (+ (core-load i32 task 1000 task-struct pid) (core-load i32 task 1004 task-struct tgid))))"""
    elf = compile_text(source)
    assert b"task_struct\0" in elf
    assert b"tgid\0" in elf
    assert result(source) == 1


def test_core_load_finds_the_member_of_the_running_kernel() -> None:
    vmlinux = Path("/sys/kernel/btf/vmlinux")
    if not vmlinux.exists():
        pytest.skip("this kernel has no BTF")
    source = """
    (defprog q (:type :tracing :section "fentry/do_unlinkat")
      (core-load i32 (get-current-task-btf) 1000 task-struct pid))"""
    program = load(compile_text(source), kernel_btf=vmlinux)["q"]
    found = [insn.off for insn in decode(program.insns) if insn and insn.row.kind in (Kind.LOAD, Kind.LOAD_SIGNED)]
    assert len(found) == 1
    assert found != [1000]


def test_enum() -> None:
    before = "(defenum color RED (GREEN 5) BLUE) (defstruct s (x u8) (c color))\n"
    assert (
        value("(let ((p (make-s))) (setf (s-c p) BLUE) (+ (* 10 (s-c p)) GREEN RED (* 100 (sizeof s))))", before) == 865
    )


def test_include(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.lisp").write_text('(include "b.lisp") (defconstant +a+ (+ +b+ 1))')
    (tmp_path / "lib" / "b.lisp").write_text("(defconstant +b+ 4) (defmacro twice (x) `(* 2 ,x))")
    main = tmp_path / "main.lisp"
    main.write_text('(include "lib/a.lisp")\n(include "lib/b.lisp")\n(defprog p () (twice +a+))')
    program = load(main)["p"]
    assert run(program, bytes(64), World(), "python").retval == 10


def test_errors_of_an_included_file_are_shown_there(tmp_path: Path) -> None:
    (tmp_path / "a.lisp").write_text("(defconstant +a+ 1)\n(defmap m :type :nothing)")
    main = tmp_path / "main.lisp"
    main.write_text('(include "a.lisp")\n(include "missing.lisp")\n(defprog p () +a+)')
    with pytest.raises(CompileError) as caught:
        load(main)
    told = [(d.code, d.place.removeprefix(f"{tmp_path}/")) for d in caught.value.errors]
    assert sorted(told) == [("bad-include", "main.lisp:2:1"), ("unknown-map-type", "a.lisp:2:17")]


@pytest.mark.parametrize(
    ("form", "number"),
    [
        ("(get-current-task-btf)", 158),
        ("(ktime-get-coarse-ns)", 160),
        ("(ktime-get-tai-ns)", 208),
        ("(ktime-get-ns)", 5),
        ("(bpf-ktime-get-ns)", 5),
        ("(get-prandom-u32)", 7),
        ("(get-smp-processor-id)", 8),
        ("(jiffies64)", 118),
    ],
)
def test_helper_numbers_are_the_kernels(form: str, number: int) -> None:
    """The reference compiler has three of them wrong."""
    kind = ':type :tracing :section "fentry/f"' if "task" in form else ":type :xdp"
    program = load(compile_text(f"(defprog p ({kind}) {form} 0)", opt=0))["p"]
    assert [insn.imm for insn in decode(program.insns) if insn and insn.row.kind is Kind.CALL] == [number]
