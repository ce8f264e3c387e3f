"""Helpers, by number, that generated code knows by themselves: small, so that a first run needs nothing else of it."""

from __future__ import annotations

LOOKUP, TAIL_CALL = 1, 12

MAIN = -1
"""The program itself among its functions, which are known by their first slot."""

NO_CALLBACK = frozenset({1, 2, 3, 5, 6, 7, 8, 14, 15, 16, 35, 80, 87, 88, 89, 125, 130, 131, 132, 133, 134, 195})
"""Helpers that neither change the packet nor run functions of the program: maps, time, randomness, task, records."""
