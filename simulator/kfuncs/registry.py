"""Kernel functions by name: models of the machine and five arguments, as those of helpers."""

from __future__ import annotations

from collections.abc import Callable

from simulator.machine import Machine

Model = Callable[[Machine, int, int, int, int, int], int]
MODELS: dict[str, Model] = {}
"""Kernel function -> its model. Filled by the modules of this package as they are imported."""


def models(*names: str) -> Callable[[Model], Model]:
    """Registers a function as the model of these kernel functions."""

    def register(function: Model) -> Model:
        for name in names:
            assert name not in MODELS, f"{name} has two models"
            MODELS[name] = function
        return function

    return register
