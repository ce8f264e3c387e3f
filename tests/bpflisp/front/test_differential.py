"""Programs that Hypothesis makes, against a plain evaluator: the same value at every level, on every engine.

A program reads three numbers from the packet, computes with variables of every type, and writes all 64 bits of what
comes out back into the packet. `BPFLISP_DIFF=N` tries N programs, of one to four such bodies, instead of a few.
"""

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpflisp import compile_text
from bpflisp.spec import alu
from bpflisp.spec.isa import Op
from simulator.engines.kernel import KernelRefusedError
from simulator.loader import load
from simulator.run import run
from simulator.world import World
from tests.bpflisp.front.running import engines

EXAMPLES = int(os.environ.get("BPFLISP_DIFF", "80"))
MASK = (1 << 64) - 1
MEMORY = 16
"""Bytes of the buffer `m`."""

INTERESTING = [0, 1, 2, 7, 63, 64, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
               0x100000000, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, MASK]  # fmt: skip

BINARY = {
    "+": Op.ADD, "-": Op.SUB, "*": Op.MUL, "/": Op.DIV, "mod": Op.MOD, "logand": Op.AND, "logior": Op.OR,
    "logxor": Op.XOR, "s/": Op.SDIV, "smod": Op.SMOD,
}  # fmt: skip
SHIFTS = {"<<": Op.LSH, ">>": Op.RSH, ">>>": Op.ARSH}
COMPARES = {
    "=": Op.EQ, "/=": Op.NE, ">": Op.GT, ">=": Op.GE, "<": Op.LT, "<=": Op.LE, "s>": Op.SGT, "s>=": Op.SGE,
    "s<": Op.SLT, "s<=": Op.SLE,
}  # fmt: skip
TYPES = ["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"]
SWAPS = {"ntohs": 16, "htonl": 32, "ntohll": 64}

Form = int | str | tuple["Form", ...]


def held(kind: str, number: int) -> int:
    bits = int(kind[1:])
    low = number & ((1 << bits) - 1)
    return alu.signed(low, bits) & MASK if kind[0] == "i" else low


class Returned(Exception):  # noqa: N818
    def __init__(self, value: int) -> None:
        self.value = value


class Broken(Exception):  # noqa: N818
    """`(break)`."""


class Continued(Exception):  # noqa: N818
    """`(continue)`."""


@dataclass
class Variables:
    values: dict[str, int] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    memory: bytearray = field(default_factory=lambda: bytearray(MEMORY))


def evaluate(form: Form, env: Variables) -> int:
    if isinstance(form, int):
        return form & MASK
    if isinstance(form, str):
        return env.values[form]
    head, *rest = form
    assert isinstance(head, str)
    match head:
        case "if":
            test, then, *other = rest
            if evaluate(test, env):
                return evaluate(then, env)
            return evaluate(other[0], env) if other else 0
        case "when" | "unless":
            if bool(evaluate(rest[0], env)) is (head == "when"):
                return evaluate(("progn", *rest[1:]), env)
            return 0
        case "cond":
            for clause in rest:
                assert isinstance(clause, tuple)
                if clause[0] == "t" or evaluate(clause[0], env):
                    return evaluate(("progn", *clause[1:]), env)
            return 0
        case "case":
            key = evaluate(rest[0], env)
            for clause in rest[1:]:
                assert isinstance(clause, tuple)
                keys = clause[0]
                if keys == "t" or (isinstance(keys, tuple) and key in keys):
                    return evaluate(("progn", *clause[1:]), env)
            return 0
        case "and":
            value = 1
            for item in rest:
                value = evaluate(item, env)
                if not value:
                    return 0
            return value
        case "or":
            for item in rest:
                value = evaluate(item, env)
                if value:
                    return value
            return 0
        case "not":
            return int(not evaluate(rest[0], env))
        case "progn":
            value = 0
            for item in rest:
                value = evaluate(item, env)
            return value
        case "setf":
            name, init = rest
            assert isinstance(name, str)
            env.values[name] = held(env.types[name], evaluate(init, env))
            return env.values[name]
        case "incf" | "decf":
            name, init = rest
            assert isinstance(name, str)
            old = env.values[name]
            step = evaluate(init, env)
            new = old + (step if head == "incf" else -step)
            env.values[name] = held(env.types[name], new & MASK)
            return env.values[name]
        case "let":
            return evaluate_let(rest, env)
        case "dotimes":
            name, count = rest[0]  # type: ignore[misc]
            return evaluate_loop(name, range(evaluate(count, env)), rest[1:], env)
        case "dolist":
            name, quoted = rest[0]  # type: ignore[misc]
            assert isinstance(quoted, tuple)
            return evaluate_loop(name, quoted[1], rest[1:], env)
        case "while":
            return evaluate_while(rest, env)
        case "break":
            raise Broken
        case "continue":
            raise Continued
        case "load" | "store":
            return evaluate_memory(head, rest, env)
        case "min" | "max":
            values = [evaluate(item, env) for item in rest]
            return min(values) if head == "min" else max(values)
        case "return":
            raise Returned(evaluate(rest[0], env))
        case "cast":
            assert isinstance(rest[0], str)
            return held(rest[0], evaluate(rest[1], env))
    values = [evaluate(item, env) for item in rest]
    if head in COMPARES:
        return int(alu.compare(COMPARES[head], 64, *values))
    if head in SWAPS:
        return alu.byte_order(Op.TO_BE, SWAPS[head], values[0])
    return alu.compute({**BINARY, **SHIFTS}[head], 64, *values)


