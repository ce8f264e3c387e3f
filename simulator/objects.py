"""Objects that programs allocate, and the lists and trees that hold them. Part of a world's value.

Invariants: an object is a region of its own, so that a node's object is the region that the node lies in. A node is in
one list or tree at most: `_owner` says in which. An object goes when its last reference does, and everything that its
managed fields hold goes with it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.managed import Field
    from simulator.memory import Memory, Region

Less = Callable[[int, int], bool]
"""Whether the first node comes before the second."""

_KPTRS = ("kptr_ref", "kptr_percpu")


@dataclass(slots=True)
class Allocated:
    """One object: its memory, what of it the kernel manages, and how many references there are to it."""

    region: Region
    fields: Sequence[Field] = ()
    references: int = 1
    per_cpu: int = 0
    """Bytes from one CPU's copy to the next; 0 for an object that has one copy."""


@dataclass(slots=True)
class Objects:
    """The allocated objects of a world, by address; nodes of lists and trees, by the address of head or root."""

    memory: Memory
    allocated: dict[int, Allocated] = field(default_factory=dict)
    _nodes: dict[int, list[int]] = field(default_factory=dict)
    _owner: dict[int, int] = field(default_factory=dict)

    def allocate(self, name: str, size: int, fields: Sequence[Field] = (), copies: int = 0) -> int:
        """The address of a new object of `size` zero bytes, or of so many copies of it, one a CPU; 0 for no room."""
        stride = (size + 7) & -8 if copies else 0
        try:
            region = self.memory.allocate(name, stride * copies or size)
        except MemoryError:
            return 0
        self.allocated[region.base] = Allocated(region, fields, per_cpu=stride)
        return region.base

    def share(self, address: int) -> int:
        """One more reference: the address; 0 where no object is there."""
        found = self.allocated.get(address)
        if found is None:
            return 0
        found.references += 1
        return address

    def release(self, address: int) -> None:
        """One reference less; the last one frees the object and what it holds."""
        found = self.allocated.get(address)
        if found is None:
            return
        found.references -= 1
        if found.references:
            return
        del self.allocated[address]
        self.clear(address, found.fields)
        self.memory.free(found.region)

    def clear(self, start: int, fields: Sequence[Field]) -> None:
        """Frees what the managed fields of a value at `start` hold: nodes of lists and trees, kept pointers."""
        for one in fields:
            place = start + one.offset
            for node in self._nodes.pop(place, ()):
                self._owner.pop(node, None)
                self._release_node(node)
            if one.kind in _KPTRS:
                self.release(int.from_bytes(self.memory.read(place, 8), "little"))
                self.memory.write(place, bytes(8))

    def owner_of(self, node: int) -> int:
        """The head or root that a node is in; 0 for none."""
        return self._owner.get(node, 0)

    def nodes_of(self, head: int) -> Sequence[int]:
        """The nodes of a list or tree, in order."""
        return self._nodes.get(head, ())

    def insert(self, head: int, node: int, at: int | None) -> int:
        """Puts a node into a list, at an index or (None) at the end: EINVAL, and a reference less, if it is in one."""
        if node in self._owner:
            self._release_node(node)
            return -errno.EINVAL
        nodes = self._nodes.setdefault(head, [])
        nodes.insert(len(nodes) if at is None else at, node)
        self._owner[node] = head
        return 0

    def insert_sorted(self, root: int, node: int, less: Less) -> int:
        """Puts a node into a tree, behind those that it does not come before. As `insert` where it is in one."""
        if node in self._owner:
            return self.insert(root, node, None)
        nodes = self.nodes_of(root)
        low, high = 0, len(nodes)
        while low < high:
            middle = (low + high) // 2
            if less(node, nodes[middle]):
                high = middle
            else:
                low = middle + 1
        return self.insert(root, node, low)

    def take(self, head: int, node: int) -> int:
        """Takes a node out of a list or tree: the node; 0 where it is not in that one."""
        if self._owner.get(node) != head:
            return 0
        self._nodes[head].remove(node)
        del self._owner[node]
        return node

    def object_of(self, address: int) -> int:
        """The address of the object that an address lies in, 0 where in none."""
        for base, found in self.allocated.items():
            if base <= address < found.region.end:
                return base
        return 0

    def _release_node(self, node: int) -> None:
        self.release(self.object_of(node))
