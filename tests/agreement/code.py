"""Code whose jumps name labels, so that instructions can be put in, taken out and changed.

Invariant: a label is the index of the node that it stands before; the node count stands for the end. Distances are
computed only when the code is encoded.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import accumulate

from bpflisp.spec.insn import Insn, decode
from bpflisp.spec.isa import CALL_SUBPROGRAM, LD_IMM64_OPCODE, PSEUDO_FUNC, Kind


@dataclass(frozen=True, slots=True)
class Node:
    """An instruction, and the label that it jumps to, calls, or takes the address of; None where it names none.

    `kfunc` is the kernel function that it calls, "" for none.
    """

    insn: Insn
    to: int | None = None
    kfunc: str = ""


def _names_code(insn: Insn) -> bool:
    kind = insn.row.kind
    if kind is Kind.CALL:
        return insn.src == CALL_SUBPROGRAM
    return kind in (Kind.BRANCH, Kind.JUMP, Kind.MAY_GOTO) or (
        insn.opcode == LD_IMM64_OPCODE and insn.src == PSEUDO_FUNC
    )


def _by_immediate(insn: Insn) -> bool:
    """Whether the distance is the immediate, not the offset."""
    return insn.row.kind in (Kind.CALL, Kind.LOAD_IMM64) or (insn.row.kind is Kind.JUMP and insn.row.width == 32)


def _in_16_bits(distance: int) -> int:
    return max(-0x8000, min(0x7FFF, distance))


@dataclass(frozen=True, slots=True)
class Code:
    """Nodes, and where each label is."""

    nodes: tuple[Node, ...]
    labels: tuple[int, ...]

    @staticmethod
    def of(insns: bytes) -> Code:
        """The code of encoded instructions. A jump out of them, or into a 64-bit load, goes to the end."""
        slots = [(slot, insn) for slot, insn in enumerate(decode(insns)) if insn is not None]
        index = {slot: at for at, (slot, _) in enumerate(slots)}
        nodes, labels = [], []
        for slot, insn in slots:
            if _names_code(insn):
                distance = insn.imm if _by_immediate(insn) else insn.off
                labels.append(index.get(slot + distance + 1, len(slots)))
                nodes.append(Node(insn, len(labels) - 1))
            else:
                nodes.append(Node(insn))
        return Code(tuple(nodes), tuple(labels))

    def encode(self) -> bytes:
        """The instructions, with every distance put in."""
        slots = [0, *accumulate(node.insn.slots for node in self.nodes)]
        out = []
        for node, slot in zip(self.nodes, slots, strict=False):
            insn = node.insn
            if node.to is not None:
                distance = slots[self.labels[node.to]] - slot - 1
                insn = replace(insn, imm=distance) if _by_immediate(insn) else replace(insn, off=_in_16_bits(distance))
            out.append(insn.encode())
        return b"".join(out)

    def without(self, gone: Collection[int]) -> Code:
        """The code without the nodes at these indices; a label before one of them stands before what follows."""
        kept = [at not in gone for at in range(len(self.nodes))]
        before = [0, *accumulate(kept)]
        nodes = tuple(node for node, keep in zip(self.nodes, kept, strict=True) if keep)
        return Code(nodes, tuple(before[label] for label in self.labels))

    def with_node(self, at: int, node: Node) -> Code:
        """The code with another node at an index."""
        return Code((*self.nodes[:at], node, *self.nodes[at + 1 :]), self.labels)

    def with_insn(self, at: int, insn: Insn) -> Code:
        """The code with another instruction at an index; it keeps the label only where it can name code."""
        to = self.nodes[at].to
        return self.with_node(at, Node(insn, to if _names_code(insn) else None))

    def inserted(self, at: int, node: Node) -> Code:
        """The code with a node more before an index; labels there stand before it."""
        nodes = (*self.nodes[:at], node, *self.nodes[at:])
        return Code(nodes, tuple(label + (label > at) for label in self.labels))
