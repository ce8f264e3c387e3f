"""Makes random functions that have a meaning: every load hits memory, every loop ends, every variable is written."""

from __future__ import annotations

import random
from collections.abc import Callable

from bpflisp.ir.builder import Builder
from bpflisp.ir.ssa import BINARY_OPS, COMPARE_OPS, Function, MapRef, Slot, Value, const
from bpflisp.opt.rewriting import WORD
from bpflisp.opt.rules import RULES, TEST_RULES, Constants, Form, Pattern, Rule, TestRule, Width
from bpflisp.spec.isa import Op

INTERESTING = (0, 1, 2, 3, 7, 8, 31, 32, 63, 255, 256, 0x800, 0xFFFF, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 32)
EDGES = (*INTERESTING, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 2, 0xFFFFFFFF80000000)
PACKET_SIZE = 64
SIZES = (1, 2, 4, 8)


class Generator:
    """`version` bounds what atomics are used; `size` is about how many statements.

    `checked` functions compare the packet's length first, and do nothing that the kernel does not allow or model.
    """

    def __init__(self, seed: int, size: int, version: int = 3, variables: int = 6, checked: bool = False) -> None:
        self.random = random.Random(seed)
        self.left = size
        self.version = version
        self.variables = [f"v{number}" for number in range(variables)]
        self.checked = checked
        self.builder = Builder("generated")
        self.slots: list[Slot] = []

    def function(self) -> Function:
        b = self.builder
        self.packet = b.context_load(b.params[0], 0, 4)
        self.end = b.context_load(b.params[0], 4, 4)
        if self.checked:
            self.check_packet()
        for name in self.variables:
            b.write_variable(name, self.leaf_value())
        for _ in range(self.random.randint(0, 3)):
            self.slots.append(b.slot(self.random.choice((4, 8, 12, 16)), zeroed=True))
        self.statements(3)
        if b.open:
            total: Value = const(0)
            for name in self.variables:
                total = b.binary(Op.XOR, b.binary(Op.MUL, total, const(31)), b.read_variable(name))
            b.ret(total)
        return b.finish()

    def check_packet(self) -> None:
        """What the kernel wants to see before it lets a program read the packet."""
        b = self.builder
        good, short = b.block("good"), b.block("short")
        b.branch(Op.GT, b.add(self.packet, const(PACKET_SIZE)), self.end, short, good)
        b.seal(good)
        b.seal(short)
        b.start(short)
        b.ret(const(0))
        b.start(good)

    def statements(self, depth: int) -> None:
        for _ in range(self.random.randint(1, 6)):
            if self.left <= 0 or not self.builder.open:
                return
            self.left -= 1
            self.statement(depth)

    def statement(self, depth: int) -> None:
        b, r = self.builder, self.random
        choice = r.random()
        if choice < 0.45:
            b.write_variable(r.choice(self.variables), self.expression(2))
        elif choice < 0.60:
            self.store()
        elif choice < 0.70:
            self.call()
        elif choice < 0.73:
            self.atomic()
        elif choice < 0.77:
            self.indexed()
        elif choice < 0.92 and depth:
            self.branch(depth)
        elif choice < 0.95 and depth:
            self.loop(depth)
        elif choice >= 0.995:
            b.ret(self.value())
        else:
            self.leave()

    def leaf_value(self) -> Value:
        r = self.random
        return const(r.choice(EDGES) if r.random() < 0.7 else r.getrandbits(r.choice((8, 16, 32, 64))))

    def value(self) -> Value:
        return (
            self.builder.read_variable(self.random.choice(self.variables))
            if self.random.random() < 0.7
            else self.leaf_value()
        )

    def expression(self, depth: int) -> Value:
        b, r = self.builder, self.random
        if depth == 0 or r.random() < 0.15:
            return self.value()
        width = r.choice((32, 64, 64))
        match r.randrange(8):
            case 0 | 1 | 2:
                return b.binary(r.choice(BINARY_OPS), self.expression(depth - 1), self.expression(depth - 1), width)
            case 3:
                return b.compare(r.choice(COMPARE_OPS), self.expression(depth - 1), self.expression(depth - 1), width)
            case 4:
                return b.extend(self.expression(depth - 1), r.choice((8, 16, 32)), r.random() < 0.5)
            case 5:
                order = r.choice((Op.TO_BE, Op.TO_LE, Op.SWAP))
                return b.byte_order(self.expression(depth - 1), r.choice((16, 32, 64)), order)
            case 6:
                return self.load()
            case _:
                return b.negate(self.expression(depth - 1), width)

    def place(self) -> tuple[Value, int, int]:
        """(address, offset, size) of memory that is there."""
        r = self.random
        size = r.choice(SIZES)
        if self.slots and r.random() < 0.5:
            slot = r.choice(self.slots)
            size = min(size, slot.size)
            return slot, r.randrange(0, slot.size - size + 1, size), size
        at = r.randrange(0, PACKET_SIZE - size)
        if r.random() < 0.3:
            step = r.randrange(at + 1)
            return self.builder.add(self.packet, const(step)), at - step, size
        return self.packet, at, size

    def load(self) -> Value:
        address, off, size = self.place()
        if self.random.random() < 0.15:
            scalar_off = self.random.choice((12, 16))
            return self.builder.context_load(self.builder.params[0], scalar_off, 4, scalar=True)
        return self.builder.load(address, off, size, signed=self.random.random() < 0.3)

    def store(self) -> None:
        value = self.expression(1)
        address, off, size = self.place()
        self.builder.store(address, off, size, value)

    def atomic(self) -> None:
        b, r = self.builder, self.random
        size = r.choice((4, 8))
        slots = [slot for slot in self.slots if slot.size >= size]
        if not slots:
            return
        op = r.choice((Op.ADD, Op.OR, Op.AND, Op.XOR, Op.XCHG, Op.CMPXCHG)) if self.version >= 3 else Op.ADD
        values = [self.value() for _ in range(2 if op is Op.CMPXCHG else 1)]
        fetch = op in (Op.XCHG, Op.CMPXCHG) or (self.version >= 3 and r.random() < 0.5)
        result = b.atomic(op, r.choice(slots), 0, size, *values, fetch=fetch)
        if fetch:
            b.write_variable(r.choice(self.variables), result)

    def call(self) -> None:
        b, r = self.builder, self.random
        if r.random() < 0.3 and not self.checked:
            b.write_variable(r.choice(self.variables), b.call_helper(7))
            return
        key = b.slot(4)
        b.store(key, 0, 4, b.binary(Op.AND, self.value(), const(15)))
        found = b.call_helper(1, MapRef("m"), key)
        hit, done = b.block("hit"), b.block("done")
        b.branch(Op.NE, found, const(0), hit, done)
        b.seal(hit)
        b.start(hit)
        if r.random() < 0.5:
            b.atomic(Op.ADD, found, 0, 8, self.value())
        else:
            b.store(found, r.choice((0, 4)), 4, self.value())
            b.write_variable(r.choice(self.variables), b.load(found, 0, r.choice(SIZES)))
        b.jump(done)
        b.seal(done)
        b.start(done)

    def leave(self) -> None:
        """A way out, of which others are like but for operands."""
        b, r = self.builder, self.random
        out, on = b.block("out"), b.block("on")
        b.branch(r.choice(COMPARE_OPS), self.load(), self.leaf_value(), out, on)
        b.seal(out)
        b.seal(on)
        b.start(out)
        self.alike(r.randrange(2))
        b.ret(const(r.randrange(3)))
        b.start(on)

    def alike(self, kind: int) -> None:
        """One of two sequences that differ from each other of their kind in operands alone."""
        b, r = self.builder, self.random
        if kind:
            total = self.value()
            for off, op in ((4, Op.ADD), (12, Op.XOR), (8, Op.SUB), (16, Op.MUL)):
                total = b.binary(op, total, b.load(self.packet, off, 4))
                b.store(self.packet, off + 2, 4, total)
            b.store(self.packet, 24, 1, const(r.randrange(8)))
            return
        key = self.slots[0] if self.slots else b.slot(4)
        b.store(key, 0, 4, const(r.randrange(8)))
        found = b.call_helper(1, MapRef("m"), key)
        hit, done = b.block("hit"), b.block("done")
        b.branch(Op.NE, found, const(0), hit, done)
        b.seal(hit)
        b.start(hit)
        b.store(found, 0, 8, b.binary(Op.ADD, b.load(found, 0, 8), const(r.randrange(3))))
        b.jump(done)
        b.seal(done)
        b.start(done)

    def indexed(self) -> None:
        """Bytes of a map value and of the packet at places that a mask or a comparison bounds."""
        b, r = self.builder, self.random
        index = self.expression(1)
        if r.random() < 0.5:
            self.access(b.binary(Op.AND, index, const(3)))
            return
        if r.random() < 0.5:
            index = b.extend(index, r.choice((8, 16, 32)))
        inside, done = b.block("inside"), b.block("done")
        b.branch(Op.LE, index, const(3), inside, done)
        b.seal(inside)
        b.start(inside)
        self.access(index)
        b.jump(done)
        b.seal(done)
        b.start(done)

    def access(self, index: Value) -> None:
        """The packet's or a map value's byte at `index`, up to 3, plus some."""
        b, r = self.builder, self.random
        step, factor = r.choice(((0, 1), (1, 1), (0, 2)))
        scaled = b.binary(Op.MUL, b.add(index, const(step)), const(factor))
        if r.random() < 0.5:
            key = b.slot(4)
            b.store(key, 0, 4, const(r.randrange(8)))
            base, size, space = b.call_helper(1, MapRef("m"), key), 1, 0
        else:
            base, size, space = self.packet, r.choice(SIZES), r.randrange(8)
        inside, done = b.block("inside"), b.block("done")
        if base is self.packet:
            place = b.add(base, scaled)
            b.branch(Op.GT, b.add(place, const(16)), self.end, done, inside)
        else:
            b.branch(Op.NE, base, const(0), inside, done)
        b.seal(inside)
        b.start(inside)
        if base is not self.packet:
            place = b.add(base, scaled)
        b.write_variable(r.choice(self.variables), b.load(place, space, size))
        b.jump(done)
        b.seal(done)
        b.start(done)

    def branch(self, depth: int) -> None:
        b, r = self.builder, self.random
        then, other, done = b.block("then"), b.block("else"), b.block("done")
        b.branch(r.choice(COMPARE_OPS), self.expression(1), self.expression(1), then, other, r.choice((32, 64)))
        b.seal(then)
        b.seal(other)
        alike = r.random() < 0.3
        for arm, filled in ((then, True), (other, r.random() < 0.5)):
            b.start(arm)
            if filled:
                self.statements(depth - 1)
            if b.open and alike:
                self.alike(1)
            if b.open:
                b.jump(done)
        b.seal(done)
        b.start(done)

    def loop(self, depth: int) -> None:
        """A loop whose counter nobody else writes."""
        b, r = self.builder, self.random
        counter = object()
        head, body, done = b.block("head"), b.block("body"), b.block("done")
        b.write_variable(counter, const(0))
        b.jump(head)
        b.start(head)
        b.branch(Op.LT, b.read_variable(counter), const(r.randint(0, 4)), body, done)
        b.seal(body)
        b.seal(done)
        b.start(body)
        self.statements(depth - 1)
        if b.open:
            b.write_variable(counter, b.add(b.read_variable(counter), const(1)))
            b.jump(head)
        b.seal(head)
        b.start(done)


