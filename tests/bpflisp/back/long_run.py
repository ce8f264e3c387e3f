"""The differential test at length: `python -m tests.bpflisp.back.long_run FIRST COUNT [kernel]`.

Random functions, -O0 and -O2 in turn over v1 to v4, against the interpreter of the intermediate form; on the tiny
machine of these tests, or in the kernel. Prints what differs and a count; exit status 1 where anything did.
"""

from __future__ import annotations

import random
import sys
import time

from bpflisp.back import compile_function
from bpflisp.ir.clone import clone_function
from bpflisp.opt import run

from .compared import run_code, run_function
from .generate import PACKET_SIZE, Generator


def on_the_machine(seed: int) -> bool:
    version, size = seed % 4 + 1, seed % 40 + 1
    function = Generator(seed, size, version, variables=6 + seed % 9).function()
    wanted = run_function(function, seed)
    for level in (0, 2):
        better = clone_function(function)
        run(better, level)
        if run_code(compile_function(better, f"v{version}", level), seed) != wanted:
            return False
    return True


def in_the_kernel(seed: int) -> bool:
    from tests.oracle import ask

    from .test_kernel import as_program, expected, in_kernel

    version, size = seed % 4 + 1, seed % 40 + 1
    function = Generator(seed, size, version, variables=6 + seed % 9, checked=True).function()
    r = random.Random(seed)
    packet, values = r.randbytes(PACKET_SIZE), r.randbytes(64)
    wanted = expected(function, packet, values)
    for level in (0, 2):
        better = clone_function(function)
        run(better, level)
        code = compile_function(better, f"v{version}", level)
        answer = ask(as_program(code))
        if not answer.accepted or in_kernel(code, packet, values) != wanted:
            print(f"seed {seed}, level {level}: {answer.message or 'another result'}")
            return False
    return True


def main(first: int, count: int, kernel: bool) -> int:
    check = in_the_kernel if kernel else on_the_machine
    start = time.monotonic()
    wrong = [seed for seed in range(first, first + count) if not check(seed)]
    print(f"{count} functions, {len(wrong)} differ, {time.monotonic() - start:.0f} s", *wrong[:20])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), "kernel" in sys.argv))
