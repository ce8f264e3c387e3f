"""Loading: an ELF object of any compiler, a Lisp source, or a record, as programs and maps that are plain values.

Loading is pure: it reads the file and what it is given, nothing of the host, and gives the same result everywhere.
Every refusal is a LoadError.
"""

from __future__ import annotations

from simulator.loader.errors import LoadError
from simulator.loader.loading import load
from simulator.loader.record import UNUSED_MAP, program_from_record

__all__ = ["UNUSED_MAP", "LoadError", "load", "program_from_record"]
