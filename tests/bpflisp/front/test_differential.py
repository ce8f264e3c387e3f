"""Programs that Hypothesis makes, against a plain evaluator: the same value at every level, on every engine.

A program reads three numbers from the packet, computes with variables of every type, globals, members of structs, maps,
memory, local functions and subprograms, and writes all 64 bits of what comes out back into the packet.

At length: `BPFLISP_DIFF=N python -m tests.bpflisp.front.test_differential` tries N programs, of one to four such
bodies, instead of a few; `BPFLISP_SEED=S` chooses them, `BPFLISP_ENGINES=python,kernel` who runs them.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from bpflisp import compile_text
from simulator.engines.kernel import KernelRefusedError
from simulator.loader import load
from simulator.run import run
from simulator.world import World
from tests.bpflisp.front import plain
from tests.bpflisp.front.plain import FIELDS, GLOBALS, MAPS, MASK, MEMORY, Env, Form, Returned
from tests.bpflisp.front.running import engines

EXAMPLES = int(os.environ.get("BPFLISP_DIFF", "80"))
ENGINES = tuple(filter(None, os.environ.get("BPFLISP_ENGINES", "").split(",")))
"""Who runs the programs; all that work here where it names none."""

INTERESTING = [0, 1, 2, 7, 63, 64, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
               0x100000000, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, MASK]  # fmt: skip
TYPES = ["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"]
UNARY = [*plain.UNARY, *plain.SWAPS]

numbers = st.sampled_from(INTERESTING) | st.integers(0, MASK) | st.integers(0, 20)
names = ["a", "b", "c"]


@dataclass(frozen=True)
class Around:
    """What a form may use: variables, local functions, blocks; and how deep it may nest."""

    variables: tuple[str, ...]
    depth: int
    functions: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()

    def inner(self, *more: str) -> Around:
        """One level deeper, with more variables."""
        return replace(self, variables=(*self.variables, *more), depth=self.depth - 1)


@st.composite
def forms(draw: st.DrawFn, around: Around) -> Form:
    """A form over what is around it, nested at most so deep."""
    if around.depth == 0 or draw(st.integers(0, 5)) == 0:
        leaves = [*around.variables, *GLOBALS]
        return draw(st.sampled_from(leaves)) if draw(st.booleans()) else draw(numbers)
    return draw(draw(st.sampled_from(KINDS))(around))


@st.composite
def arithmetic(draw: st.DrawFn, around: Around) -> Form:
    one = lambda: draw(forms(around.inner()))  # noqa: E731
    match draw(st.integers(0, 9)):
        case 0 | 1 | 2:
            form = (draw(st.sampled_from(sorted(plain.BINARY))), one(), one())
            return "a" if divides_by_zero(form) else form
        case 3:
            return (draw(st.sampled_from(["+", "*", "logior", "logxor", "min", "max"])), one(), one(), one())
        case 4:
            return (draw(st.sampled_from(sorted(plain.SHIFTS))), one(), draw(st.integers(0, 63)))
        case 5:
            return (draw(st.sampled_from(sorted(plain.SHIFTS))), one(), ("logand", one(), 63))
        case 6:
            return ("ash", one(), draw(st.integers(-63, 63)))
        case 7:
            return ("cast", draw(st.sampled_from(TYPES)), one())
        case 8:
            return (draw(st.sampled_from(UNARY)), one())
    operands = [one() for _ in range(draw(st.integers(2, 3)))]
    return (draw(st.sampled_from(sorted(plain.COMPARES))), *operands)


@st.composite
def control(draw: st.DrawFn, around: Around) -> Form:
    one = lambda: draw(forms(around.inner()))  # noqa: E731
    match draw(st.integers(0, 7)):
        case 0:
            return ("if", one(), one(), one())
        case 1:
            return (draw(st.sampled_from(["if", "when", "unless"])), one(), one())
        case 2:
            return ("cond", (one(), one()), (one(), one()), ("t", one()))
        case 3:
            first = (draw(st.integers(0, 3)), draw(st.integers(4, 9)))
            rest: list[Form] = [(draw(st.integers(10, 15)), one())]
            if draw(st.booleans()):
                rest.append((draw(st.sampled_from(["t", "otherwise"])), one()))
            return ("case", one(), (first, one()), *rest)
        case 4:
            return (draw(st.sampled_from(["and", "or", "progn", "prog1"])), *[one() for _ in range(2)])
        case 5:
            return (draw(st.sampled_from(["and", "or"])), *[one() for _ in range(3)])
        case 6:
            return ("when", one(), ("return", one()))
    if not around.blocks:
        name = f"block{around.depth}"
        body = forms(replace(around.inner(), blocks=(name,)))
        return ("block", name, draw(body), draw(body))
    return ("when", one(), ("return-from", draw(st.sampled_from(around.blocks)), one()))


@st.composite
def binding(draw: st.DrawFn, around: Around) -> Form:
    fresh, kind = f"v{around.depth}", draw(st.sampled_from(TYPES))
    one = lambda *more: draw(forms(around.inner(*more)))  # noqa: E731
    match draw(st.integers(0, 5)):
        case 0 | 1:
            return ("let", ((fresh, kind, one()),), one(fresh), one(fresh))
        case 2:
            other = f"w{around.depth}"
            head = draw(st.sampled_from(["let", "let*"]))
            second = one(fresh) if head == "let*" else one()
            return (head, ((fresh, kind, one()), (other, draw(st.sampled_from(TYPES)), second)), one(fresh, other))
        case 3:
            return ("when-let", ((fresh, one()),), one(fresh))
        case 4:
            return ("if-let", (fresh, kind, one()), one(fresh), one())
    target = draw(places(around))
    return ("symbol-macrolet", ((f"s{around.depth}", target),), one(f"s{around.depth}"), one(f"s{around.depth}"))


@st.composite
def assignment(draw: st.DrawFn, around: Around) -> Form:
    one = lambda: draw(forms(around.inner()))  # noqa: E731
    target = lambda: draw(places(around))  # noqa: E731
    match draw(st.integers(0, 6)):
        case 0 | 1:
            return ("setf", target(), one())
        case 2:
            return ("setf", target(), one(), target(), one())
        case 3:
            return (draw(st.sampled_from(["incf", "decf"])), target(), *([one()] if draw(st.booleans()) else []))
        case 4:
            name = draw(st.sampled_from(sorted(MAPS)))
            entry = ("getmap", name, ("logand", one(), 3))
            counted = (draw(st.sampled_from(["incf", "decf"])), entry, *([one()] if draw(st.booleans()) else []))
            return ("progn", counted, entry)
        case 5:
            return ("psetf", target(), one(), target(), one())
    return ("rotatef", target(), target())


@st.composite
def places(draw: st.DrawFn, around: Around) -> Form:
    """What `setf` writes, with any index; variables of loops, which count, are left alone."""
    index = lambda: ("logand", draw(forms(around.inner())), 3)  # noqa: E731
    match draw(st.integers(0, 5)):
        case 0 | 1 | 2:
            return draw(st.sampled_from([name for name in around.variables if name[0] != "i"] or ["a"]))
        case 3:
            return draw(st.sampled_from(sorted(GLOBALS)))
        case 4:
            return draw(st.sampled_from(MEMBERS))
    if draw(st.booleans()):
        return ("aref", "numbers", index())
    return ("rec-list", "rec", index())


MEMBERS: list[Form] = [("rec-a", "rec"), ("rec-b", "rec"), ("rec-c", "rec"), ("part-q", ("rec-part", "rec"))]


@st.composite
def memory(draw: st.DrawFn, around: Around) -> Form:
    one = lambda: draw(forms(around.inner()))  # noqa: E731
    kind = draw(st.sampled_from(TYPES))
    size = int(kind[1:]) // 8
    off = draw(st.integers(0, MEMORY // size - 1)) * size
    match draw(st.integers(0, 9)):
        case 0 | 1:
            return ("load", kind, "m", off)
        case 2:
            return ("store", kind, "m", off, one())
        case 3:
            variable = draw(st.sampled_from([name for name in around.variables if name[0] not in "is"] or ["a"]))
            return ("store", "u8", ("stack-addr", variable), 0, one())
        case 4:
            count = draw(st.integers(0, MEMORY - off))
            return ("memset", "m", off, one(), count)
        case 5:
            count = draw(st.integers(0, 8))
            return ("memcpy", "m", 8, "m", draw(st.integers(0, 8 - count)), count)
        case 6:
            width = draw(st.sampled_from(["u32", "u64"]))
            at = draw(st.integers(0, MEMORY // (int(width[1:]) // 8) - 1)) * (int(width[1:]) // 8)
            head = draw(st.sampled_from([*plain.ATOMICS, "atomic-xchg", "atomic-cmpxchg"]))
            values = [one() for _ in range(2 if head == "atomic-cmpxchg" else 1)]
            return (head, "m", at, *values, width)
        case 7:
            return ("getmap", draw(st.sampled_from(sorted(MAPS))), ("logand", one(), 3))
        case 8:
            return ("progn", ("remmap", "hashed", ("logand", one(), 3)), one())
    return draw(places(around))


@st.composite
def calls(draw: st.DrawFn, around: Around) -> Form:
    one = lambda: draw(forms(around.inner()))  # noqa: E731
    if draw(st.booleans()):
        return (draw(st.sampled_from(sorted(plain.SUBPROGRAMS))), one(), one())
    if around.functions and draw(st.booleans()):
        return (draw(st.sampled_from(around.functions)), one())
    name, param = f"local{around.depth}", f"x{around.depth}"
    if name in around.functions:
        return (name, one())
    body = draw(forms(replace(around.inner(param), blocks=(name,))))
    used = forms(replace(around.inner(), functions=(*around.functions, name)))
    return ("flet", ((name, (param,), body),), (name, one()), draw(used))


@st.composite
def loops(draw: st.DrawFn, around: Around) -> Form:
    counter = f"i{around.depth}"
    one = lambda *more: draw(forms(around.inner(*more)))  # noqa: E731
    body = [one(counter)]
    if draw(st.booleans()):
        leave = (draw(st.sampled_from(["break", "continue"])),)
        body.append((draw(st.sampled_from(["when", "unless"])), one(counter), leave))
        body.append(one(counter))
    match draw(st.integers(0, 4)):
        case 0:
            return ("dotimes", (counter, draw(st.integers(0, 4))), *body)
        case 1:
            return ("dotimes", (counter, ("logand", one(), 3)), *body)
        case 2:
            return ("dotimes", (counter, ("logand", one(), 3), one(counter)), *body)
        case 3:
            listed = tuple(draw(st.lists(numbers, max_size=3)))
            return ("dolist", (counter, ("quote", listed)), *body) if listed else 0
    bound: Form = ("<", counter, draw(st.integers(0, 4)))
    head = draw(st.sampled_from(["while", "until"]))
    test = bound if head == "while" else ("not", bound)
    return ("let", ((counter, "u64", 0),), (head, test, ("incf", counter, 1), *body), one(counter))


KINDS = [arithmetic, arithmetic, arithmetic, control, control, control, binding, binding, assignment, assignment,
         memory, memory, calls, loops]  # fmt: skip


def divides_by_zero(form: Form) -> bool:
    """A division by a number that is 0 is an error when compiling, and is not what is tried here."""
    return isinstance(form, tuple) and form[0] in ("/", "mod", "s/", "smod") and may_fold_to_zero(form[2])


def may_fold_to_zero(form: Form) -> bool:
    """Whether a divisor may be known to be 0 when compiling: it is not made of variables alone."""
    return form == 0 if isinstance(form, int) else not of_variables(form)


def of_variables(form: Form) -> bool:
    if isinstance(form, tuple):
        return form[0] in (*plain.BINARY, *plain.SHIFTS) and all(map(of_variables, form[1:]))
    return isinstance(form, str)


# Programs

BEFORE = """
(defstruct part (p u8) (q i32))
(defstruct record (a u8) (b i16) (c u64) (list (array i8 4)) (part part))
(defmap hashed :type :hash :key-type u32 :value-type u64 :max-entries 16)
(defmap indexed :type :array :key-type u32 :value-type i32 :max-entries 4)
(defmap own :type :percpu-hash :key-type u32 :value-type u64 :max-entries 16)
(defglobal signed-global i16)
(defglobal wide-global u64)
(defglobal numbers (array i32 4))
(defsubprog mix ((x i8) (y u32))
  (when (s< x 0)
    (return (- y x)))
  (+ (* x 3) y))
