"""The evaluator recurses as deeply as the driver allows it to."""

import sys
from collections.abc import Iterator

import pytest

from bpflisp.driver import RECURSION


@pytest.fixture(autouse=True)
def _deep_recursion() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(RECURSION)
    yield
    sys.setrecursionlimit(before)
