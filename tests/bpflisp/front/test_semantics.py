"""What programs mean, by running them: the decisions of the language reference, section 11, and each of its tables."""

import struct

import pytest

from simulator.run import run
from simulator.world import World
from tests.bpflisp.front.running import PACKET, engines, loaded, result, value, wide

ONE = "(ctx ingress-ifindex)"  # 1 in a test run, and not known when compiling
TWO = f"(+ {ONE} 1)"
ZERO = "(ctx rx-queue-index)"
BIG = f"(<< {ONE} 40)"
MASK = (1 << 64) - 1

CONTROL = [
    (f"(if {ONE} 3 4)", 3),
    (f"(if {ZERO} 3 4)", 4),
    (f"(if {ZERO} 3)", 0),
    (f"(+ 1 (when (= {ONE} 2) 5))", 1),
    (f"(+ 1 (when (= {ONE} 1) 5))", 6),
    (f"(+ 1 (unless (= {ONE} 1) 5))", 1),
    (f"(when (= {ONE} 2) XDP_DROP)", 0),
    (f"(+ 2 (cond ((= {ONE} 2) 9) ((= {ONE} 3) 8)))", 2),
    (f"(cond ((= {ONE} 2) 9) ((= {ONE} 1) 8) (t 7))", 8),
    (f"(cond ((= {ONE} 2) 9) (t 7))", 7),
    (f"(cond ({ONE}) (t 7))", 1),
    (f"(cond ({ZERO}) (t 7))", 7),
    (f"(case {TWO} (1 5) ((2 3) 6) (t 7))", 6),
    (f"(case {TWO} (1 5) (otherwise 7))", 7),
    (f"(case {TWO} (1 5))", 0),
    (f"(and {TWO} {ONE})", 1),
    (f"(and {ONE} {TWO})", 2),
    (f"(and {ZERO} {TWO})", 0),
    ("(and)", 1),
    ("(or)", 0),
    (f"(or {ZERO} {TWO})", 2),
    (f"(or {TWO} {ZERO})", 2),
    (f"(or {ZERO} {ZERO})", 0),
    (f"(not {ONE})", 0),
    (f"(not {ZERO})", 1),
    (f"(return (not {ZERO}))", 1),
    (f"(return (= {ONE} 7))", 0),
    (f"(not (and {ONE} {ZERO}))", 1),
    (f"(+ (= {ONE} {ONE}) (> {TWO} {ONE}))", 2),
    (f"(= {ONE} 1 2)", 0),
    (f"(= 1 {ONE} 1)", 1),
    (f"(< 0 {ONE} 2 5)", 1),
    (f"(< 0 {ONE} 1 5)", 0),
    (f"(/= 1 {TWO} 1)", 0),
    (f"(/= 1 {TWO} 3)", 1),
    (f"(if (s< (- {ONE} 2) 0) 3 4)", 3),
    (f"(if (< (- {ONE} 2) 5) 3 4)", 4),
    (f"(progn (return 5) {ONE})", 5),
    (f"(+ 1 (progn (when {ONE} (return 9)) 3))", 9),
    (f"(let ((q 0)) (when (and {ONE} (setf q 3)) (setf q (+ q 9))) q)", 12),
    (f"(let ((q 0)) (when (and {ZERO} (setf q 3)) (setf q 9)) q)", 0),
    (f"(let ((q 0)) (if (or (setf q {ZERO}) (setf q {TWO})) q 77))", 2),
    ("(progn)", 0),
    ("", 0),
    ("nil", 0),
    ("null", 0),
    ("(return)", 0),
]

