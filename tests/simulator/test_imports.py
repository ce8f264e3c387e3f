"""What is imported when: nothing with the package, and for a first result only what that run needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOADED = "print(*sorted(name for name in sys.modules if name.startswith(('simulator', 'bpflisp', 'scapy', 'ctypes'))))"
FIRST = """
obj = simulator.load("fixtures/twins/rate_limiter.o")
assert obj["rate_limiter"].run(bytes(64)).fault is None
"""


def modules(code: str) -> set[str]:
    """The modules of the project, and a few others, that a new process has after this code."""
    program = f"import sys, simulator\n{code}\n{LOADED}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_the_package_alone_imports_nothing() -> None:
    assert modules("") == {"simulator"}


@pytest.mark.parametrize(
    "name",
    [
        "scapy", "ctypes", "simulator.verifier", "simulator.engines.kernel", "simulator.engines.native.engine",
        "simulator.engines.source.compiler", "simulator.engines.source.text", "simulator.contexts.skb",
        "simulator.helpers.packet", "simulator.helpers.sockets", "simulator.maps.lpm_trie", "simulator.kfuncs",
        "simulator.loader.core", "simulator.failures", "bpflisp.spec.kfuncs",
    ],
)  # fmt: skip
def test_a_first_result_imports_only_what_it_needs(name: str, first: set[str]) -> None:
    assert name not in first


def test_a_first_result_goes_through_the_reference_engine(first: set[str]) -> None:
    assert "simulator.engines.reference" in first


@pytest.fixture(scope="module")
def first() -> set[str]:
    return modules(FIRST)
