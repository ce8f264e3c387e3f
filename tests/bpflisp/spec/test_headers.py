"""Headers lie as the kernel's C structures do, and fields do not overlap."""

from __future__ import annotations

import pytest

from bpflisp.spec import contexts
from bpflisp.spec.headers import BUILTIN_CONSTANTS, HEADERS, MORE_CONSTANTS, NAMED_CONSTANTS
from bpflisp.spec.programs import ACTIONS


@pytest.mark.parametrize("name", HEADERS)
def test_fields_fill_the_header(name: str) -> None:
    header = HEADERS[name]
    covered: list[int] = []
    for field in header.fields:
        covered += range(field.offset, field.offset + field.size)
        assert header.field(field.name) is field
    assert covered == list(range(header.size))
    assert NAMED_CONSTANTS[f"{name}-hdr-len"] == header.size


@pytest.mark.parametrize("name", [name for name, header in HEADERS.items() if header.ctype in contexts.struct_names()])
def test_sizes_are_those_of_the_kernel(name: str) -> None:
    assert contexts.struct(HEADERS[name].ctype).size == HEADERS[name].size


C_NAMES = {
    "ipv4": {"tos": "tos", "total-len": "tot_len", "frag-off": "frag_off", "ttl": "ttl", "checksum": "check"},
    "tcp": {"src-port": "source", "dst-port": "dest", "seq": "seq", "window": "window", "urgent": "urg_ptr"},
    "udp": {"src-port": "source", "length": "len", "checksum": "check"},
    "ipv6": {"payload-len": "payload_len", "nexthdr": "nexthdr", "hop-limit": "hop_limit"},
    "eth": {"type": "h_proto"},
}


@pytest.mark.parametrize("name", C_NAMES)
def test_offsets_are_those_of_the_kernel(name: str) -> None:
    struct = contexts.struct(HEADERS[name].ctype)
    for ours, theirs in C_NAMES[name].items():
        field, member = HEADERS[name].field(ours), struct.field(theirs)
        assert field is not None
        assert member is not None
        assert (field.offset, field.size) == (member.offset, member.size)


def test_constants_agree_with_the_names_of_actions() -> None:
    known = {**BUILTIN_CONSTANTS, **MORE_CONSTANTS}
    for actions in ACTIONS.values():
        for value, name in actions.items():
            assert known[name] == value
