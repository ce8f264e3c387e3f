"""Section names as libbpf itself reads them, where it is installed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from bpflisp.spec import programs
from bpflisp.spec.tabledata import table


def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libbpf.so.1")
    except OSError:
        return None
    library.libbpf_set_print(None)
    return library


LIBRARY = _library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libbpf is not installed")


def _ask(name: str) -> tuple[int, int] | None:
    """libbpf's program and attach type of a section name; None where it knows none such."""
    assert LIBRARY is not None
    prog_type, attach_type = ctypes.c_int(), ctypes.c_int()
    answer = LIBRARY.libbpf_prog_type_by_name(name.encode(), ctypes.byref(prog_type), ctypes.byref(attach_type))
    return (prog_type.value, attach_type.value) if answer == 0 else None


def _names() -> Iterator[str]:
    for pattern, *_ in table("sections"):
        base = pattern.rstrip("+")
        yield from (
            base,
            f"{base}/x",
            f"{base}/",
            f"{base}/a/b",
            f"{base}x",
            f"{base}.s",
            base.split("/")[0],
            base + "+",
        )
    yield from ("", "/", ".text", "socket1", "tc/x", "xdp/handler_a", "cgroup-skb", "classifier/x", "cgroup/x", "tp/")


def test_what_libbpf_knows_is_the_same_to_us() -> None:
    """An older libbpf knows fewer patterns than the table, which is of 1.7: there its answer is none."""
    known = 0
    for name in dict.fromkeys(_names()):
        told, found = _ask(name), programs.libbpf_section(name)
        if told is None:
            continue
        known += 1
        assert found is not None, name
        kind = programs.by_name(found.prog_type)
        assert kind is not None
        assert (kind.number, programs.attach_number(found.attach_type)) == told, name
    assert known > 100


@pytest.mark.parametrize("name", ["", "/", ".text", "socket1", "tc/x", "xdp/handler_a", "cgroup-skb", "cgroup/x"])
def test_what_neither_knows(name: str) -> None:
    assert _ask(name) is None
    assert programs.libbpf_section(name) is None