class Leaving(Generator):
    """Makes functions of which many ends are alike."""

    def statements(self, depth: int) -> None:
        while self.left > 0 and self.builder.open:
            self.left -= 1
            if self.random.random() < 0.4:
                self.leave()
            else:
                self.statement(1)


class Bounded(Generator):
    """Makes functions that mostly access memory at places which tests bound: what a verifier must still see."""

    def statement(self, depth: int) -> None:
        choice = self.random.random()
        if choice < 0.5:
            self.indexed()
        elif choice < 0.65:
            self.tested_twice()
        else:
            super().statement(depth)

    def tested_twice(self) -> None:
        """An index whose bounds come from two tests, the second of a value that was computed from it."""
        b, r = self.builder, self.random
        index = self.expression(1)
        first, inside, done = b.block("first"), b.block("inside"), b.block("done")
        b.branch(r.choice((Op.LT, Op.LE)), index, const(r.choice((7, 200, 5000))), first, done, r.choice((32, 64)))
        b.seal(first)
        b.start(first)
        moved = r.choice(
            (
                lambda: b.extend(index, 32),
                lambda: b.binary(Op.RSH, index, const(r.choice((0, 1, 5)))),
                lambda: b.binary(Op.AND, index, const(r.choice((0xFF, 0xFFFFFFFF, 6)))),
                lambda: b.binary(Op.SUB, index, const(1)),
                lambda: b.binary(r.choice((Op.MOD, Op.DIV)), index, const(r.choice((3, 5, 8)))),
            )
        )()
        b.branch(Op.LE, moved, const(3), inside, done)
        b.seal(inside)
        b.start(inside)
        self.access(moved)
        b.jump(done)
        b.seal(done)
        b.start(done)


