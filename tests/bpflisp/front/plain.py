"""A plain evaluator of the language, for the differential test: forms are tuples, values are words of 64 bits.

It shares nothing with the compiler but what operations do to numbers (`spec.alu`). Variables are cells, memory bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise

from bpflisp.spec import alu
from bpflisp.spec.isa import Op

MASK = (1 << 64) - 1
MEMORY = 16
"""Bytes of the buffer `m`."""

Form = int | str | tuple["Form", ...]

BINARY = {
    "+": Op.ADD, "-": Op.SUB, "*": Op.MUL, "/": Op.DIV, "mod": Op.MOD, "logand": Op.AND, "logior": Op.OR,
    "logxor": Op.XOR, "s/": Op.SDIV, "smod": Op.SMOD,
}  # fmt: skip
SHIFTS = {"<<": Op.LSH, ">>": Op.RSH, ">>>": Op.ARSH}
COMPARES = {
    "=": Op.EQ, "/=": Op.NE, ">": Op.GT, ">=": Op.GE, "<": Op.LT, "<=": Op.LE, "s>": Op.SGT, "s>=": Op.SGE,
    "s<": Op.SLT, "s<=": Op.SLE,
}  # fmt: skip
SWAPS = {"ntohs": 16, "htonl": 32, "ntohll": 64}
UNARY: dict[str, Callable[[int], int]] = {
    "not": lambda x: int(not x), "zerop": lambda x: int(not x), "lognot": lambda x: ~x & MASK,
    "1+": lambda x: x + 1 & MASK, "1-": lambda x: x - 1 & MASK, "evenp": lambda x: int(x % 2 == 0),
    "oddp": lambda x: x % 2, "log2": lambda x: max(x.bit_length() - 1, 0), "-": lambda x: -x & MASK,
}  # fmt: skip
ATOMICS = {
    "atomic-fetch-add": Op.ADD, "atomic-fetch-and": Op.AND, "atomic-fetch-or": Op.OR, "atomic-fetch-xor": Op.XOR,
}  # fmt: skip

FIELDS = {"rec-a": "u8", "rec-b": "i16", "rec-c": "u64", "part-q": "i32", "rec-list": "i8", "numbers": "i32"}
"""Members of the struct `rec`, of the struct in it, and the global array: each is of this type."""
MAPS = {"hashed": "u64", "indexed": "i32", "own": "u64"}
"""The maps, and the types of their values."""


def held(kind: str, number: int) -> int:
    """A number as a variable of that type holds it, extended to 64 bits."""
    bits = int(kind[1:])
    low = number & ((1 << bits) - 1)
    return alu.signed(low, bits) & MASK if kind[0] == "i" else low


class Returned(Exception):  # noqa: N818
    """`(return value)`."""

    def __init__(self, value: int) -> None:
        self.value = value


class Exited(Exception):  # noqa: N818
    """`(return-from name value)`."""

    def __init__(self, name: str, value: int) -> None:
        self.name, self.value = name, value


class Broken(Exception):  # noqa: N818
    """`(break)`."""


class Continued(Exception):  # noqa: N818
    """`(continue)`."""


@dataclass
class Cell:
    """A variable: its type, what it holds, and what lies at its address, if that is what it is read as."""

    kind: str
    own: int
    home: int | None = None

    @property
    def value(self) -> int:
        """What it is read as."""
        return self.own if self.home is None else held(self.kind, self.home)

    def set(self, number: int) -> int:
        """Give it a value, which is its own again; gives what it then holds."""
        self.own, self.home = held(self.kind, number), None
        return self.own


@dataclass
class State:
    """What all of a run shares: bytes of memory, members by name and index, maps."""

    memory: bytearray = field(default_factory=lambda: bytearray(MEMORY))
    members: dict[tuple[str, int], int] = field(default_factory=dict)
    maps: dict[tuple[str, int], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Env:
    """What is bound at some place."""

    cells: Mapping[str, Cell]
    state: State = field(default_factory=State)
    functions: Mapping[str, tuple[str, Form, Env]] = field(default_factory=dict)

    def bind(self, name: str, kind: str, value: int) -> Env:
        """With one variable more."""
        return replace(self, cells={**self.cells, name: Cell(kind, held(kind, value))})


def name_of(form: Form) -> str:
    assert isinstance(form, str)
    return form


def number_of(form: Form) -> int:
    assert isinstance(form, int)
    return form


def parts_of(form: Form) -> tuple[Form, ...]:
    assert isinstance(form, tuple)
    return form


def evaluate(form: Form, env: Env) -> int:
    """The value of a form."""
    if isinstance(form, int):
        return form & MASK
    if isinstance(form, str):
        return read_global(form, env) if form in GLOBALS else env.cells[form].value
    head = name_of(form[0])
    special = SPECIAL.get(head)
    if special is not None:
        return special(form[1:], env)
    if head in env.functions:
        return call(head, form[1], env)
    if head in FIELDS or head == "aref" or head == "getmap":
        return place(form, env)[0]()
    values = [evaluate(each, env) for each in form[1:]]
    if len(values) == 1 and head in UNARY:
        return UNARY[head](values[0])
    if head in COMPARES:
        pairs = combinations(values, 2) if head == "/=" else pairwise(values)
        return int(all(alu.compare(COMPARES[head], 64, a, b) for a, b in pairs))
    if head in SWAPS:
        return alu.byte_order(Op.TO_BE, SWAPS[head], values[0])
    if head in ("min", "max"):
        return min(values) if head == "min" else max(values)
    if head in SUBPROGRAMS:
        return SUBPROGRAMS[head](*values) & MASK
    op = {**BINARY, **SHIFTS}[head]
    total = values[0]
    for value in values[1:]:
        total = alu.compute(op, 64, total, value)
    return total


def progn(forms: Iterable[Form], env: Env) -> int:
    value = 0
    for form in forms:
        value = evaluate(form, env)
    return value


GLOBALS = {"signed-global": "i16", "wide-global": "u64"}


def read_global(name: str, env: Env) -> int:
    return env.state.members.get((name, 0), 0)


def mix(x: int, y: int) -> int:
    """What the subprogram of that name does; its first parameter is an i8, its second a u32."""
    x, y = alu.signed(x & 0xFF, 8), y & 0xFFFFFFFF
    return y - x if x < 0 else x * 3 + y


SUBPROGRAMS: dict[str, Callable[..., int]] = {"mix": mix, "weigh": lambda x, y: 10 * x + (y & 0xFF)}


# Places


def place(form: Form, env: Env) -> tuple[Callable[[], int], Callable[[int], int]]:
    """How to read and write a place, whose parts are evaluated here. Of what is no variable, the value of writing is
    the number as it was given."""
    if isinstance(form, str):
        if form not in GLOBALS:
            return lambda: env.cells[form].value, env.cells[form].set
        key, kind, table = (form, 0), GLOBALS[form], env.state.members
    else:
        head = name_of(form[0])
        if head == "getmap":
            name = name_of(form[1])
            key, kind, table = (name, evaluate(form[2], env)), MAPS[name], env.state.maps
        else:
            name = "numbers" if head == "aref" else head
            index = evaluate(form[2], env) if len(form) > 2 else 0
            key, kind, table = (name, index), FIELDS[name], env.state.members

    def write(number: int) -> int:
        table[key] = held(kind, number)
        return number

    return lambda: table.get(key, 0), write


# Special forms


def _if(rest: tuple[Form, ...], env: Env) -> int:
    if evaluate(rest[0], env):
        return evaluate(rest[1], env)
    return evaluate(rest[2], env) if len(rest) > 2 else 0


def _cond(rest: tuple[Form, ...], env: Env) -> int:
    for clause in map(parts_of, rest):
        if clause[0] == "t" or evaluate(clause[0], env):
            return progn(clause[1:], env)
    return 0


def _case(rest: tuple[Form, ...], env: Env) -> int:
    key = evaluate(rest[0], env)
    for clause in map(parts_of, rest[1:]):
        keys = clause[0] if isinstance(clause[0], tuple) else (clause[0],)
        if clause[0] in ("t", "otherwise") or key in [each & MASK for each in keys if isinstance(each, int)]:
            return progn(clause[1:], env)
    return 0


def _and(rest: tuple[Form, ...], env: Env) -> int:
    value = 1
    for item in rest:
        value = evaluate(item, env)
        if not value:
            return 0
    return value


def _or(rest: tuple[Form, ...], env: Env) -> int:
    return next((value for item in rest if (value := evaluate(item, env))), 0)


def _prog1(rest: tuple[Form, ...], env: Env) -> int:
    value = evaluate(rest[0], env)
    progn(rest[1:], env)
    return value


def _setf(rest: tuple[Form, ...], env: Env) -> int:
    value = 0
    for target, init in zip(rest[::2], rest[1::2], strict=True):
        _, write = place(target, env)
        value = write(evaluate(init, env))
    return value


def _count(sign: int) -> Callable[[tuple[Form, ...], Env], int]:
    def run(rest: tuple[Form, ...], env: Env) -> int:
        """A map's entry is counted in its own way: the value of that says nothing."""
        target = rest[0]
        read, write = place(target, env)
        entry = isinstance(target, tuple) and target[0] == "getmap"
        old = 0 if entry else read()
        step = evaluate(rest[1], env) if len(rest) > 1 else 1
        if entry:
            write(read() + sign * step & MASK)
            return 0
        return write(old + sign * step & MASK)

    return run


