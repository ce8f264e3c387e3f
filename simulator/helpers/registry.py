"""Helpers by number: `call` finds the mock or the model, and says what to do where there is neither.

A model is a function of the machine and five arguments, unsigned 64-bit, that returns r0; a negative number is an
error of the kernel's. Invariant: what comes out of `call` is an unsigned 64-bit number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from bpflisp.spec import helpers as spec
from bpflisp.spec.alu import M64
from simulator.machine import HelperFault, Machine
from simulator.mocks import Call

Model = Callable[[Machine, int, int, int, int, int], int]

MODELS: dict[str, Model] = {}
"""Helper name -> its model. Filled by the modules of this package as they are imported."""


def models(*names: str) -> Callable[[Model], Model]:
    """Registers a function as the model of these helpers."""

    def register(function: Model) -> Model:
        for name in names:
            assert name not in MODELS, f"{name} has two models"
            MODELS[name] = function
        return function

    return register


@cache
def name_of(number: int) -> str:
    """The name of a helper by its number; "" where there is none."""
    helper = spec.by_id(number)
    return helper.name if helper else ""


@cache
def arity_of(number: int) -> int:
    """How many arguments a helper takes; five where that is not known, or it takes any number."""
    helper = spec.by_id(number)
    return 5 if helper is None or helper.variadic else len(helper.c_args)


@cache
def takes_context(number: int) -> bool:
    """Whether a helper is given the context, and so may change the packet."""
    helper = spec.by_id(number)
    return helper is None or any(arg.type is spec.ArgType.PTR_TO_CTX for proto in helper.protos for arg in proto.args)


@cache
def model_of(number: int) -> Model | None:
    """The model of a helper by its number; None where it has none."""
    from simulator.helpers import load_until

    return load_until(name_of(number))


def bind(machine: Machine, number: int) -> Callable[[int, int, int, int, int], int]:
    """A helper as a function of its five arguments, for this machine: its mock, or its model.

    What is neither is a function that faults, and says how to mock it.
    """
    name = name_of(number)
    model = model_of(number)
    mock = machine.world.helpers.find(name) if name else None
    if mock is not None:
        return _mocked(machine, name, model)
    if model is None:
        return _missing(number, name)

    def call(a: int, b: int, c: int, d: int, e: int) -> int:
        return model(machine, a, b, c, d, e) & M64

    return call


def _mocked(machine: Machine, name: str, model: Model | None) -> Callable[[int, int, int, int, int], int]:
    def call(a: int, b: int, c: int, d: int, e: int) -> int:
        mock = machine.world.helpers[name]
        answer = mock.answer(Call(name, (a, b, c, d, e), machine.memory, machine.world))
        if answer is None and model is not None:
            answer = model(machine, a, b, c, d, e)
        if answer is None:
            raise HelperFault(f"{name} is mocked, but gave no answer, and it is not modelled")
        return answer & M64

    return call


def _missing(number: int, name: str) -> Callable[[int, int, int, int, int], int]:
    def call(a: int, b: int, c: int, d: int, e: int) -> int:
        if not name:
            raise HelperFault(f"there is no helper number {number}")
        raise HelperFault(f"{name} is not modelled: mock it, as in world.helpers.{name}.returns(0)")

    return call