_OTHER_TESTS = tuple(rule for rule in TEST_RULES if rule.width is not Width.INNER)
"""Those for comparisons of other things than a comparison's outcome."""


class Parts(Generator):
    """Makes functions that look at parts of what they load, and write over what they wrote."""

    def statement(self, depth: int) -> None:
        choice = self.random.random()
        if choice < 0.2:
            self.builder.write_variable(self.random.choice(self.variables), self.part())
        elif choice < 0.5:
            self.of_a_rule()
        elif choice < 0.55:
            self.tested(self.random.choice((Op.EQ, Op.NE, Op.SET, Op.GT, Op.SLE)), self.part(), self.leaf_value(), 64)
        elif choice < 0.65:
            self.written_again(self.place)
        elif choice < 0.75:
            self.value_written_again()
        elif choice < 0.79:
            self.walk()
        elif choice < 0.83:
            self.indexed_slot()
        else:
            super().statement(depth)

    def walk(self) -> None:
        """A short loop that moves an address on through the packet, and reads and writes there."""
        b, r = self.builder, self.random
        cursor, counter, step = object(), object(), r.choice((1, 2, 4, 6))
        head, checked, body, done = b.block("head"), b.block("checked"), b.block("body"), b.block("done")
        b.write_variable(cursor, b.add(self.packet, const(r.randrange(PACKET_SIZE))))
        b.write_variable(counter, const(0))
        b.jump(head)
        b.start(head)
        moved = b.add(b.read_variable(cursor), const(step))
        b.branch(Op.GT, moved, self.end, done, checked)
        b.seal(checked)
        b.start(checked)
        b.branch(Op.LT, b.read_variable(counter), const(r.randint(1, 3)), body, done)
        b.seal(body)
        b.start(body)
        b.write_variable(counter, b.add(b.read_variable(counter), const(1)))
        at = b.read_variable(cursor) if r.random() < 0.8 else self.packet
        if r.random() < 0.7:
            b.write_variable(self.variables[0], b.binary(Op.ADD, self.value(), b.load(at, step - 1, 1)))
        if r.random() < 0.5:
            b.store(at, 0, 1, self.value())
        b.write_variable(cursor, moved)
        b.jump(head)
        b.seal(head)
        b.seal(done)
        b.start(done)

    def indexed_slot(self) -> None:
        """A byte of the stack, at a place that a mask bounds, is written, and one is read."""
        b, r = self.builder, self.random
        slot = b.slot(r.choice((8, 16)), zeroed=True)
        for _ in range(2):
            place = b.add(slot, b.binary(Op.AND, self.value(), const(7)))
            b.store(place, 0, 1, self.value())
        b.write_variable(self.variables[0], b.load(b.add(slot, b.binary(Op.AND, self.value(), const(3))), 4, 1))

    def of_a_rule(self) -> None:
        """An expression, or a test, of a form that one of the compiler's rules rewrites."""
        b, r = self.builder, self.random
        rule = r.choice(r.choice((RULES, TEST_RULES, _OTHER_TESTS)))
        width = r.choice((32, 64))
        numbers = self.numbers(rule, width)
        leaves = {name: (self.value if r.random() < 0.2 else self.load)() for name in "xy"}
        if isinstance(rule, Rule):
            b.write_variable(r.choice(self.variables), self.formed(rule.pattern, leaves, numbers, width))
            return
        op, left, right = rule.test
        compared = [self.formed(part, leaves, numbers, width) for part in (left, right)]
        if r.random() < 0.2:
            b.write_variable(r.choice(self.variables), b.compare(op, *compared, width))
        else:
            self.tested(op, *compared, width)

    def numbers(self, rule: Rule | TestRule, width: int) -> Constants:
        """Numbers and sizes for its names, mostly such that it may be used."""
        r = self.random
        found: Constants = {}
        for _ in range(40):
            found = {**WORD.constants(), "n": r.choice(WORD.sizes), "m": r.choice(WORD.sizes)}
            for name in "ab":
                number = r.choice((0, 1, 3, 8, 16, 24, 31, 48, 56, 0x7F, 0x800, *EDGES, r.getrandbits(32)))
                found[name] = number & ((1 << width) - 1)
            found["b"] = r.choice((0, found["a"], found["b"]))
            if rule.when({**found, "top x": 1, "top y": 1}, width):
                break
        return found

    def formed(self, pattern: Pattern, leaves: dict[str, Value], numbers: Constants, width: int) -> Value:
        """Instructions of the pattern's form; what has 64 bits is extended by 32 at most."""
        b = self.builder
        if isinstance(pattern, int):
            return const(pattern)
        if isinstance(pattern, str):
            return leaves[pattern] if pattern in leaves else const(numbers[pattern])
        kind, first, second = pattern
        if isinstance(kind, Op):
            args = [self.formed(part, leaves, numbers, width) for part in (first, second)]
            return (b.compare if kind in COMPARE_OPS else b.binary)(kind, *args, width)
        assert isinstance(first, str)
        value = self.formed(second, leaves, numbers, 64)
        if kind in (Form.SWAP, Form.LITTLE):
            return b.byte_order(value, max(numbers[first], 16), Op.TO_BE if kind is Form.SWAP else Op.TO_LE)
        return b.extend(value, min(numbers[first], 32), kind is Form.SIGN)

    def part(self) -> Value:
        """Some bits of a loaded or computed number, now and then of its bytes in the other order."""
        b, r = self.builder, self.random
        value = self.load() if r.random() < 0.7 else self.expression(1)
        for _ in range(r.randint(1, 3)):
            width = r.choice((32, 64, 64))
            number = const(r.choice((1, 7, 8, 15, 16, 24, 31)))
            mask = const(r.choice((0xFF, 0xFF00, 0xFFFF, 0xFFFFFF, 0x1FFF, 0xF0, 0xFFFFFFFF, 0xF0F00000, *EDGES)))
            match r.randrange(7):
                case 0 | 1:
                    value = b.byte_order(value, r.choice((16, 16, 32, 32, 64)), r.choice((Op.TO_BE, Op.SWAP)))
                case 2:
                    value = b.binary(r.choice((Op.RSH, Op.RSH, Op.LSH, Op.ARSH)), value, number, width)
                case 3 | 4:
                    value = b.binary(r.choice((Op.AND, Op.AND, Op.OR, Op.XOR)), value, mask, width)
                case 5:
                    value = b.extend(value, r.choice((8, 16, 32)), r.random() < 0.3)
                case _:
                    value = b.binary(r.choice((Op.ADD, Op.MUL, Op.SUB)), value, self.value(), width)
        return value

    def tested(self, op: Op, left: Value, right: Value, width: int) -> None:
        """A branch, the two ways of which write different numbers."""
        b, r = self.builder, self.random
        then, other, done = b.block("then"), b.block("else"), b.block("done")
        b.branch(op, left, right, then, other, width)
        for arm, number in ((then, 1), (other, 2)):
            b.seal(arm)
            b.start(arm)
            used = (
                b.binary(r.choice((Op.ADD, Op.XOR, Op.MUL)), self.value(), left) if r.random() < 0.2 else const(number)
            )
            b.write_variable(self.variables[0], used)
            if r.random() < 0.1:
                b.store(*self.place(), left)
            b.jump(done)
        b.seal(done)
        b.start(done)

    def value_written_again(self) -> None:
        """The same with a map value in place of the packet and the stack."""
        b, r = self.builder, self.random
        key = b.slot(4)
        b.store(key, 0, 4, b.binary(Op.AND, self.value(), const(7)))
        found = b.call_helper(1, MapRef("m"), key)
        hit, done = b.block("hit"), b.block("done")
        b.branch(Op.NE, found, const(0), hit, done)
        b.seal(hit)
        b.start(hit)

        def inside() -> tuple[Value, int, int]:
            size = r.choice(SIZES)
            return found, r.randrange(0, 8 - size + 1, size), size

        self.written_again(inside)
        b.write_variable(self.variables[0], b.load(*inside()))
        b.jump(done)
        b.seal(done)
        b.start(done)

    def written_again(self, place: Callable[[], tuple[Value, int, int]]) -> None:
        """Stores to a few places, of which some are like each other, with some loads in between, and branches."""
        b, r = self.builder, self.random
        places = [place() for _ in range(r.randint(1, 2))]
        for _ in range(r.randint(2, 5)):
            address, off, size = r.choice((*places, place()))
            choice = r.random()
            if choice < 0.7:
                b.store(address, off, size, self.value())
            elif choice < 0.85:
                b.write_variable(r.choice(self.variables), b.load(address, off, size))
            else:
                then, done = b.block("then"), b.block("done")
                b.branch(Op.LT, self.value(), self.leaf_value(), then, done)
                b.seal(then)
                b.start(then)
                b.store(address, off, size, self.leaf_value())
                b.jump(done)
                b.seal(done)
                b.start(done)