LOOPS = [
    ("(let ((s 0)) (dotimes (i 10) (incf s i)) s)", 45),
    ("(dotimes (i 3) i)", 0),
    ("(let ((s 5)) (dotimes (i 0) (incf s i)) s)", 5),
    ("(let ((n 0)) (dotimes (i 5) (setf i 100) (incf n)) n)", 5),
    ("(let ((n 0)) (dotimes (i (* 2 +k+)) (incf n)) n)", 8),
    ("(dotimes (i 10) (when (= i 4) (return i)))", 4),
    ("(let ((s 0)) (dotimes (i 4) (dotimes (j 3) (incf s (* i j)))) s)", 18),
    ("(let ((s 0)) (dotimes (i 10) (when (= i 6) (break)) (when (logand i 1) (continue)) (incf s i)) s)", 6),
    ("(let ((n 0)) (while (< n 7) (incf n 2)) n)", 8),
    ("(let ((n 0)) (while 1 (incf n) (when (= n 5) (break))) n)", 5),
]

BINDING = [
    ("(let ((a 1) (b 2)) (let ((a b) (b a)) (+ (* 10 a) b)))", 21),
    ("(let ((a 1)) (let* ((a 5) (b a)) (+ a b)))", 10),
    ("(let ((a 1)) (setf a 7) a)", 7),
    ("(let ((a 1) (b 2)) (setf a b b 7) (+ a (* b 10)))", 72),
    ("(let ((a 1)) (+ a (setf a 5) a))", 11),
    ("(let ((a)) a)", 0),
    ("(let ((a nil)) a)", 0),
    ("(let ((a u16)) a)", 0),
    ("(let ((a 5)) (incf a) (incf a 3) (decf a 2) a)", 7),
    ("(let ((a 1)) (let ((a 2)) (setf a 3)) a)", 1),
    (f"(when-let ((a {ONE}) (b u32 {TWO})) (+ a b))", 3),
    (f"(when-let ((a {ONE}) (b {ZERO})) (+ a b 9))", 0),
    (f"(if-let (a {ONE}) (+ a 4) 9)", 5),
    (f"(if-let (a {ZERO}) (+ a 4) 9)", 9),
    ("(let ((x 70000)) (declare (type u16 x)) x)", 4464),
    ("(let ((x 5)) (declare (ignorable x)) 3)", 3),
    ("(when-let ((x 300) (y 5)) (declare (type u8 x) (ignorable y)) x)", 44),
    ("(let ((s 0)) (dotimes (i 3 s) (declare (type u32 i)) (incf s i)))", 3),
    ("(let ((s 0)) (dolist (x '(4 5)) (declare (ignorable x)) (incf s)) s)", 2),
]

TYPES = [
    ("(let ((x u8 300)) x)", 44),
    (f"(let ((x u8 (+ 299 {ONE}))) x)", 44),
    (f"(let ((x i8 (+ 199 {ONE}))) x)", 200 - 256 & 0xFFFFFFFF),
    (f"(let ((x u16 0)) (setf x (+ 69999 {ONE})) x)", 4464),
    (f"(let ((x u32 (+ {BIG} 5))) (>> x 32))", 0),
    (f"(let ((x i32 (- {ONE} 2))) (s< x 0))", 1),
    (f"(cast u8 (+ 299 {ONE}))", 44),
    (f"(s< (cast i16 (- {ONE} 3)) 0)", 1),
    (f"(>> (cast i16 (- {ONE} 3)) 60)", 15),
    (f"(>> (cast u32 (- {ONE} 3)) 32)", 0),
    ("(let ((p (struct-alloc 8))) (store u8 p 0 200) (s< (load i8 p) 0))", 1),
    ("(let ((p (struct-alloc 8))) (store u8 p 0 200) (load u8 p 0))", 200),
    ("(let ((p (struct-alloc 8))) (store u32 p 4 #xfffffff0) (s< (load i32 p 4) 0))", 1),
    ("(let ((p (struct-alloc 8))) (store u64 p 0 #x1122334455667788) (load u16 p 2))", 0x5566),
]