(defsubprog weigh (x (y u8))
  (declare (global))
  (+ (* 10 x) y))
(defsubprog start-anew ()
  (setf signed-global 0 wide-global 0)
  (dotimes (i 4)
    (setf (aref numbers i) 0 (getmap indexed i) 0)
    (remmap hashed i)
    (remmap own i))
  0)
"""
MEMBERS_OF = {"rec-a": "record-a", "rec-b": "record-b", "rec-c": "record-c", "rec-list": "record-list",
              "rec-part": "record-part"}  # fmt: skip

SUBPROGRAM = """
(defsubprog compute-{0} (a0 b0 c0)
  (start-anew)
  (let ((a {1} a0) (b {2} b0) (c {3} c0) (m (struct-alloc 16)) (rec (make-record)))
    (store u8 m 0 (load u8 m 1))
    (setf (record-a rec) 0)
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


def shown(form: Form) -> str:
    if isinstance(form, tuple):
        return "(" + " ".join(map(shown, form)) + ")"
    return MEMBERS_OF.get(form, form) if isinstance(form, str) else str(form)


def expected_of(case: Case, given: tuple[int, ...]) -> int:
    kinds, body = case
    env = Env({})
    for name, kind, number in zip(names, kinds, given, strict=True):
        env = env.bind(name, kind, number)
    try:
        return plain.evaluate(body, env)
    except Returned as early:
        return early.value


def source_of(cases: list[Case]) -> str:
    bodies = [SUBPROGRAM.format(at, *kinds, shown(body)) for at, (kinds, body) in enumerate(cases)]
    stores = [f"(store u64 data {32 + 8 * at} (compute-{at} x y z))" for at in range(len(cases))]
    return BEFORE + "".join(bodies) + PROGRAM.format("\n      ".join(stores))


def try_cases(cases: list[Case], given: tuple[int, ...], mcpu: str) -> None:
    expected = [expected_of(case, given) for case in cases]
    source = source_of(cases)
    if "(atomic-" in source and mcpu < "v3":
        mcpu = "v3"  # Atomics that fetch are not there before.
    packet = struct.pack("<QQQ", *given) + bytes(40)
    for opt in (0, 2):
        program = load(compile_text(source, opt=opt, mcpu=mcpu), name="t")["p"]
        for engine in ENGINES or engines():
            try:
                outcome = run(program, packet, World(), engine)
            except KernelRefusedError as refused:
                # Loops in loops with tests in them are more than the verifier follows; a difference is none.
                assert any(words in str(refused) for words in TOO_MUCH), f"{source}\n{refused}"  # noqa: PT017
                UNFOLLOWED.append(source)
                continue
            assert outcome.packet is not None, (source, outcome.fault)
            got = list(struct.unpack(f"<{len(cases)}Q", outcome.packet[32 : 32 + 8 * len(cases)]))
            assert got == expected, (engine, opt, mcpu, got, expected, source)
    COUNTED.extend(cases)


bodies = st.integers(2, 5).flatmap(lambda depth: forms(Around(tuple(names), depth)))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.tuples(*[st.sampled_from(TYPES)] * 3), bodies), min_size=1, max_size=4),
    st.tuples(numbers, numbers, numbers),
    st.sampled_from(["v3", "v1", "v2", "v4"]),
)
def test_compiled_and_evaluated_agree(cases: list[Case], given: tuple[int, ...], mcpu: str) -> None:
    try_cases(cases, given, mcpu)


