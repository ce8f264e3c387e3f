"""What a level-2 log tells of live stack slots, as kernel 6.18 prints it.

Invariant: nothing is decided here. `liveness` has the results; this repeats the kernel's passes over the instructions,
which the log names one by one, on masks of its own. Source: update_instance of kernel/bpf/liveness.c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bpflisp.lean import dataclass, field
from simulator.verifier.liveness import ALL_SLOTS, Chain, Instance
from simulator.verifier.slots import Slots


@dataclass(slots=True)
class LiveLog:
    """The passes, and what they print by `write`, a line at a time.

    `orders` has each function's slots in postorder, `shown` by slot that changes are printed there although the
    instruction does not touch the stack.
    """

    slots: Slots
    orders: Sequence[Sequence[int]]
    function_of: Sequence[int]
    shown: Sequence[bool]
    write: Callable[[str], None]
    _live: dict[tuple[Chain, int], list[int]] = field(default_factory=dict)
    _written: dict[tuple[Chain, int], list[int]] = field(default_factory=dict)

    def update(self, instance: Instance) -> None:
        """Propagates what was marked in one function as it runs at the end of a chain of calls."""
        frames = [number for number, masks in enumerate(instance.frames) if masks is not None]
        for number in frames:
            key = (instance.chain, number)
            self._live.setdefault(key, [0] * instance.size)
            if instance.shrunk or key not in self._written:
                self._written[key] = [0] * instance.size
        changed, rounds = True, 0
        while changed:
            changed = False
            rounds += 1
            for number in frames:
                changed |= self._pass(instance, number)
        self.write(f"{_chain_text(instance)} live stack update done in {rounds} iterations")

    def _pass(self, instance: Instance, number: int) -> bool:
        """One pass over the function for one frame; True where something changed."""
        start, masks = instance.start, instance.frame(number)
        live, written = self._live[instance.chain, number], self._written[instance.chain, number]
        changed = False
        for at in self.orders[self.function_of[start]]:
            successors = self.slots.after[at]
            if not successors:
                continue
            index = at - start
            after, always = 0, ALL_SLOTS
            for slot in successors:
                after |= live[slot - start]
                always &= written[slot - start]
            always |= masks.must_write[index]
            before = after & ~masks.must_write[index] | masks.may_read[index]
            if before != live[index] or always != written[index]:
                if masks.may_read[index] or masks.must_write[index] or not index or self.shown[at]:
                    place = f"{_chain_text(instance)} frame {number} insn {at}"
                    self._tell(place, "live", live[index], before)
                    self._tell(place, "written", written[index], always)
                live[index], written[index] = before, always
                changed = True
        return changed

    def _tell(self, place: str, name: str, old: int, new: int) -> None:
        """Slots that came, and slots that went."""
        if old != new:
            came = f"+{name} {slots_text(new & ~old)} " if new & ~old else ""
            went = f"-{name} {slots_text(old & ~new)}" if old & ~new else ""
            self.write(f"{place} {came}{went}")


def slots_text(mask: int) -> str:
    """Slots of the stack as the log names them: -8,-24."""
    return ",".join(str(-(spi + 1) * 8) for spi in range(64) if mask >> spi & 1)


def _chain_text(instance: Instance) -> str:
    return f"({','.join(map(str, instance.chain))})"