def _psetf(rest: tuple[Form, ...], env: Env) -> int:
    pairs = [(place(target, env)[1], evaluate(init, env)) for target, init in zip(rest[::2], rest[1::2], strict=True)]
    for write, value in pairs:
        write(value)
    return 0


def _rotatef(rest: tuple[Form, ...], env: Env) -> int:
    places = [place(target, env) for target in rest]
    values = [read() for read, _ in places]
    for (_, write), value in zip(places, values[1:] + values[:1], strict=True):
        write(value)
    return 0


def _let(rest: tuple[Form, ...], env: Env) -> int:
    inner = env
    for binding in parts_of(rest[0]):
        name, kind, init = parts_of(binding)
        inner = inner.bind(name_of(name), name_of(kind), evaluate(init, env))
    return progn(rest[1:], inner)


def _let_star(rest: tuple[Form, ...], env: Env) -> int:
    for binding in parts_of(rest[0]):
        name, kind, init = parts_of(binding)
        env = env.bind(name_of(name), name_of(kind), evaluate(init, env))
    return progn(rest[1:], env)


def _when_let(rest: tuple[Form, ...], env: Env) -> int:
    for binding in parts_of(rest[0]):
        name, init = parts_of(binding)
        env = env.bind(name_of(name), "u64", evaluate(init, env))
        if not env.cells[name_of(name)].value:
            return 0
    return progn(rest[1:], env)


