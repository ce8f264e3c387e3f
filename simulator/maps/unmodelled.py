"""Maps of kinds that are not modelled: a program may name them; using them faults, and says so."""

from __future__ import annotations

from typing import NoReturn

from simulator.maps.base import Map


class Unmodelled(Map):
    """A map that only has a handle."""

    def address_of(self, key: bytes, cpu: int) -> int:
        self._use()

    def store(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        self._use()

    def remove(self, key: bytes) -> int:
        self._use()

    def push(self, value: bytes, flags: int) -> int:
        self._use()

    def pop(self, value: bytes) -> tuple[int, bytes | None]:
        self._use()

    def peek(self, value: bytes) -> tuple[int, bytes | None]:
        self._use()

    def _use(self) -> NoReturn:
        from simulator.machine import HelperFault

        raise HelperFault(f"maps of type {self.definition.type!r} are not modelled (map {self.name!r})")
