"""`python -m tests.bench [--hard] [--plugin]`: code size, engine speed, verifier speed, compile time.

`--hard` adds the loop that ends at a million instructions, `--plugin` what the plugin costs, which takes minutes.
"""

from __future__ import annotations

import platform
import sys
import time

from bpflisp import compile_file
from simulator.loader import load
from simulator.program import Object
from tests.agreement.fixtures import all_fixtures
from tests.bench import effort, goals, long_files, plugin, runs

PACKET_PROGRAMS = ("port_blocker", "syn_limiter")


def main() -> None:
    """Prints every table."""
    start = time.perf_counter()
    print(f"Python {platform.python_version()}, kernel {platform.release()}, {platform.machine()}\n")
    lisp: dict[str, Object] = {found.name: load(compile_file(found.source)) for found in all_fixtures()}
    twins: dict[str, Object] = {found.name: load(found.twin) for found in all_fixtures()}
    print(effort.sizes(lisp, twins), end="\n\n")
    print(runs.report({name: lisp[name] for name in PACKET_PROGRAMS}), end="\n\n")
    print(goals.report(), end="\n\n")
    print(effort.verified(lisp))
    if "--hard" in sys.argv:
        print(effort.hard_case())
    print()
    print(effort.compile_time())
    print(long_files.whole_process())
    print(long_files.growth())
    if "--plugin" in sys.argv:
        print("\n" + plugin.report())
    print(f"(all of this in {time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