def _if_let(rest: tuple[Form, ...], env: Env) -> int:
    name, kind, init = parts_of(rest[0])
    inner = env.bind(name_of(name), name_of(kind), evaluate(init, env))
    if inner.cells[name_of(name)].value:
        return evaluate(rest[1], inner)
    return evaluate(rest[2], env)


def _turns(name: str, turns: Iterable[int], body: tuple[Form, ...], env: Env) -> None:
    for turn in turns:
        try:
            progn(body, env.bind(name, "u64", turn))
        except Broken:
            break
        except Continued:
            continue


def _dotimes(rest: tuple[Form, ...], env: Env) -> int:
    name, count, *result = parts_of(rest[0])
    limit = evaluate(count, env)
    _turns(name_of(name), range(limit), rest[1:], env)
    return evaluate(result[0], env.bind(name_of(name), "u64", limit)) if result else 0


def _dolist(rest: tuple[Form, ...], env: Env) -> int:
    name, quoted = parts_of(rest[0])
    _turns(name_of(name), map(number_of, parts_of(parts_of(quoted)[1])), rest[1:], env)
    return 0


def _while(wanted: bool) -> Callable[[tuple[Form, ...], Env], int]:
    def run(rest: tuple[Form, ...], env: Env) -> int:
        while bool(evaluate(rest[0], env)) is wanted:
            try:
                progn(rest[1:], env)
            except Broken:
                break
            except Continued:
                continue
        return 0

    return run


def _raise(kind: type[Exception]) -> Callable[[tuple[Form, ...], Env], int]:
    def run(_: tuple[Form, ...], __: Env) -> int:
        raise kind

    return run


def _return(rest: tuple[Form, ...], env: Env) -> int:
    raise Returned(evaluate(rest[0], env))


def _return_from(rest: tuple[Form, ...], env: Env) -> int:
    raise Exited(name_of(rest[0]), evaluate(rest[1], env))


def _block(rest: tuple[Form, ...], env: Env) -> int:
    try:
        return progn(rest[1:], env)
    except Exited as leaving:
        if leaving.name != rest[0]:
            raise
        return leaving.value


def _flet(rest: tuple[Form, ...], env: Env) -> int:
    made = {}
    for definition in parts_of(rest[0]):
        name, params, body = parts_of(definition)
        made[name_of(name)] = (name_of(parts_of(params)[0]), body, env)
    return progn(rest[1:], replace(env, functions={**env.functions, **made}))


def call(name: str, argument: Form, env: Env) -> int:
    """A call of a local function: its body sees what is bound where it is written."""
    param, body, around = env.functions[name]
    return _block((name, body), around.bind(param, "u64", evaluate(argument, env)))


def _symbol_macrolet(rest: tuple[Form, ...], env: Env) -> int:
    ((name, stands_for),) = map(parts_of, parts_of(rest[0]))
    return progn([replaced(form, name_of(name), stands_for) for form in rest[1:]], env)