WIDE = [
    (f"(* (+ {ONE} #xfffffffe) {TWO})", 0x1FFFFFFFE),
    (f"(let ((a u32 (+ {ONE} #xfffffffe)) (b u32 16)) (* a b))", 0xFFFFFFFF0),
    (f"(let ((a u32 (+ {ONE} #xfffffffe))) (<< a 16))", 0xFFFFFFFF0000),
    (f"(let ((a u32 (+ {ONE} #xfffffffe))) (+ a a))", 0x1FFFFFFFE),
    (f"(- {ONE} 2)", MASK),
    (f"(- {ONE})", MASK),
    (f"(logxor {ONE} -1)", MASK - 1),
    (f"(>>> (- {ONE} 2) 4)", MASK),
    (f"(>> (- {ONE} 2) 4)", MASK >> 4),
    (f"(ash {ONE} 40)", 1 << 40),
    (f"(ash {BIG} -8)", 1 << 32),
    (f"(/ (- {ONE} 2) 3)", MASK // 3),
    (f"(mod (- {ONE} 2) 10)", MASK % 10),
    (f"(s/ (- {ONE} 9) 2)", -4 & MASK),
    (f"(smod (- {ONE} 9) 3)", -2 & MASK),
    (f"(/ {BIG} {ZERO})", 0),
    (f"(mod {BIG} {ZERO})", 1 << 40),
    (f"(+ 1 2 3 {BIG} 4)", (1 << 40) + 10),
    (f"(- {BIG} 1 2)", (1 << 40) - 3),
    (f"(logior {BIG} {ONE} 6)", (1 << 40) | 7),
    (f"(bit-and {BIG} -1 {BIG})", 1 << 40),
    (f"(log2 {BIG})", 40),
    (f"(log2 {ZERO})", 0),
    ("(log2 #x8000000000000000)", 63),
    (f"(ntohs (+ {ONE} #x11222))", 0x2312),
    (f"(htonl (+ {ONE} #x11223343))", 0x44332211),
    (f"(ntohll (+ {ONE} #x1122334455667787))", 0x8877665544332211),
    ("#b101", 5),
    ("#o17", 15),
    ("#36rzz", 1295),
    ("#.(expt 2 40)", 1 << 40),
    ("-1", MASK),
    ("most-positive-fixnum", (1 << 62) - 1),
    (f"(ash-left {ONE} {TWO})", 4),
]


@pytest.mark.parametrize(("body", "expected"), CONTROL + LOOPS + BINDING + TYPES)
def test_value(body: str, expected: int) -> None:
    assert value(body, "(defconstant +k+ 4)") == expected


@pytest.mark.parametrize(("body", "expected"), WIDE)
def test_64_bits(body: str, expected: int) -> None:
    assert wide(body) == expected


def test_or_evaluates_each_operand_once() -> None:
    before = "(defmap m :type :array :key-size 4 :value-size 8 :max-entries 1)"
    count = "(incf (getmap m 0))"
    body = f"(let ((x (or (progn {count} 0) (progn {count} 5) {count}))) (+ (* 10 x) (getmap m 0)))"
    assert value(body, before) == 52


def test_a_place_is_evaluated_once() -> None:
    before = """
    (defstruct s (a u32))
    (defmap m :type :array :key-size 4 :value-size 8 :max-entries 1)"""
    body = "(let ((p (make-s))) (incf (s-a (progn (incf (getmap m 0)) p)) 7) (+ (* 10 (s-a p)) (getmap m 0)))"
    assert value(body, before) == 71


def test_a_binding_is_read_once() -> None:
    """Two MAC addresses are exchanged through bindings, as the reference compiler gets wrong."""
    source = """
    (defprog p (:type :xdp)
      (with-eth (data end)
        (let* ((a (eth-dst-mac-hi data)) (b (eth-dst-mac-lo data))
               (c (eth-src-mac-hi data)) (d (eth-src-mac-lo data)))
          (store u32 data 0 c) (store u16 data 4 d)
          (store u32 data 6 a) (store u16 data 10 b))
        XDP_TX))"""
    packet = bytes(range(60))
    for engine in engines():
        outcome = run(loaded(source)["p"], packet, World(), engine)
        assert outcome.retval == 3
        assert outcome.packet == packet[6:12] + packet[:6] + packet[12:]


HEADER = struct.pack("!6s6sH", b"\1" * 6, b"\2" * 6, 0x0800)
IP = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 7, 0, 64, 6, 0xABCD, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
TCP = struct.pack("!HHIIBBHHH", 1234, 80, 0x01020304, 0x05060708, 0x50, 0x12, 512, 0x1111, 3)
UDP = struct.pack("!HHHH", 53, 5353, 8, 0x2222)
TCP_PACKET = HEADER + IP + TCP + bytes(20)
UDP_PACKET = HEADER + IP[:9] + b"\x11" + IP[10:] + UDP + bytes(20)

FIELDS = [
    ("eth-type", 0x0800), ("eth-dst-mac-hi", 0x01010101), ("eth-src-mac-lo", 0x0202), ("ipv4-ver-ihl", 0x45),
    ("ipv4-total-len", 40), ("ipv4-id", 7), ("ipv4-ttl", 64), ("ipv4-protocol", 6), ("ipv4-checksum", 0xCDAB),
    ("ipv4-src-addr", 0x0100000A), ("ipv4-dst-addr", 0x0200000A), ("tcp-src-port", 1234), ("tcp-dst-port", 80),
    ("tcp-seq", 0x01020304), ("tcp-ack-seq", 0x05060708), ("tcp-data-off", 0x50), ("tcp-flags", 0x12),
    ("tcp-window", 512), ("tcp-checksum", 0x1111), ("tcp-urgent", 3),
]  # fmt: skip


@pytest.mark.parametrize(("accessor", "expected"), FIELDS)
def test_header_field(accessor: str, expected: int) -> None:
    header = accessor.split("-")[0]
    pointer = {"eth": "data", "ipv4": "(+ data 14)", "tcp": "tcp"}[header]
    body = f"(with-tcp (data end tcp) (return ({accessor} {pointer})))"
    assert value(body, packet=TCP_PACKET) == expected


def test_statement_style() -> None:
    body = "(with-{} (data end h) (return 77)) 5"
    assert value(body.format("tcp"), packet=TCP_PACKET) == 77
    assert value(body.format("tcp"), packet=UDP_PACKET) == 5
    assert value(body.format("udp"), packet=UDP_PACKET) == 77
    assert value(body.format("ipv4"), packet=UDP_PACKET) == 77
    assert value(body.format("tcp"), packet=TCP_PACKET[:53]) == 2  # too short: XDP_PASS
    assert value("(with-udp (data end h) (udp-dst-port h))", packet=UDP_PACKET) == 5353
    assert value("(with-packet (data end :min-len 20) 9)", packet=PACKET[:20]) == 9
    assert value("(with-packet (data end :min-len 20) 9)", packet=PACKET[:19]) == 2


def test_expression_style() -> None:
    body = "(let ((data (xdp-data)) (end (xdp-data-end))) (if-let (h (parse-{} data end)) {} 5))"
    assert value(body.format("tcp", "(tcp-dst-port h)"), packet=TCP_PACKET) == 80
    assert value(body.format("udp", "(udp-dst-port h)"), packet=TCP_PACKET) == 5
    assert value(body.format("ipv4", "(ipv4-ttl h)"), packet=TCP_PACKET) == 64
    assert value(body.format("ipv4", "(ipv4-ttl h)"), packet=TCP_PACKET[:20]) == 5
    assert value(body.format("eth", "(eth-type h)"), packet=TCP_PACKET) == 0x0800


def test_ihl() -> None:
    """With :ihl t, the transport header is found behind IP options."""
    options = b"\x01" * 8
    packet = HEADER + b"\x47" + IP[1:] + options + TCP + bytes(20)
    assert value("(with-tcp (data end tcp :ihl t) (return (tcp-dst-port tcp)))", packet=packet) == 80
    assert value("(with-tcp (data end tcp) (return (tcp-dst-port tcp)))", packet=packet) == 0x0101


def test_header_fields_are_places() -> None:
    source = """
    (defprog p (:type :xdp)
      (with-tcp (data end tcp)
        (setf (ipv4-ttl (+ data 14)) 63 (tcp-dst-port tcp) 8080)
        (incf (tcp-window tcp) 2)
        XDP_TX))"""
    for engine in engines():
        outcome = run(loaded(source)["p"], TCP_PACKET, World(), engine)
        assert outcome.packet is not None
        assert outcome.packet[22] == 63
        assert outcome.packet[36:38] == struct.pack("!H", 8080)
        assert outcome.packet[48:50] == struct.pack("!H", 514)


def test_tc() -> None:
    source = """
    (defprog p (:type :tc :section "tc")
      (with-tc-tcp (data end tcp)
        (setf (ctx mark) (tcp-dst-port tcp) (ctx cb 2) 5)
        (return (+ (ctx mark) (ctx cb 2))))
      TC_ACT_SHOT)"""
    assert result(source, TCP_PACKET) == 85
    assert result(source, UDP_PACKET) == 2
    assert result(source, TCP_PACKET[:50]) == 0


STRUCTS = """
(defstruct inner (a u16) (b u8))
(defstruct s (x u8) (y u32) (name (array u16 3)) (z u64) (w i16) (sub inner) (many (array u8 5)))
(defstruct board (rows (array (array u16 3) 2)) (cells (array (array inner 2) 2)) (end u8))"""

STRUCT_BODIES = [
    ("(sizeof s)", 40),
    ("(let ((p (make-s))) (+ (s-x p) (s-y p) (s-z p)))", 0),
    ("(let ((p (make-s))) (setf (s-x p) 300 (s-y p) 7) (+ (* 1000 (s-x p)) (s-y p)))", 44007),
    ("(let ((p (make-s))) (set-s-z! p 9) (struct-ref s p z))", 9),
    ("(let ((p (make-s))) (struct-set s p z 9) (s-z p))", 9),
    ("(let ((p (make-s))) (setf (s-name p 1) 5) (load u16 (s-name-ptr p) 2))", 5),
    (f"(let ((p (make-s))) (set-s-name! p 1 5) (s-name p (logand {ONE} 1)))", 5),
    (f"(let ((p (make-s))) (setf (s-name p (logand {ONE} 1)) 8) (s-name p 1))", 8),
    (f"(let ((p (make-s))) (setf (s-many p (logand {TWO} 3)) 8) (s-many p 2))", 8),
    ("(sizeof board)", 30),
    ("(let ((b (make-board))) (setf (board-rows b 1 2) 7) (+ (board-rows b 1 2) (load u16 b 10)))", 14),
    (f"(let ((b (make-board)) (i (logand {ZERO} 1)) (j (logand {ONE} 1)))"
     " (setf (board-rows b i 1) 7) (incf (board-rows b 0 j)) (board-rows b i j))", 8),
    ("(let ((b (make-board))) (set-board-rows! b 1 0 5) (board-rows b 1 0))", 5),
    ("(let ((b (make-board))) (setf (inner-b (board-cells b 1 0)) 6) (inner-b (board-cells-ptr b 1 0)))", 6),
    ("(let ((b (make-board))) (- (board-cells-ptr b 1) b))", 20),
    ("(let ((p (make-s))) (setf (s-w p) -1) (s< (s-w p) 0))", 1),
    ("(let ((p (make-s))) (store u32 (s-y-ptr p) 0 6) (s-y p))", 6),
    ("(let ((p (make-s))) (setf (inner-b (s-sub p)) 6) (inner-b (s-sub-ptr p)))", 6),
    ("(let ((p (make-s))) (memset p 0 255 (sizeof s)) (+ (s-x p) (s-name p 2)))", 255 + 65535),
    ("(let ((p (make-s)) (q (make-s))) (setf (s-z p) 3) (memcpy q 0 p 0 (sizeof s)) (+ (s-z q) (s-x q)))", 3),
    ("(let ((s 0)) (dotimes (i 3) (let ((p (make-s))) (incf s (s-x p)) (setf (s-x p) 9))) s)", 0),
    ("(let ((x u32 7)) (let ((p (stack-addr x))) (setf x 8) (load u32 p)))", 7),
    (f"(let ((p (struct-alloc 8)) (i (logand {TWO} 2)))"
     " (store u16 p i 7) (incf (load u16 p i) 3) (load u32 p))", 10 << 16),
    (f"(let ((p (struct-alloc 8)) (i (logand {TWO} 2)))"
     " (setf (load i8 p i) -1) (s< (load i8 p i) (load i8 p (+ i 1))))", 1),
    ("(with-packet (d e :min-len 8) (dotimes (i 8) (store u8 d i (* 2 i))) (dotimes (i 8)"
     " (when (= (load u8 d i) 10) (return i))) (return 99))", 5),
    ("(let ((p (struct-alloc 8))) (atomic-add p 0 5) (atomic-add p 0 2) (load u64 p))", 7),
    ("(let ((p (struct-alloc 8))) (atomic-add p 4 5 u32) (+ (* 10 (atomic-fetch-add p 4 1 u32)) (load u32 p 4)))", 56),
    ("(let ((p (struct-alloc 8))) (store u64 p 0 5) (+ (atomic-xchg p 0 9) (load u64 p)))", 14),
    ("(let ((p (struct-alloc 8))) (store u64 p 0 5) (+ (atomic-cmpxchg p 0 5 8) (load u64 p)))", 13),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), STRUCT_BODIES)
