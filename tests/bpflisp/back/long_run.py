"""The differential test at length: `python -m tests.bpflisp.back.long_run [--cases N] [--first SEED] [--no-kernel]`.

Each case is a random function in the intermediate form, for one of v1 to v4 in turn. What the interpreter says of it is
what every other party must say: the interpreter of what -O2 made of it; and the machine code of -O0, of -O2 and, in
every seventh case, of -O2 without one pass or improvement (each in turn), run on the engine `python` and, where bpf(2)
works, in the kernel, which must also accept it; our verifier must accept what -O2 made after as many instructions.

Seeds start from today's date unless one is given, and are printed; a case is repeated by its seed. What differs is
shown with the shortest function of its seed that still differs. Exit status 1 where anything did.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from bpflisp.back import Code, compile_function
from bpflisp.back.compile import IMPROVEMENTS
from bpflisp.ir.clone import clone_function
from bpflisp.ir.ssa import Function
from bpflisp.ir.text import print_function
from bpflisp.opt import PASSES, run
from simulator.program import Program
from tests.oracle import ask, available

from .generate import PACKET_SIZE, Bounded, Generator, Leaving, Parts
from .test_kernel import as_program, expected, on_engine

LEFT_OUT = (*(step.name for step in PASSES), *IMPROVEMENTS)
"""What is left out alone, one of these each case."""


class DiffersError(Exception):
    """A party that says otherwise; the message says which, and what."""


def function_of(seed: int, size: int) -> Function:
    """The function of a case; of a smaller `size` it has fewer statements."""
    kind = {0: Leaving, 1: Bounded, 2: Parts}.get(seed % 5, Generator)
    return kind(seed, size, _version(seed), variables=6 + seed % 9, checked=True).function()


def check(seed: int, size: int, kernel: bool) -> None:
    """Raises DiffersError, or whatever a stage of the compiler raises."""
    function, mcpu = function_of(seed, size), f"v{_version(seed)}"
    r = random.Random(seed)
    packet, values = r.randbytes(PACKET_SIZE), r.randbytes(64)
    wanted = expected(function, packet, values)
    better = clone_function(function)
    run(better, 2, check=seed % 4 == 0)
    if expected(better, packet, values) != wanted:
        raise DiffersError("the interpreter, after -O2")
    for who, code in _codes(function, better, mcpu, LEFT_OUT[seed // 7 % len(LEFT_OUT)] if seed % 7 == 3 else ""):
        _check_code(who, code, packet, values, wanted, kernel)


def _codes(function: Function, better: Function, mcpu: str, left_out: str) -> Iterator[tuple[str, Code]]:
    yield "-O0", compile_function(function, mcpu, 0)
    yield "-O2", compile_function(better, mcpu, 2)
    if not left_out:
        return
    without = clone_function(function)
    run(without, 2, [left_out], check=True)
    yield f"-O2 without {left_out}", compile_function(without, mcpu, 2, [left_out])


def _check_code(who: str, code: Code, packet: bytes, values: bytes, wanted: object, kernel: bool) -> None:
    program = as_program(code)
    for engine in ("python", "kernel") if kernel else ("python",):
        if engine == "kernel":
            answer = ask(program)
            if not answer.accepted:
                raise DiffersError(f"the kernel refuses {who}: {answer.message}")
            _check_verdict(program, who, answer.insns_processed)
        if on_engine(engine, code, packet, values) != wanted:
            raise DiffersError(f"{who} on the engine {engine}")


def _check_verdict(program: Program, who: str, processed: int | None) -> None:
    if who != "-O0":
        verdict = program.verify()
        if (verdict.accepted, verdict.insns_processed) != (True, processed):
            raise DiffersError(f"our verifier on {who}: {verdict.message}, {verdict.insns_processed} processed")


def _version(seed: int) -> int:
    return seed % 4 + 1


def _size(seed: int) -> int:
    """Up to 10 statements, or 20, now and then 40: what a case takes grows faster than what it shows."""
    most = 40 if seed % 11 == 0 else 20 if seed % 3 == 0 else 10
    return seed // 4 % most + 1


def _problem(seed: int, size: int, kernel: bool) -> str:
    try:
        check(seed, size, kernel)
    except Exception as error:  # whatever goes wrong is what is looked for
        return f"{type(error).__name__}: {error}"
    return ""


def _shown(seed: int, kernel: bool) -> str:
    """The shortest function of this seed that differs, in the form that tests keep."""
    sizes = range(1, _size(seed) + 1)
    size, problem = next((size, found) for size in sizes if (found := _problem(seed, size, kernel)))
    return f"seed {seed}, size {size}, v{_version(seed)}: {problem}\n{print_function(function_of(seed, size))}"


def main() -> int:
    """Runs the cases; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bpflisp.back.long_run")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=int(f"{datetime.now(UTC):%Y%m%d}000000"))
    parser.add_argument("--no-kernel", action="store_true")
    options = parser.parse_args()
    kernel = not options.no_kernel and available()[0]
    print(
        f"seeds {options.first} to {options.first + options.cases - 1}, kernel: {'yes' if kernel else 'no'}", flush=True
    )
    start, wrong = time.monotonic(), 0
    for done, seed in enumerate(range(options.first, options.first + options.cases), 1):
        if _problem(seed, _size(seed), kernel):
            wrong += 1
            print(_shown(seed, kernel), flush=True)
        if done % 1000 == 0:
            print(f"{done} cases, {wrong} differ, {time.monotonic() - start:.0f} s", flush=True)
    print(f"{options.cases} cases, {wrong} differ, {time.monotonic() - start:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