def evaluate_loop(name: Form, turns: Iterable[Form], body: list[Form], env: Variables) -> int:
    assert isinstance(name, str)
    for turn in turns:
        assert isinstance(turn, int)
        inner = scoped(env, name, "u64", turn)
        try:
            evaluate(("progn", *body), inner)
        except Broken:
            break
        except Continued:
            continue
        finally:
            leave(env, inner, name)
    return 0


def evaluate_while(rest: list[Form], env: Variables) -> int:
    while evaluate(rest[0], env):
        try:
            evaluate(("progn", *rest[1:]), env)
        except Broken:
            break
        except Continued:
            continue
    return 0


def evaluate_memory(head: str, rest: list[Form], env: Variables) -> int:
    """In the buffer `m`, or in the bytes of a variable."""
    kind, where, off, *given = rest
    assert isinstance(kind, str)
    assert isinstance(off, int)
    size = int(kind[1:]) // 8
    if where == "m":
        if head == "load":
            return held(kind, int.from_bytes(env.memory[off : off + size], "little"))
        value = evaluate(given[0], env)
        env.memory[off : off + size] = (value & ((1 << size * 8) - 1)).to_bytes(size, "little")
        return value
    assert isinstance(where, tuple)
    name = where[1]
    assert isinstance(name, str)
    value = evaluate(given[0], env)
    word = bytearray(env.values[name].to_bytes(8, "little"))
    word[off : off + size] = (value & ((1 << size * 8) - 1)).to_bytes(size, "little")
    env.values[name] = held(env.types[name], int.from_bytes(word, "little"))
    return value


def scoped(env: Variables, name: str, kind: str, value: int) -> Variables:
    return Variables({**env.values, name: value}, {**env.types, name: kind}, env.memory)


def leave(env: Variables, inner: Variables, name: str) -> None:
    for other in env.values:
        if other != name:
            env.values[other] = inner.values[other]


def evaluate_let(rest: list[Form], env: Variables) -> int:
    ((name, kind, init),) = rest[0]  # type: ignore[misc]
    assert isinstance(name, str)
    assert isinstance(kind, str)
    inner = scoped(env, name, kind, held(kind, evaluate(init, env)))
    try:
        return evaluate(("progn", *rest[1:]), inner)
    finally:
        leave(env, inner, name)


def shown(form: Form) -> str:
    return "(" + " ".join(map(shown, form)) + ")" if isinstance(form, tuple) else str(form)


numbers = st.sampled_from(INTERESTING) | st.integers(0, MASK) | st.integers(0, 20)
names = ["a", "b", "c"]


@st.composite
def forms(draw: st.DrawFn, scope: list[str], depth: int) -> Form:
    """A form over the variables in scope, nested at most so deep."""

    def one(*more: str) -> Form:
        return draw(forms([*scope, *more], depth - 1))

    def pick(choices: Iterable[str]) -> str:
        return draw(st.sampled_from(sorted(choices)))

    if depth == 0 or draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(scope)) if draw(st.booleans()) else draw(numbers)
    fresh, variable = f"v{depth}", pick(name for name in scope if name[0] != "i")
    match draw(st.integers(0, 22)):
        case 0 | 1 | 2:
            form = (pick(BINARY), one(), one())
            return "a" if divides_by_zero(form) else form
        case 3:
            return (pick(SHIFTS), one(), draw(st.integers(0, 63)))
        case 4:
            return (pick(SHIFTS), one(), ("logand", one(), 63))
        case 5:
            return (pick(COMPARES), one(), one())
        case 6:
            return ("cast", pick(TYPES), one())
        case 7:
            return (pick([*SWAPS, "not"]), one())
        case 8:
            return (pick(["and", "or", "progn"]), one(), one())
        case 9:
            return ("if", one(), one(), one())
        case 10:
            return (pick(["if", "when", "unless"]), one(), one())
        case 11:
            return ("cond", (one(), one()), (one(), one()), ("t", one()))
        case 12:
            return ("case", one(), ((draw(st.integers(0, 3)), draw(st.integers(4, 9))), one()))
        case 13:
            return ("setf", variable, one())
        case 14:
            return (pick(["incf", "decf"]), variable, one())
        case 15:
            return ("let", ((fresh, pick(TYPES), one()),), one(fresh), one(fresh))
        case 16:
            return ("when", one(), ("return", one()))
        case 17:
            return ("load", *draw(places()))
        case 18:
            return ("store", *draw(places()), one())
        case 19:
            return (pick(["min", "max"]), one(), one())
        case 20:
            return ("store", "u8", ("stack-addr", variable), 0, one())
    counter = f"i{depth}"
    body = [one(counter)]
    if draw(st.booleans()):
        body.append((pick(["when", "unless"]), one(counter), (pick(["break", "continue"]),)))
        body.append(one(counter))
    match draw(st.integers(0, 3)):
        case 0:
            return ("dotimes", (counter, draw(st.integers(0, 4))), *body)
        case 1:
            return ("dotimes", (counter, ("logand", one(), 3)), *body)
        case 2:
            listed = tuple(draw(st.lists(numbers, max_size=3)))
            return ("dolist", (counter, ("quote", listed)), *body) if listed else 0
    bound = ("<", counter, draw(st.integers(0, 4)))
    return ("let", ((counter, "u64", 0),), ("while", bound, ("incf", counter, 1), *body), one(counter))