def _with_ways_out(inner: st.SearchStrategy[Form]) -> st.SearchStrategy[Form]:
    """Forms that test, or go on, around such as may leave."""
    two = st.tuples(inner, inner)
    return (
        st.tuples(st.sampled_from(["and", "or", "when", "unless", "progn", "+", "="]), inner, inner)
        | st.tuples(st.sampled_from(["and", "or", "if"]), inner, inner, inner)
        | st.tuples(st.just("not"), inner)
        | st.tuples(st.just("cond"), two, two, st.tuples(st.just("t"), inner))
        | st.tuples(st.sampled_from(["while", "until"]), inner, st.tuples(st.just("progn"), inner, st.just(("break",))))
        | st.tuples(st.just("setf"), st.just("c"), inner)
    )


leaving: st.SearchStrategy[Form] = st.recursive(
    st.sampled_from(["a", "b", 0, 1, ("return", "b"), ("return", 7), ("setf", "a", 0)]), _with_ways_out, max_leaves=12
)


@settings(max_examples=min(EXAMPLES, 400), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(leaving, min_size=4, max_size=8), st.sampled_from([(0, 5, 9), (1, 0, 9), (3, 4, 5)]))
def test_a_function_may_be_left_from_anywhere(forms: list[Form], given: tuple[int, int, int]) -> None:
    """In the middle of a test, a sum, an assignment: what was begun around it is no matter any more."""
    for at in range(0, len(forms), 4):
        try_cases([(("u64", "u32", "u8"), form) for form in forms[at : at + 4]], given, "v3")


