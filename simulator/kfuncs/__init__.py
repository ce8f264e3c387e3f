"""Kernel functions that programs call by name. Files are by theme; `registry` finds their models."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from bpflisp.spec.alu import M64
from simulator.kfuncs.registry import MODELS
from simulator.machine import HelperFault, Machine
from simulator.mocks import Call

_THEMES = (
    "arenas",
    "connections",
    "control",
    "cpumasks",
    "dynptrs",
    "iterators",
    "locks",
    "objects",
    "strings",
    "tasks",
)


def call(machine: Machine, name: str, arguments: tuple[int, ...]) -> int:
    """r0 of a call: the mock's answer, or the model's. A fault where there is neither."""
    load_all()
    a, b, c, d, e = arguments
    mock = machine.world.helpers.find(name)
    if mock is not None:
        answer = mock.answer(Call(name, (a, b, c, d, e), machine.memory, machine.world))
        if answer is not None:
            return answer & M64
    model = MODELS.get(name)
    if model is None:
        raise HelperFault(f"the kernel function {name} is not modelled: mock it, as in world.helpers.{name}.returns(0)")
    return model(machine, a, b, c, d, e) & M64


@cache
def load_all() -> None:
    """Imports every module of models, so that they register themselves."""
    for theme in _THEMES:
        import_module(f"simulator.kfuncs.{theme}")
