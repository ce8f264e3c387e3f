"""What compiling costs: a program of 450 slots as a whole process, and files of up to 5,000 lines."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bpflisp.diagnostics import Source
from bpflisp.driver import compile_source
from tests.bench.timing import table

LINES = (1250, 2500, 5000)

HEAD = "(defmap m :type :hash :key-size 4 :value-size 8 :max-entries 16)\n"

PROGRAM = """(defprog p{0} (:type :xdp :section "xdp")
  (with-tcp (data end tcp)
    (let ((port (tcp-dst-port tcp))
          (key u32 {0}))
      (when (= port {0})
        (incf (getmap m key))
        (return XDP_DROP))
      (cond ((> port 1000) (setf (getmap m port) (+ port {0})))
            ((= port 80) (return XDP_TX))
            (t (incf (getmap m 1) 2)))))
  XDP_PASS)
"""

BODY = """(defprog long (:type :xdp)
  (with-packet (data end :min-len 64)
    (let ((x 0))
{}
      (return x)))
  0)
"""


def many_programs(lines: int) -> str:
    """A file of so many lines, of programs of eleven lines."""
    return HEAD + "".join(PROGRAM.format(number) for number in range(lines // PROGRAM.count("\n")))


def one_program(lines: int) -> str:
    """A file of one program of so many lines: tests and sums."""
    return BODY.format(
        "\n".join(f"      (when (> (load u8 data {n % 60}) {n % 200}) (incf x {n}))" for n in range(lines))
    )


def growth() -> str:
    """CPU seconds by lines, of many programs in a file."""
    rows = []
    for lines in LINES:
        source = Source("long.lisp", many_programs(lines))
        start = time.process_time()
        slots = sum(each.slots for each in compile_source(source).programs.values())
        spent = time.process_time() - start
        rows.append((f"{lines} lines", str(slots), f"{spent:.2f}", f"{spent / lines * 1e6:.0f}"))
    return table(("compile", "slots", "CPU s", "us a line"), rows)


def whole_process(slots: int = 450) -> str:
    """CPU seconds of `bpflisp compile --no-verify` of one program of about so many slots, as a process."""
    lines = slots * 100 // 345
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.lisp"
        path.write_text(one_program(lines))
        made = sum(each.slots for each in compile_source(Source("long.lisp", one_program(lines))).programs.values())
        command = [sys.executable, "-m", "bpflisp", "compile", "--no-verify", str(path), "-o", f"{folder}/out.o"]
        spent = min(_cpu_of(command) for _ in range(3))
    return f"bpflisp compile --no-verify of one program of {made} slots, a whole process: {spent:.2f} s of CPU"


def _cpu_of(command: list[str]) -> float:
    """With modules that are compiled to bytecode, as they are where the package is installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, timeout=60, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    print(growth())
    print(whole_process())
