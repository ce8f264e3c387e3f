"""What user space sets before it loads an object: what the kernel then says of it, what every engine does, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simulator import LoadError, MapError, World, load, verify
from simulator.program import Object
from tests import oracle
from tests.bpflisp.front.running import engines
from tests.cli.calling import call

FOLDER = Path(__file__).parents[2] / "fixtures/objects"
PATH = FOLDER / "configured.bpf.o"
PACKET = bytes(64)

VERDICTS: list[tuple[dict[str, Any], bool, int]] = [
    ({}, True, 60),
    ({"rounds": 3, "ports": {"from": 7, "to": 9}, "label": "drop", "total": 100}, True, 50),
    ({"rounds": 1_000_000}, False, 1_000_001),
]
"""Variables, and what kernel 6.18 says where they are set: its verdict, and how many instructions it processed."""


def with_size(**variables: Any) -> Object:
    return load(PATH, variables=variables, max_entries={"counts": 4})


@pytest.mark.parametrize(("variables", "accepted", "processed"), VERDICTS)
def test_constants_decide_what_the_verifier_follows(variables: dict[str, Any], accepted: bool, processed: int) -> None:
    verdict = verify(with_size(**variables)["configured"])
    assert (verdict.accepted, verdict.insns_processed) == (accepted, processed)


@pytest.mark.skipif(not oracle.available()[0], reason=oracle.available()[1] or "the kernel can be asked")
@pytest.mark.parametrize(("variables", "accepted", "processed"), VERDICTS)
def test_the_kernel_says_so(variables: dict[str, Any], accepted: bool, processed: int) -> None:
    answer = oracle.ask(with_size(**variables)["configured"])
    assert (answer.accepted, answer.insns_processed) == (accepted, processed)


@pytest.mark.parametrize("engine", engines())
def test_variables_are_what_programs_see_and_change(engine: str) -> None:
    obj = with_size(rounds=3, ports={"from": 7, "to": 9}, label="drop", total=100)
    world = World(obj)
    assert obj["configured"].run(PACKET, world=world, engine=engine).retval == 1
    assert world.maps.counts[2] == 127
    assert dict(world.variables) == {
        "rounds": 3,
        "ports": {"from": 7, "to": 9},
        "label": "drop",
        "seen": 1,
        "total": 127,
    }
    world.variables.seen = 40
    world.variables["total"] = 0
    obj["configured"].run(PACKET, world=world, engine=engine)
    assert (world.variables.seen, world.variables.total) == (41, 27)


def test_a_copy_has_variables_of_its_own() -> None:
    world = World(with_size())
    other = world.copy()
    other.variables.seen = 9
    assert (world.variables.seen, other.variables.seen) == (0, 9)


def test_constants_are_read_and_no_more() -> None:
    world = World(with_size())
    with pytest.raises(MapError, match=r"EPERM: variable 'rounds' is a constant: load\(\.\.\., variables="):
        world.variables.rounds = 5


@pytest.mark.parametrize(
    ("name", "message"),
    [("sene", "no variable 'sene'; did you mean 'seen'"), ("x", "there is rounds, ports, label, seen, total")],
)
def test_an_unknown_variable_is_named(name: str, message: str) -> None:
    world = World(with_size())
    with pytest.raises(AttributeError, match=message):
        getattr(world.variables, name)
    with pytest.raises(KeyError, match=message):
        world.variables[name] = 1


def test_without_btf_a_variable_is_a_number_or_bytes() -> None:
    elf = (FOLDER / "data.bpf.o").read_bytes().replace(b".BTF\0", b".XTF\0")
    given = {"limit": 9, "apart": -1, "zeros": bytes(range(24))}
    world = World(load(elf, name="data", variables=given))
    contents = {name: made.lookup(bytes(4)) for name, made in world.maps.items()}
    assert contents[".data.apart"] == b"\xff" * 8
    assert bytes(range(24)) in (contents["data.bss"] or b"")
    assert not world.variables  # nothing says where they lie
    for value in ("text", bytes(5), 1 << 32):
        with pytest.raises(LoadError, match="variable 'limit' cannot be"):
            load(elf, name="data", variables={"limit": value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variables": {"round": 1}}, "no variable 'round' in its data\n  = help: did you mean 'rounds'?"),
        ({"variables": {"x": 1}}, "help: it has label, ports, rounds, seen, total"),
        ({"variables": {"ports": 1}}, "variable 'ports' cannot be 1\n  = because: range has 2 fields"),
        ({"variables": {"rounds": 1 << 32}}, "because: 4294967296 does not fit in 4 bytes"),
        ({"variables": {"rounds": None}}, "variable 'rounds' cannot be None"),
        ({"variables": {"label": "much too long"}}, "does not fit in 8 bytes"),
        ({"max_entries": {"count": 1}}, "no map 'count'\n  = help: did you mean 'counts'?"),
        ({"max_entries": {"counts": 0}}, "map 'counts' cannot have 0 entries"),
        ({"max_entries": {"configur.bss": 2}}, "backs a section: it has one entry"),
    ],
)
def test_what_an_object_does_not_have_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LoadError) as caught:
        load(PATH, **settings)
    assert message in str(caught.value)


def test_a_map_without_a_size_is_told() -> None:
    """No kernel makes it; what its loader has to do is said, by the object and by the world."""
    obj = load(PATH)
    assert obj.notes == ("map 'counts' has no entries, which its loader sets: give them as max_entries={'counts': N}",)
    with pytest.raises(MapError, match=r"counts.* has no entries: its loader sets how many"):
        World(obj)


def test_the_commands_take_them(capsys: pytest.CaptureFixture[str]) -> None:
    checked = call(capsys, "check", PATH, "--set", "rounds=0x10")
    assert "accepted by" in checked.out
    assert "note: map 'counts' has no entries" in checked.err
    assert "too-complex" in call(capsys, "check", PATH, "--set", "rounds=1000000").out
    run = ("run", PATH, "--packet", PACKET.hex(), "--max-entries", "counts=4")
    assert "XDP_DROP" in call(capsys, *run, "--set", "label=drop", "--set", 'ports={"from": 1, "to": 2}').out
    assert "XDP_PASS" in call(capsys, *run).out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "rounds"), "'rounds' is no NAME=VALUE"),
        (("--set", "=1"), "'=1' is no NAME=VALUE"),
        (("--max-entries", "counts=many"), "'many' is no number of entries"),
        (("--set", "nothing=1"), "no variable 'nothing'"),
        (("--set", "seen=1"), "map 'counts' has no entries"),
    ],
)
def test_a_command_says_what_it_cannot_set(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    called = call(capsys, "run", PATH, "--packet", PACKET.hex(), *options)
    assert called.code == 2
    assert message in called.err
