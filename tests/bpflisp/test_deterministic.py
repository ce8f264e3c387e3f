"""The same source gives the same bytes, whatever lies where in Python's memory and however strings are hashed."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
import hashlib, random, sys
from pathlib import Path
from bpflisp import compile_file

random.seed(int(sys.argv[1]))
kept = [bytearray(random.randrange(1, 900)) for _ in range(int(sys.argv[1]))]
random.shuffle(kept)
del kept[::3]
found = hashlib.sha256()
fixtures = Path(sys.argv[2]) / "fixtures"
for path in sorted([*fixtures.glob("*/*/program.lisp"), *fixtures.glob("loading/*.lisp")]):
    found.update(compile_file(path))
print(found.hexdigest())
"""


def digest(number: int) -> str:
    command = [sys.executable, "-c", SCRIPT, str(number), str(ROOT)]
    environment = {**os.environ, "PYTHONHASHSEED": str(number)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=300)
    return done.stdout.strip()


def test_the_same_source_gives_the_same_bytes() -> None:
    assert len({digest(number) for number in (1, 1000, 5003, 20011)}) == 1
