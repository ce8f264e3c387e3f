"""Numbers at compile time: whole, exact, of any size up to a bound."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from typing import Any

from bpflisp.syntax.data import (
    MAX_BITS,
    Function,
    truth,
)
from bpflisp.syntax.forms import fail, text


def _number(value: Any) -> Any:
    if isinstance(value, int | float | Fraction) and not isinstance(value, bool):
        return value
    raise TypeError(f"`{text(value)}` is no number")


def _integer(value: Any) -> int:
    if isinstance(value, int):
        return value
    raise TypeError(f"`{text(value)}` is no whole number")


def _plain(value: Any) -> Any:
    """A fraction that is whole, as an integer; a number with too many bits is refused."""
    if isinstance(value, Fraction) and value.denominator == 1:
        return value.numerator
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise fail("too-big", f"a number of more than {MAX_BITS} bits")
    return value


def _add(*numbers: Any) -> Any:
    return _plain(sum(map(_number, numbers)))


def _multiply(*numbers: Any) -> Any:
    return reduce(lambda a, b: _plain(a * _number(b)), numbers, 1)


def _subtract(head: Any, *rest: Any) -> Any:
    return _plain(_number(head) - sum(map(_number, rest)) if rest else -_number(head))


def _divide(head: Any, *rest: Any) -> Any:
    total = _number(head)
    for number in rest or (total,):
        if not rest:
            total = 1
        exact = isinstance(total, int | Fraction) and isinstance(number, int | Fraction)
        total = Fraction(total) / Fraction(number) if exact else total / number
    return _plain(total)


def _chain(compare: Callable[[Any, Any], bool]) -> Function:
    def chained(*numbers: Any) -> object:
        values = [_number(number) for number in numbers]
        return truth(all(compare(a, b) for a, b in pairwise(values)))

    return chained


def _different(*numbers: Any) -> object:
    values = [_number(number) for number in numbers]
    return truth(len(set(values)) == len(values))


def _shift(number: Any, count: Any) -> Any:
    if count > 0 and number and _integer(number).bit_length() + count > MAX_BITS:
        raise fail("too-big", f"a number of more than {MAX_BITS} bits")
    return number << count if count >= 0 else number >> -count


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and abs(base) > 1 and abs(exponent) * base.bit_length() > MAX_BITS:
        raise fail("too-big", f"a number of more than {MAX_BITS} bits")
    if isinstance(base, int) and isinstance(exponent, int) and exponent < 0:
        return _plain(Fraction(base) ** exponent)
    return _plain(base**exponent)


def _division(rounding: str) -> Function:
    def divide(dividend: Any, divisor: Any = 1) -> object:
        from bpflisp.syntax.evaluator import Values

        exact = Fraction(dividend) / Fraction(divisor)
        match rounding:
            case "floor":
                quotient = exact.numerator // exact.denominator
            case "ceiling":
                quotient = -(-exact.numerator // exact.denominator)
            case "truncate":
                quotient = int(exact)
            case _:
                quotient = round(exact)
        return Values((quotient, _plain(dividend - quotient * divisor)))

    return divide


def _remainder(dividend: Any, divisor: Any) -> Any:
    return dividend - divisor * int(Fraction(dividend) / Fraction(divisor))


NUMBERS: dict[str, Function] = {
    "+": _add, "*": _multiply, "-": _subtract, "/": _divide,
    "=": _chain(operator.eq), "<": _chain(operator.lt), ">": _chain(operator.gt), "<=": _chain(operator.le),
    ">=": _chain(operator.ge), "/=": _different,
    "1+": lambda n: _number(n) + 1, "1-": lambda n: _number(n) - 1,
    "MOD": lambda a, b: _number(a) % _number(b), "REM": _remainder, "ABS": lambda n: abs(_number(n)),
    "MIN": lambda *ns: min(map(_number, ns)), "MAX": lambda *ns: max(map(_number, ns)),
    "FLOOR": _division("floor"), "CEILING": _division("ceiling"), "TRUNCATE": _division("truncate"),
    "ROUND": _division("round"), "EXPT": _power, "ASH": _shift, "<<": _shift,
    ">>": lambda n, count: _shift(n, -count),
    "LOGAND": lambda *ns: reduce(operator.and_, map(_integer, ns), -1),
    "LOGIOR": lambda *ns: reduce(operator.or_, map(_integer, ns), 0),
    "LOGXOR": lambda *ns: reduce(operator.xor, map(_integer, ns), 0),
    "LOGNOT": lambda n: ~_integer(n),
    "LOGTEST": lambda a, b: truth(a & b), "LOGBITP": lambda bit, n: truth(n >> bit & 1),
    "LOGCOUNT": lambda n: (n if n >= 0 else ~n).bit_count(),
    "INTEGER-LENGTH": lambda n: (n if n >= 0 else ~n).bit_length(),
    "ISQRT": lambda n: math.isqrt(n), "GCD": lambda *ns: math.gcd(*ns),
    "LCM": lambda *ns: math.lcm(*ns), "SIGNUM": lambda n: (n > 0) - (n < 0),
    "ZEROP": lambda n: truth(_number(n) == 0), "PLUSP": lambda n: truth(_number(n) > 0),
    "MINUSP": lambda n: truth(_number(n) < 0), "EVENP": lambda n: truth(_integer(n) % 2 == 0),
    "ODDP": lambda n: truth(_integer(n) % 2),
    "NUMERATOR": lambda n: Fraction(n).numerator, "DENOMINATOR": lambda n: Fraction(n).denominator,
}  # fmt: skip
_BITWISE: dict[str, Callable[[int, int], int]] = {
    "AND": operator.and_, "IOR": operator.or_, "XOR": operator.xor, "EQV": lambda a, b: ~(a ^ b),
    "NAND": lambda a, b: ~(a & b), "NOR": lambda a, b: ~(a | b), "ANDC1": lambda a, b: ~a & b,
    "ANDC2": lambda a, b: a & ~b, "ORC1": lambda a, b: ~a | b, "ORC2": lambda a, b: a | ~b,
}  # fmt: skip
NUMBERS |= {
    f"LOG{name}": (lambda a, b, compute=compute: compute(_integer(a), _integer(b)))
    for name, compute in _BITWISE.items()
    if name not in ("AND", "IOR", "XOR", "EQV")
}
NUMBERS |= {
    "LOGEQV": lambda *ns: reduce(_BITWISE["EQV"], map(_integer, ns), -1),
    "FLOAT": lambda n, *_: float(_number(n)), "RATIONAL": lambda n: _plain(Fraction(_number(n))),
    "EXP": lambda n: math.exp(_number(n)), "SIN": lambda n: math.sin(_number(n)), "COS": lambda n: math.cos(_number(n)),
    "RATIONALP": lambda n: truth(isinstance(n, int | Fraction)),
    "REALP": lambda n: truth(isinstance(n, int | float | Fraction)),
}  # fmt: skip
NUMBERS["BIT-AND"], NUMBERS["BIT-OR"], NUMBERS["BIT-XOR"] = (NUMBERS[n] for n in ("LOGAND", "LOGIOR", "LOGXOR"))