COUNTED: list[Case] = []
UNFOLLOWED: list[str] = []
"""The cases of this run, and the programs that the kernel's verifier gave up on, for who counts them."""

TOO_MUCH = ("BPF program is too large", "jumps is too complex", "Argument list too long")


def heads(form: Form) -> Iterable[str]:
    """Every head in a form."""
    if isinstance(form, tuple):
        if form and isinstance(form[0], str):
            yield form[0]
        for each in form:
            yield from heads(each)


def test_the_programs_use_the_language() -> None:
    """Each form that the evaluator knows is among what some thousand programs are made of."""
    found: set[str] = set()

    @settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(bodies)
    def collect(body: Form) -> None:
        found.update(heads(body))

    wanted = {*plain.SPECIAL, *plain.BINARY, *plain.COMPARES, *plain.SHIFTS, *plain.UNARY, *plain.SUBPROGRAMS, "getmap"}
    wanted -= {"until", "atomic-cmpxchg", *FIELDS}
    for number in range(1, 9):  # what is drawn first depends on the constants that Hypothesis found in modules
        seed(number)(collect)()
        if wanted <= found:
            break
    assert not wanted - found


if __name__ == "__main__":
    chosen = int(os.environ.get("BPFLISP_SEED") or random.SystemRandom().randrange(1 << 32))
    seed(chosen)(test_compiled_and_evaluated_agree)()
    given_up = len(set(UNFOLLOWED))
    print(f"seed {chosen}: {len(COUNTED)} cases without a difference; the kernel gave up on {given_up} programs")
