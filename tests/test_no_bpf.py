"""The filter filters: what is shown under it is shown."""

import pytest

from simulator.engines import bpf_syscall
from tests import no_bpf


def _ask() -> tuple[bool, str]:
    return bpf_syscall.available()


def _fail() -> None:
    raise ValueError("as asked")


def test_bpf_is_refused_in_the_child() -> None:
    try:
        works, why = no_bpf.run(_ask)
    except no_bpf.FilterError as error:
        pytest.skip(str(error))
    assert not works
    assert "Operation not permitted" in why


def test_this_process_is_left_alone() -> None:
    before = bpf_syscall.available()
    try:
        no_bpf.run(_ask)
    except no_bpf.FilterError as error:
        pytest.skip(str(error))
    assert bpf_syscall.available() == before


def test_what_the_function_raises_is_raised_here() -> None:
    with pytest.raises((ValueError, no_bpf.FilterError)):
        no_bpf.run(_fail)
