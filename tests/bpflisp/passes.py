"""`make passes`: the tests of what programs do, once for each pass that is left out alone, and at -O0 and -O1.

`python -m tests.bpflisp.passes [PASS | LEVEL ...]` runs a part: passes by name, levels by number. Exit status 1 where a
test failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bpflisp.back.compile import IMPROVEMENTS
from bpflisp.opt import PASSES

BEHAVIOUR = (
    "tests/bpflisp/front",
    "tests/bpflisp/test_link_load.py",
    "tests/agreement/test_fixtures.py",
)
"""Tests that compile sources and run what comes out on every engine, the kernel among them, or ask for a verdict."""

LEFT_OUT = ("--ignore=tests/bpflisp/front/test_differential.py", "--ignore=tests/bpflisp/front/test_any_text.py")
"""Random sources: many more runs, which compare levels by themselves (tests/bpflisp/back/test_differential.py leaves
passes out of random functions), and texts that do not compile."""

WAYS = ("0", "1", *(step.name for step in PASSES), *IMPROVEMENTS)


def run(way: str) -> bool:
    """The tests with this pass left out, or at this level; says whether all passed."""
    name, value = ("BPFLISP_LEVEL", way) if way.isdigit() else ("BPFLISP_WITHOUT", way)
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-n", os.environ.get("JOBS", "auto"), *LEFT_OUT, *BEHAVIOUR]
    done = subprocess.run(command, env={**os.environ, name: value}, capture_output=True, text=True, check=False)
    print(
        f"{name}={value}: {'green' if done.returncode == 0 else 'FAILED'}, {time.monotonic() - start:.0f} s", flush=True
    )
    if done.returncode:
        print(done.stdout)
    return done.returncode == 0


def main(ways: list[str]) -> int:
    unknown = set(ways) - set(WAYS)
    if unknown:
        print(f"no such pass or level: {', '.join(sorted(unknown))}; there are {', '.join(WAYS)}", file=sys.stderr)
        return 2
    failed = [way for way in ways or WAYS if not run(way)]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