def replaced(form: Form, name: str, stands_for: Form) -> Form:
    """A form with a symbol exchanged. Names of symbol macros are bound in no other way."""
    if isinstance(form, tuple):
        return tuple(replaced(each, name, stands_for) for each in form)
    return stands_for if form == name else form


# Memory: the buffer `m`, or the bytes of a variable


def _load(rest: tuple[Form, ...], env: Env) -> int:
    kind, off = name_of(rest[0]), number_of(rest[2])
    return held(kind, int.from_bytes(env.state.memory[off : off + int(kind[1:]) // 8], "little"))


def _store(rest: tuple[Form, ...], env: Env) -> int:
    kind, where, off = name_of(rest[0]), rest[1], number_of(rest[2])
    size = int(kind[1:]) // 8
    cell = None if where == "m" else env.cells[name_of(parts_of(where)[1])]
    if cell is not None:
        cell.home = cell.value
    value = evaluate(rest[3], env)
    piece = (value & ((1 << size * 8) - 1)).to_bytes(size, "little")
    if cell is None:
        env.state.memory[off : off + size] = piece
    elif cell.home is not None:  # it was not assigned to since its address was taken, by which it is written
        word = bytearray(cell.home.to_bytes(8, "little"))
        word[off : off + size] = piece
        cell.home = int.from_bytes(word, "little")
    return value


def _memset(rest: tuple[Form, ...], env: Env) -> int:
    off, value, size = number_of(rest[1]), evaluate(rest[2], env), number_of(rest[3])
    env.state.memory[off : off + size] = bytes([value & 0xFF]) * size
    return 0


def _memcpy(rest: tuple[Form, ...], env: Env) -> int:
    to, start, size = (number_of(rest[at]) for at in (1, 3, 4))
    env.state.memory[to : to + size] = env.state.memory[start : start + size]
    return 0


def _atomic(change: Callable[[int, list[int], int], int]) -> Callable[[tuple[Form, ...], Env], int]:
    def run(rest: tuple[Form, ...], env: Env) -> int:
        off, kind = number_of(rest[1]), name_of(rest[-1])
        values = [evaluate(each, env) for each in rest[2:-1]]
        size = int(kind[1:]) // 8
        old = int.from_bytes(env.state.memory[off : off + size], "little")
        new = change(old, [value & ((1 << size * 8) - 1) for value in values], size * 8)
        env.state.memory[off : off + size] = (new & ((1 << size * 8) - 1)).to_bytes(size, "little")
        return old

    return run


def _fetching(op: Op) -> Callable[[int, list[int], int], int]:
    return lambda old, values, bits: alu.compute(op, bits, old, values[0])


def _cast(rest: tuple[Form, ...], env: Env) -> int:
    return held(name_of(rest[0]), evaluate(rest[1], env))


def _ash(rest: tuple[Form, ...], env: Env) -> int:
    value, count = evaluate(rest[0], env), number_of(rest[1])
    return alu.compute(Op.LSH if count >= 0 else Op.RSH, 64, value, abs(count))


def _remmap(rest: tuple[Form, ...], env: Env) -> int:
    """Its value is not looked at."""
    env.state.maps.pop((name_of(rest[0]), evaluate(rest[1], env)), None)
    return 0


SPECIAL: dict[str, Callable[[tuple[Form, ...], Env], int]] = {
    "if": _if, "cond": _cond, "case": _case, "and": _and, "or": _or, "progn": progn, "prog1": _prog1,
    "when": lambda rest, env: progn(rest[1:], env) if evaluate(rest[0], env) else 0,
    "unless": lambda rest, env: 0 if evaluate(rest[0], env) else progn(rest[1:], env),
    "setf": _setf, "incf": _count(1), "decf": _count(-1), "psetf": _psetf, "rotatef": _rotatef,
    "let": _let, "let*": _let_star, "when-let": _when_let, "if-let": _if_let,
    "dotimes": _dotimes, "dolist": _dolist, "while": _while(True), "until": _while(False),
    "break": _raise(Broken), "continue": _raise(Continued), "return": _return, "return-from": _return_from,
    "block": _block, "flet": _flet, "symbol-macrolet": _symbol_macrolet,
    "load": _load, "store": _store, "memset": _memset, "memcpy": _memcpy, "cast": _cast, "ash": _ash,
    "remmap": _remmap, "atomic-xchg": _atomic(lambda _, values, __: values[0]),
    "atomic-cmpxchg": _atomic(lambda old, values, _: values[1] if old == values[0] else old),
    **{name: _atomic(_fetching(op)) for name, op in ATOMICS.items()},
}  # fmt: skip
