"""Every module of ours imported, for tests that run pytest inside of pytest.

Such a run forgets the modules that it has imported. What is imported again afterwards has new classes, and modules that
were there before still have the old ones: an enum's member is then no longer itself.
"""

from importlib import import_module
from pkgutil import walk_packages

import scapy.layers.inet
import scapy.layers.inet6

import bpflisp
import pytest_plugin
import simulator

LOADED = [
    import_module(module.name)
    for package in (bpflisp, simulator, pytest_plugin)
    for module in walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
] + [scapy]
