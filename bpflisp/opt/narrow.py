"""Loads no more bytes than anybody asks for, where a mask, a shift or a byte swap is saved by it.

Contract: a load from the packet, a map value, the stack or global data becomes one of an aligned part of its bytes,
if all the bits that are asked for lie there. What follows gets simpler: a mask keeps all that is left, a shift moves
by less, a swap has fewer bytes. Loads of the context and of members that CO-RE relocates keep their size, and so do
those of other addresses, where it may matter; so does a load from the stack of what may become part of an address,
since the verifier knows a stored number by its size.
"""

from __future__ import annotations

from collections.abc import Iterator

from bpflisp.ir import ssa
from bpflisp.ir.addresses import Space, root, space
from bpflisp.ir.ssa import Binary, ByteOrder, Const, Extend, Function, Instr, Load, Value, const
from bpflisp.lean import dataclass
from bpflisp.opt.demand import asked_bits
from bpflisp.opt.uses import Uses
from bpflisp.spec.isa import Op

_SPACES = frozenset({Space.PACKET, Space.OBJECT, Space.STACK, Space.DATA})


@dataclass(frozen=True, slots=True)
class _Part:
    """`size` bytes from byte `at` of a value on, counted from its lowest."""

    at: int
    size: int


def narrow_loads(function: Function) -> bool:
    """Every load once. Says whether one became narrower."""
    loads = [load for load in _partly_used(function) if _may_be_narrower(load)]
    if not loads:
        return False
    asked, uses, users = asked_bits(function), Uses(function), _users(function)
    replaced: dict[Value, Value] = {}
    changed = False
    for load in loads:
        if space(root(load.args[0])[0]) is Space.STACK and uses.needs_bounds(load):
            continue
        swap = _only_swap(load, users)
        value: Instr = load if swap is None else swap
        part = _part(asked.get(value, 0), load)
        if part is not None and _saves(part, users.get(value, []), swap is not None):
            _narrow(load, swap, part, users.get(value, []), replaced)
            changed = True
    ssa.replace_values(function, replaced)
    return changed


def _partly_used(function: Function) -> Iterator[Load]:
    """Loads of which something looks at a part, in the order of the first that does."""
    seen: dict[Load, None] = {}
    for instr in function.instructions():
        if isinstance(instr, Extend) or (isinstance(instr, Binary) and instr.op in (Op.AND, Op.RSH)):
            value = instr.args[0]
            if isinstance(value, ByteOrder):
                value = value.args[0]
            if isinstance(value, Load):
                seen[value] = None
    return iter(seen)


def _may_be_narrower(load: Load) -> bool:
    return load.size > 1 and load.core is None and space(root(load.args[0])[0]) in _SPACES


def _users(function: Function) -> dict[Value, list[Instr]]:
    found: dict[Value, list[Instr]] = {}
    for instr in function.instructions():
        for value in ssa.operands(instr):
            if isinstance(value, Load | ByteOrder):
                found.setdefault(value, []).append(instr)
    return found


def _only_swap(load: Load, users: dict[Value, list[Instr]]) -> ByteOrder | None:
    """The swap of all the loaded bytes that is the only use of them."""
    match users.get(load):
        case [ByteOrder(bits=bits) as swap] if bits == 8 * load.size and swap.op is not Op.TO_LE:
            return swap
    return None


def _part(asked: int, load: Load) -> _Part | None:
    """The smallest aligned part that has all the bits; None where that is the whole, or its sign is asked for."""
    size = load.size
    if load.signed and asked >> 8 * size:
        return None
    asked &= (1 << 8 * size) - 1
    if not asked:
        return None
    lowest, highest = ((asked & -asked).bit_length() - 1) // 8, (asked.bit_length() - 1) // 8
    parts = (_Part(lowest // width * width, width) for width in (1, 2, 4) if width < size)
    return next((part for part in parts if highest < part.at + part.size), None)


def _saves(part: _Part, users: list[Instr], swapped: bool) -> bool:
    """Whether there is less to do afterwards. Of a higher part it has to be shifts that all others see it by."""
    if part.at:
        return all(_shifts(user) >= 8 * part.at for user in users)
    return swapped or any(_keeps_no_more(user, 8 * part.size) for user in users)


def _shifts(user: Instr) -> int:
    """By how many bits it shifts to the right."""
    match user:
        case Binary(op=Op.RSH, args=[Instr(), Const(number)], width=width):
            return number & (width - 1)
    return 0


def _keeps_no_more(user: Instr, bits: int) -> bool:
    match user:
        case Extend(bits=kept, signed=False):
            return kept >= bits
        case Binary(op=Op.AND, args=[_, Const(number)]):
            return not ((1 << bits) - 1) & ~number
    return False


def _narrow(load: Load, swap: ByteOrder | None, part: _Part, users: list[Instr], replaced: dict[Value, Value]) -> None:
    load.off += part.at if swap is None else load.size - part.at - part.size
    load.size, load.signed = part.size, False
    if swap is not None and part.size == 1:
        replaced[swap] = load
    elif swap is not None:
        swap.bits = 8 * part.size
    if part.at:
        for user in users:
            user.args[1] = const(_shifts(user) - 8 * part.at)