def test_memory(body: str, expected: int) -> None:
    assert value(body, STRUCTS) == expected


BLOCKS = [
    ("(let ((a (struct-alloc 16))) (memset a 1 1 13) (+ (load u8 a 0) (load u8 a 13) (load u8 a 14)))", 1),
    ("(let ((a (struct-alloc 16)) (b (struct-alloc 16))) (store u8 a 8 7) (memcpy b 1 a 3 9) (load u8 b 6))", 7),
    ("(let ((e (make-s)) (f (make-s))) (setf (s-n e 4) 5) (memcpy (s-n-ptr f) 0 (s-n-ptr e) 0 9) (s-n f 4))", 5),
    ("(let* ((e (make-s)) (p (s-z-ptr e))) (memset p 0 255 6) (+ (s-z e 2) (s-n e 8)))", 65535),
    (f"(let ((e (struct-alloc 32))) (memset (+ e (logand {ONE} 7)) 0 1 8) (load u8 e 4))", 1),
]


@pytest.mark.parametrize(("body", "expected"), BLOCKS)
def test_blocks_on_the_stack_are_written_aligned(body: str, expected: int) -> None:
    assert value(body, "(defstruct s (x u8) (n (array u8 9)) (z (array u16 3)))") == expected


MACROS = """
(defconstant +base+ 100)
(defmacro swap (a b) (let ((tmp (gensym))) `(let ((,tmp ,a)) (setf ,a ,b ,b ,tmp))))
(defmacro sum-to (n) `(+ ,@(loop for i from 1 to n collect i)))
(defmacro with-doubled ((name value) &body body) `(let ((,name (* 2 ,value))) ,@body))
(defun square (n) (* n n))
(defmacro table (&rest rows) `(cond ,@(mapcar (lambda (r) `((= 1 ,(first r)) ,(second r))) rows) (t 0)))
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("(let ((a 1) (b 2)) (swap a b) (+ (* 10 a) b))", 21),
        ("(sum-to 10)", 55),
        ("(with-doubled (x 4) (+ x +base+))", 108),
        ("#.(square 9)", 81),
        ("(table (2 5) (1 7))", 7),
        ("(let ((XyZ 3)) xyz)", 3),
        ("whistler:xdp_drop", 1),
        ("(cl:+ 1 2)", 3),
        ("#| a #| nested |# comment |# 4 ; and another", 4),
        ("#+bpflisp 1 #-bpflisp 2", 1),
        ("+xdp-tx+", 3),
        ("(asm (+ +bpf-alu64+ +bpf-mov+ +bpf-k+) +bpf-reg-3+ 0 0 7)", 7),
        ("(+ +bpf-jmp+ +bpf-exit+ +bpf-func-map-lookup-elem+)", 0x95 + 1),
        ("(+ +ethertype-vlan+ +eth-hdr-len+)", 0x8100 + 14),
    ],
)
def test_macros(body: str, expected: int) -> None:
    assert value(body + "\n", MACROS) == expected


def test_definitions_may_follow() -> None:
    source = """
    (defprog p (:type :xdp) (incf (getmap m 0) +step+) (twice (getmap m 0)))
    (defmacro twice (x) `(* 2 ,x))
    (defconstant +step+ 4)
    (defmap m :type :array :key-size 4 :value-size 8 :max-entries 1)"""
    assert result(source) == 8


@pytest.mark.parametrize("index", ["i", "(logand (* i 3) 3)"])
@pytest.mark.parametrize("write", ["(setf (note-list n {}) 7)", "(store u8 n (+ 8 {}) 7)"])
def test_a_called_function_writes_to_its_own_stack(write: str, index: str) -> None:
    """Before 7.2 the kernel takes a number plus the address for another function's stack: the frame is too small then,
    and the caller's registers, which are saved there, are overwritten.
    """
    source = f"""
    (defstruct note (a u64) (list (array u8 8)))
    (defsubprog other () (get-smp-processor-id))
    (defsubprog touch (i x)
      (let ((n (make-note)) (kept (* x 2)))
        (other)
        {write.format(index)}
        (other)
        kept))
    (defprog p (:type :xdp)
      (with-packet (data end :min-len 64)
        (let ((a (load u8 data 0)) (b (load u8 data 1)) (c (load u8 data 2)))
          (touch (logand a 3) b)
          (return (+ (* 100 a) (* 10 b) c))))
      0)"""
    for index_of in range(4):
        assert result(source, bytes([index_of, 2, 3, *bytes(61)])) == 100 * index_of + 23


@pytest.mark.parametrize("place", ["p (+ 8 i)", "p (+ i 8)", "(+ p i) 8", "(+ (logand i 3) p) 8"])
@pytest.mark.parametrize("opt", [0, 1, 2])
def test_a_called_function_is_given_an_address(place: str, opt: int) -> None:
    """The stack of a function in between: what is added to its address is the number, as our verifier sees, too."""
    source = f"""
    (defstruct note (a u64) (list (array u8 8)))
    (defsubprog other () (get-smp-processor-id))
    (defsubprog inner (p i) (other) (store u8 {place} 7) (other))
    (defsubprog outer (i x)
      (let ((n (make-note)) (kept (* x 2)))
        (other)
        (inner n i)
        (+ kept (load u8 n (+ 8 i)))))
    (defprog p (:type :xdp)
      (with-packet (data end :min-len 64)
        (let ((a (load u8 data 0)) (b (load u8 data 1)) (c (load u8 data 2)))
          (return (+ (* 1000 (outer (logand a 3) b)) (* 100 a) (* 10 b) c))))
      0)"""
    program = loaded(source, opt)["p"]
    assert program.verify().warnings == ()
    for engine in engines():
        assert program.run(bytes([3, 2, 3, *bytes(61)]), engine=engine).retval == 11_323