@st.composite
def places(draw: st.DrawFn) -> tuple[Form, ...]:
    """A type, the buffer, and an aligned offset in it."""
    kind = draw(st.sampled_from(TYPES))
    size = int(kind[1:]) // 8
    return kind, "m", draw(st.integers(0, MEMORY // size - 1)) * size


def divides_by_zero(form: Form) -> bool:
    """A division by a number that is 0 is an error when compiling, and is not what is tried here."""
    return isinstance(form, tuple) and form[0] in ("/", "mod", "s/", "smod") and may_fold_to_zero(form[2])


def may_fold_to_zero(form: Form) -> bool:
    if isinstance(form, tuple):
        return not variables_in(form)
    return form == 0


def variables_in(form: Form) -> bool:
    if isinstance(form, tuple):
        return all(variables_in(part) for part in form[1:]) and len(form) > 1 and form[0] in (*BINARY, *SHIFTS)
    return isinstance(form, str)


SUBPROGRAM = """
(defsubprog compute-{0} (a0 b0 c0)
  (let ((a {1} a0) (b {2} b0) (c {3} c0) (m (struct-alloc 16)))
    (store u8 m 0 (load u8 m 1))
    {4}))
"""

PROGRAM = """
(defprog p (:type :xdp)
  (with-packet (data end :min-len 64)
    (let ((x (load u64 data 0)) (y (load u64 data 8)) (z (load u64 data 16)))
      {})
    XDP_PASS))
"""

Case = tuple[tuple[str, ...], Form]


def expected_of(case: Case, given: tuple[int, ...]) -> int:
    kinds, body = case
    start = {name: held(kind, number) for name, kind, number in zip(names, kinds, given, strict=True)}
    try:
        return evaluate(body, Variables(start, dict(zip(names, kinds, strict=True))))
    except Returned as early:
        return early.value


def source_of(cases: list[Case]) -> str:
    bodies = [SUBPROGRAM.format(at, *kinds, shown(body)) for at, (kinds, body) in enumerate(cases)]
    stores = [f"(store u64 data {32 + 8 * at} (compute-{at} x y z))" for at in range(len(cases))]
    return "".join(bodies) + PROGRAM.format("\n      ".join(stores))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.tuples(*[st.sampled_from(TYPES)] * 3), forms(names, 5)), min_size=1, max_size=4),
    st.tuples(numbers, numbers, numbers),
    st.sampled_from(["v3", "v1", "v2", "v4"]),
)
def test_compiled_and_evaluated_agree(cases: list[Case], given: tuple[int, ...], mcpu: str) -> None:
    expected = [expected_of(case, given) for case in cases]
    source = source_of(cases)
    packet = struct.pack("<QQQ", *given) + bytes(40)
    for opt in (0, 2):
        program = load(compile_text(source, opt=opt, mcpu=mcpu), name="t")["p"]
        for engine in engines():
            try:
                outcome = run(program, packet, World(), engine)
            except KernelRefusedError as refused:
                # Loops in loops with tests in them are more than the verifier follows; a difference is none.
                assert any(words in str(refused) for words in TOO_MUCH), source  # noqa: PT017
                UNFOLLOWED.append(source)
                continue
            assert outcome.packet is not None
            got = list(struct.unpack(f"<{len(cases)}Q", outcome.packet[32 : 32 + 8 * len(cases)]))
            assert got == expected, (engine, opt, mcpu, got, expected)
    COUNTED.extend(cases)


COUNTED: list[Case] = []
UNFOLLOWED: list[str] = []
"""The cases of this run, and the programs that the kernel's verifier gave up on, for who counts them."""

TOO_MUCH = ("BPF program is too large", "jumps is too complex", "Argument list too long")


if __name__ == "__main__":
    test_compiled_and_evaluated_agree()
    given_up = len(set(UNFOLLOWED))
    print(f"{len(COUNTED)} cases without a difference; the kernel's verifier gave up on {given_up} programs")
