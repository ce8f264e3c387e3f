"""The names that tests outside the project bind to. A change here is a change for every user."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Mapping, Sequence

import pytest

PINNED: Mapping[str, Sequence[str]] = {
    "simulator": ("load", "verify", "Program", "MapDef", "World", "Object", "Verdict", "Outcome", "Fault"),
    "bpflisp": ("compile_text", "compile_file", "CompileError"),
    "pytest_plugin": ("Pass", "Drop", "Tx", "Aborted", "Redirect", "TcAct", "Refused"),
    "pytest_plugin.strategies": ("packets", "maps"),
    "bpflisp.cli": ("main",),
}

# Fields of the values that users read and make; more may follow, none of these may go.
FIELDS: Mapping[tuple[str, str], Sequence[str]] = {
    ("simulator.verdict", "Verdict"): ("accepted", "message", "code", "insn", "insns_processed", "log"),
    ("simulator.outcome", "Outcome"): ("retval", "packet", "fault", "trace"),
    ("simulator.outcome", "Fault"): ("kind", "address", "size", "insn", "source"),
    ("simulator.program", "Program"): ("insns", "type", "maps", "license"),
    ("simulator.program", "MapDef"): ("name", "type", "key_size", "value_size", "max_entries"),
    ("simulator.program", "Object"): ("programs", "maps"),
}

# Parameters by name, in the order in which they may be given by place.
PARAMETERS: Mapping[tuple[str, str], Sequence[str]] = {
    ("simulator.program", "Program.verify"): ("self", "kernel", "kernel_btf"),
    ("simulator.program", "Program.run"): ("self", "packet", "world", "engine"),
    ("simulator.program", "Program.from_record"): ("record", "btf"),
    ("simulator", "verify"): ("program", "kernel", "kernel_btf"),
    ("bpflisp", "compile_text"): ("text",),
    ("bpflisp", "compile_file"): ("path",),
}


def _find(module: str, name: str) -> object:
    found: object = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in PINNED.items() for name in names])
def test_public_name_is_there(module: str, name: str) -> None:
    _find(module, name)


@pytest.mark.parametrize(("module", "name"), FIELDS)
def test_fields_are_there(module: str, name: str) -> None:
    value = _find(module, name)
    assert isinstance(value, type)
    assert dataclasses.is_dataclass(value)
    properties = {known for known, member in inspect.getmembers(value) if isinstance(member, property)}
    assert set(FIELDS[module, name]) <= {field.name for field in dataclasses.fields(value)} | properties


@pytest.mark.parametrize(("module", "name"), PARAMETERS)
def test_parameters_keep_their_names_and_order(module: str, name: str) -> None:
    value = _find(module, name)
    assert callable(value)
    wanted = PARAMETERS[module, name]
    assert list(inspect.signature(value).parameters)[: len(wanted)] == list(wanted)


COMMANDS = ("compile", "check", "run", "disasm", "explain", "needs", "probe", "doctor")


@pytest.mark.parametrize("name", COMMANDS)
def test_subcommand_is_there(name: str) -> None:
    from bpflisp.cli import COMMANDS as BUILT

    assert name in BUILT
