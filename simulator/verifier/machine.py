"""The machine that explores a program: its state under way, what is left to explore, and what it counts.

Invariant: exploration is depth first and in the kernel's order: the way straight on first, the other ways from the last
left to the first. So the count of instructions, the identities and the log come out as the kernel's.
Source: do_check of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NoReturn

from bpflisp.spec import contexts, helpers
from bpflisp.spec.btf import BtfKind
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import CALL_KFUNC, Kind
from bpflisp.spec.text import insn_text
from simulator.verifier import backtrack, prune, prune_early
from simulator.verifier import regs as r
from simulator.verifier.callfacts import changes_packet
from simulator.verifier.globals import Globals
from simulator.verifier.helper_calls import Helpers
from simulator.verifier.hookrules import UNCONVERTED_CONTEXTS
from simulator.verifier.layout import Explored, Layout, Subprogram
from simulator.verifier.livelog import LiveLog
from simulator.verifier.liveness import StackLiveness
from simulator.verifier.log import Log, ended
from simulator.verifier.maps import as_of, map_info
from simulator.verifier.marks import FrameMarks, ReadMarks, noting
from simulator.verifier.objects import Objects
from simulator.verifier.prune import Visit
from simulator.verifier.refusal import Refused, Unsupported
from simulator.verifier.regs import ZERO, Reg
from simulator.verifier.retval import return_range, returns_nothing
from simulator.verifier.scalar import Domain, rules_of
from simulator.verifier.state import MAIN_CALLSITE, Frame, Holds, Ref, State, Step, frame_names
from simulator.verifier.trail import Trail
from simulator.verifier.typed import Typed
from simulator.verifier.ways import ways_of
from simulator.verifier.wordings import reworded

if TYPE_CHECKING:
    from bpflisp.spec.btf import Btf

PROCESSED_LIMIT: Final = 1_000_000
PENDING_LIMIT: Final = 8192
EXIT: Final = -1
ALL_REGISTERS: Final = 0x7FF

STRICT_ALIGNMENT, ANY_ALIGNMENT, TEST_STATE_FREQ, SLEEPABLE = 1, 2, 8, 16


_NEVER_NULL_ONCE: Final = frozenset({r.PTR_SOCKET, r.PTR_TCP_SOCK, r.PTR_MAP_VALUE, r.PTR_MAP_KEY, r.PTR_SOCK_COMMON})
"""The pointers that kernels before 6.2 know not to be null."""

Run = Callable[[], int]


class Pending:
    """A state to be explored later: where it goes on, where it came from, and how long the log was."""

    __slots__ = ("idx", "log", "prev", "state")

    def __init__(self, state: State, idx: int, prev: int, log: int) -> None:
        self.state = state
        self.idx = idx
        self.prev = prev
        self.log = log


class Machine:
    """One verification of one program. Read `run` first; the rest serves the transfer functions."""

    def __init__(self, layout: Layout, kernel_btf: Btf | None, log_level: int, cpus: int) -> None:
        program = layout.program
        self.layout = layout
        self.program = program
        self.kernel = layout.profile.name
        self.kernel_btf = kernel_btf
        self.code = layout.code
        self.program_type = program.type
        self.attach_type = layout.attach_type
        self.gpl_compatible = layout.gpl
        self.cpus = cpus
        self.log = Log(log_level)
        self.domain = Domain(rules_of(layout.profile.version))
        self.strict_alignment = bool(program.flags & STRICT_ALIGNMENT) and not program.flags & ANY_ALIGNMENT
        self.test_state_freq = bool(program.flags & TEST_STATE_FREQ)
        self.uninit_stack_ok = layout.profile.has("stack-uninit-read")
        self.ways = ways_of(layout.profile)
        self.changes_packet = changes_packet(layout.profile)
        self.maps = [as_of(layout.profile, map_info(index, one)) for index, one in enumerate(program.maps)]
        self.elides_null = layout.profile.has("array-constant-key-not-null")
        self.clears_singular_ids = layout.profile.since("7.0")
        self.loop_counts = layout.profile.since("7.0")  # bpf_loop asks for a number of rounds; before, for anything
        # 6.13 to 6.18 follow a number that an atomic fetches to the register that it came in; others, to the memory
        self.fetches_are_stores = layout.profile.since("6.13") and not layout.profile.since("7.0")
        self.keeps_ref_order = layout.profile.since("6.14")
        self.helpers = Helpers(self)
        self.objects = Objects()
        self.typed = Typed(kernel_btf)
        self.globals = Globals()
        self.ends_long_histories = self.ways.long_histories_end
        self.notes_reads = not self.ways.static_registers
        live = [ALL_REGISTERS] * len(self.code) if self.notes_reads else layout.live_registers
        self.live_regs = [mask & ALL_REGISTERS for mask in live]
        self.mark_register = backtrack.mark_register if self.ways.precision_across_frames else prune_early.mark_register
        self.is_visited = prune_early.is_visited if not self.ways.scalar_ids_in_pruning else prune.is_visited
        self.loop_of = layout.loop
        self.has_loops = any(layout.loop)
        self.effects = [backtrack.effect_of(insn) for insn in self.code]
        self.matters = [effect.matters for effect in self.effects]
        self.always = [backtrack.ALWAYS] * len(self.code)
        self.passed: dict[int, int] = {}
        self.line_index = _line_index(program.line_info, len(self.code))
        self._note_call_facts()
        self._note_program_facts()
        self._reset_counts()
        self.readable_slots: dict[bytes, bool] = {}
        self.alike_slots: dict[tuple[bytes, bytes, int], bool] = {}
        self.unlike_register = 0
        self.steps: list[Run | None] = [None] * len(self.code)
        self.trail = Trail() if self.log.level else None
        self.astray: set[int] = set()
        """Instructions that make a pointer to the stack of which the kernel forgets whose stack it is."""

    def _note_call_facts(self) -> None:
        facts = self.layout.calls
        size = len(self.code)
        self.iter_next = [at in facts and facts[at].iter_next for at in range(size)]
        self.may_goto = [insn is not None and insn.row.kind is Kind.MAY_GOTO for insn in self.code]

    def _note_program_facts(self) -> None:
        self.context_table = contexts.access_table(self.program.type, self.program.attach_type, self.kernel)
        self.context_is_plain_memory = self.program.type in UNCONVERTED_CONTEXTS
        self.flow_keys_size = 56
        self.return_range = return_range(self.program, self.layout.profile, self.kernel_btf)
        hooked = self.program_type in ("lsm", "struct_ops")
        known = self.kernel_btf
        self.returns_void = hooked and known is not None and returns_nothing(self.program, known)

    def _reset_counts(self) -> None:
        self.processed = self.jumps = self.total_states = self.peak_states = self.max_states = 0
        self.seen_states = self.held_states = self.backedges = 0
        self.processed_at_checkpoint = self.jumps_at_checkpoint = 0
        self.ids = 0
        self.scratched_regs = self.scratched_slots = 0
        self.explored: dict[int, list[State]] = {}
        self.visits: dict[tuple[int, ...], Visit] = {}
        self.pending: list[Pending] = []
        self.stack_depth = [0] * len(self.layout.subprograms)
        self.broken_fastcalls: set[int] = set()
        self.callbacks: set[int] = set()
        self.async_callbacks: set[int] = set()
        self.unresolved: set[int] = set()
        self.forces = [self.test_state_freq or force for force in self.layout.force_checkpoint]
        self.plain_steps: dict[tuple[int, int, tuple[int, int] | None], Step] = {}
        self.seen = [False] * len(self.code)
        self.pointer_kinds: list[int] = [0] * len(self.code)
        self.awaited: Frame | None = None
        self._loop_inline: dict[int, int | None] = {}
        self.liveness = self._stack_liveness() if self.ways.static_stack else ReadMarks(self)
        self.subprog = 0
        self.closing = ""

    def _stack_liveness(self) -> StackLiveness:
        made = self.layout.stack_liveness()
        if self.log.level >= 2:
            at = self.layout
            made.told = LiveLog(at.slots, at.orders, at.subprogram_of, at.prune_point, self.log_line).update
        return made

    # Exploration.

    def run(self) -> None:
        """Verifies the program, then each of its global functions that is called. Raises Refused."""
        subprograms = self.layout.subprograms
        if not self.ways.globals_when_called:
            for one in subprograms[1:]:
                if one.is_global:
                    self._run_function(one.number)
                    self.log_line(f"Func#{one.number} is safe for any args that match its prototype")
        self._run_function(0)
        if not self.ways.globals_when_called:
            return
        if self.layout.exception_callback >= 0:
            self.globals.called.add(self.layout.exception_callback)
        found = True
        while found:
            found = False
            for one in subprograms[1:]:
                if one.is_global and one.number in self.globals.called - self.globals.verified:
                    found = True
                    self._run_global(one)

    def _run_global(self, subprogram: Subprogram) -> None:
        number = subprogram.number
        self._run_function(number)
        self.globals.verified.add(number)
        self.closing = f"Func#{number} ('{subprogram.name}') is safe for any args that match its prototype"
        if self.log.level:
            self.log_line(self.closing)

    def _run_function(self, number: int) -> None:
        subprogram = self.layout.subprograms[number]
        self.subprog = number
        self.explored.clear()
        self.visits.clear()
        self.log.new_function()
        if self.trail is not None:
            self.trail.back_to(0)
        frame = self.marked(Frame(0, MAIN_CALLSITE, number))
        frame.regs[10] = Reg(r.PTR_STACK, 0, ZERO, data=0)
        state = State()
        state.first = subprogram.start
        state.sleepable = bool(self.program.flags & SLEEPABLE)
        state.frames.append(frame)
        self.state, self.frame = state, frame
        self.idx = subprogram.start
        self.touch_all()
        if number:
            self.log_line(f"Validating {subprogram.name}() func#{number}...")
            self.globals.set_up(self, number, frame)
        else:
            self.globals.check_main(self)
            frame.regs[1] = Reg(r.PTR_CTX, 0, ZERO)
        self.name_frames()
        self._explore(subprogram.start)
        if self.log.level < 2:
            self.log.reset(0)

    def _explore(self, start: int) -> None:
        layout, log, steps, is_visited = self.layout, self.log, self.steps, self.is_visited
        prune_point, jump_point, seen = layout.prune_point, layout.jump_point, self.seen
        self.idx, prev = start, -1
        self.starts_afresh = False
        while True:
            idx = self.idx
            state = self.state
            self.recorded = False
            self.prev_idx = prev
            self.processed += 1
            if self.processed > PROCESSED_LIMIT:
                self.fail(f"BPF program is too large. Processed {self.processed} insn")
            state.last = prev
            state.idx = idx
            if prune_point[idx] and is_visited(self, idx):
                if log.level:
                    log.write(f"\nfrom {prev} to {idx}: safe\n" if self.starts_afresh else f"{idx}: safe\n")
            else:
                if jump_point[idx]:
                    self.recorded = True
                    state.history.append(self._plain_step(None))
                if log.level:
                    self._log_step(prev, idx)
                seen[idx] = True
                prev = idx
                step = steps[idx]
                if step is None:
                    step = steps[idx] = self._step(idx)
                then = step()
                if then >= 0:
                    self.idx = then
                    continue
            self.touch_all()
            prune.finish_path(self, state)
            if not self.pending:
                if log.level >= 2:
                    self.liveness.update(*self.frame_names())
                return
            prev = self._resume()

    def _resume(self) -> int:
        """Takes up the last state that was left for later; returns where it came from."""
        self.liveness.update(*self.frame_names())
        item = self.pending.pop()
        self.state = item.state
        self.frame = item.state.frames[-1]
        self.name_frames()
        if self.trail is not None:
            self.trail.back_to(item.log)
        if self.log.level < 2:
            self.log.reset(item.log)
        self.idx = item.idx
        self.starts_afresh = True
        return item.prev

    def _log_step(self, prev: int, idx: int) -> None:
        if self.trail is not None:
            self.trail.note(self, idx)
        if self.starts_afresh and self.log.level >= 2:
            self.log.write(f"\nfrom {prev} to {idx}:")
            self.log.state(self, self.state, len(self.state.frames) - 1, True)
            self.starts_afresh = False
        self.log.insn(self, idx)
        insn = self.code[idx]
        assert insn is not None
        self.touch(insn)

    def _step(self, idx: int) -> Run:
        from simulator.verifier.transfer import make_step

        insn = self.code[idx]
        if insn is None:
            return self.failing(f"invalid insn idx {idx} insn_cnt {len(self.code)}")
        step = make_step(self, idx, insn)
        if not self.ways.zeros_are_imprecise:
            step = prune_early.tainting(self, idx, insn, step)
        return noting(self, idx, step) if self.notes_reads else step

    def marked(self, frame: Frame) -> Frame:
        """An outermost frame, with marks of what is read where the kernel notes that."""
        if not self.ways.static_stack:
            frame.marks = FrameMarks()
        return frame

    def push_state(self, idx: int, prev: int) -> State:
        """Leaves a copy of the state for later, to go on at `idx`."""
        state = self.state.copy()
        self.push_made(state, idx, prev)
        if state.parent is not None:
            state.parent.branches += 1
        return state

    def push_made(self, state: State, idx: int, prev: int) -> None:
        """Leaves a state for later."""
        self.pending.append(Pending(state, idx, prev, self.log.end))
        if len(self.pending) > PENDING_LIMIT:
            self.fail(f"The sequence of {len(self.pending)} jumps is too complex.")

    # What steps need to say and to know.

    def fail(self, *lines: str) -> NoReturn:
        """Refuses the program in the kernel's words; the last line is the message."""
        worded = [reworded(self.layout.profile, line) for line in lines]
        said = tuple(line for line in worded if line) or lines
        for line in said:
            self.log_line(line)
        raise Refused(said[-1], insn=self.idx, log=said)

    def fail_at_line(self, line: str) -> NoReturn:
        """The same, after the source line."""
        if self.log.on:
            self.log.source_line(self, self.idx, "; ")
        self.fail(line)

    def fail_silently(self) -> NoReturn:
        """Refuses without a word, as the kernel does here."""
        raise Refused("", code="bad-argument", insn=self.idx)

    def failing(self, line: str, after: int = -1) -> Run:
        """A step that refuses; where `after` is a register, that one is read first."""

        def step() -> int:
            if after >= 0:
                self.readable(after)
            self.fail(line)

        return step

    def log_line(self, line: str) -> None:
        """Prints a line to the log."""
        if self.log.on:
            self.log.write(ended(line))

    def unsupported(self, what: str) -> NoReturn:
        """Refuses to judge what is not modelled."""
        raise Unsupported(what, self.idx)

    def readable(self, register: int) -> Reg:
        """The value of a register that is read."""
        if register > 10:
            self.fail(f"R{register} is invalid")
        reg = self.frame.regs[register]
        if reg.type == r.NOT_INIT:
            self.fail(f"R{register} !read_ok")
        return reg

    def writable(self, register: int) -> None:
        """That a register may be written."""
        if register >= 10:
            self.fail("frame pointer is read only" if register == 10 else f"R{register} is invalid")

    def new_id(self) -> int:
        """An identity that nothing had before."""
        self.ids += 1
        return self.ids

    def remember(
        self,
        stack: tuple[int, int] | None = None,
        src_is_stack: bool = False,
        dst_is_stack: bool = False,
        linked: tuple[tuple[int, bool, int], ...] = (),
    ) -> None:
        """Notes in the path's history what the instruction touched, for the walk back."""
        history = self.state.history
        if not self.recorded:
            self.recorded = True
            if linked or src_is_stack or dst_is_stack:
                history.append(Step(self.idx, self.prev_idx, stack, src_is_stack, dst_is_stack, linked))
                return
            history.append(self._plain_step(stack))
            return
        old = history[-1]
        history[-1] = Step(
            old.idx,
            old.prev,
            stack or old.stack,
            src_is_stack or old.src_is_stack,
            dst_is_stack or old.dst_is_stack,
            linked or old.linked,
        )

    def _plain_step(self, stack: tuple[int, int] | None) -> Step:
        key = (self.idx, self.prev_idx, stack)
        step = self.plain_steps.get(key)
        if step is None:
            step = self.plain_steps[key] = Step(self.idx, self.prev_idx, stack)
        return step

    def remember_slot(self, frame: int, spi: int) -> None:
        """`remember` of an instruction that read or wrote one stack slot."""
        if self.recorded:
            self.remember((frame, spi))
            return
        self.recorded = True
        self.state.history.append(self._plain_step((frame, spi)))

    def mark_precise(self, register: int) -> None:
        """The number in a register decides: it has to be known precisely, with all that it came from."""
        if (self.frame.regs[register].type == r.SCALAR and self.state.parent is not None) or self.log.level >= 2:
            self.mark_register(self, self.state, register)

    def subprog_at(self, slot: int) -> Subprogram:
        """The function that starts at a slot."""
        return self.layout.subprograms[self.layout.subprogram_of[slot]]

    def calls_callback_sync(self, idx: int) -> bool:
        """Whether an instruction calls a function of the program before it returns."""
        facts = self.layout.calls.get(idx)
        return facts is not None and facts.sync_callback

    def frame_names(self) -> tuple[list[int], list[int]]:
        """The calls that led to the innermost frame, and the function of each frame."""
        return frame_names(self.state.frames)

    def name_frames(self) -> None:
        """Tells the stack analysis which functions run."""
        self.liveness.enter(*self.frame_names())

    def note_stack_depth(self, frame: Frame, size: int) -> None:
        """A function uses so many bytes of stack."""
        if size > self.stack_depth[frame.subprog]:
            self.stack_depth[frame.subprog] = size

    def check_fastcall_contract(self, subprog: int, idx: int, off: int) -> None:
        """Slots of spills around inlined calls that are used otherwise cost stack after all."""
        if not self.keeps_fastcall_contract(idx, off, subprog):
            self.broken_fastcalls.add(subprog)

    def keeps_fastcall_contract(self, idx: int, off: int, subprog: int = -1) -> bool:
        """Whether an access at an offset leaves the spills around inlined calls alone; by default of its own frame."""
        found = self.layout.fastcalls
        if subprog < 0:
            subprog = self.layout.subprogram_of[idx]
        return found.stack_off[subprog] <= off or found.pattern[idx]

    def note_loop_flags(self, idx: int, subprog: int) -> None:
        """bpf_loop is inlined where its flags are always 0 and its callback always the same."""
        known = self._loop_inline.get(idx, subprog)
        if known is None:
            return
        fits = r.is_null(self.frame.regs[4])
        if fits:
            self.mark_precise(4)
        self._loop_inline[idx] = subprog if fits and known == subprog else None

    def note_states(self) -> None:
        """Keeps the greatest number of states held at once."""
        held = self.held_states + self.backedges
        if held > self.peak_states:
            self.peak_states = held

    def note_pointer_kind(self, kind: int, trust_may_differ: bool) -> None:
        """An instruction is rewritten for one kind of pointer: it may not see another."""
        old = self.pointer_kinds[self.idx]
        if old == 0:
            self.pointer_kinds[self.idx] = kind
        elif old != kind and (_is_rewritten(kind) or _is_rewritten(old)):
            if trust_may_differ and {kind & r.BASE_MASK, old & r.BASE_MASK} <= {r.PTR_MEM, r.PTR_BTF_ID}:
                return
            self.fail("same insn cannot be used with different pointers")

    def not_null(self, reg: Reg) -> bool:
        """Whether a pointer is known not to be null."""
        if reg.type & r.MAYBE_NULL:
            return False
        base = reg.type & r.BASE_MASK
        if not self.ways.maps_are_not_null:
            return base in _NEVER_NULL_ONCE
        if base == r.PTR_BTF_ID:
            flags = reg.type & ~r.BASE_MASK
            return bool(reg.ref) or (flags & r.TRUST != 0 and flags & ~r.TRUST == 0)
        if base == r.PTR_MEM:
            return not reg.type & r.UNTRUSTED
        return base in (
            r.PTR_SOCKET, r.PTR_TCP_SOCK, r.PTR_MAP_VALUE, r.PTR_MAP_KEY, r.PTR_SOCK_COMMON, r.PTR_MAP,
        )  # fmt: skip

    def acquire(self, idx: int) -> int:
        """Takes a reference that has to be given back; its identity."""
        identity = self.new_id()
        old = self.state.holds
        refs = (*old.refs, Ref("ptr", identity, idx))
        self.state.holds = Holds(refs, old.locks, old.preempt, old.rcu, old.irq_id, old.lock_id, old.lock_ptr)
        return identity

    def in_rcu_section(self) -> bool:
        """Whether RCU keeps what it protects alive here: always, where the program may not sleep."""
        return bool(self.state.holds.rcu or self.state.holds.locks) or not self.state.sleepable

    def forget_packet(self) -> None:
        """The packet may have moved: no pointer into it is good any more."""

        def change(reg: Reg) -> Reg:
            if reg.type in (r.PTR_PACKET, r.PTR_PACKET_META, r.PTR_PACKET_END) or (
                reg.type & (r.DYNPTR_SKB | r.DYNPTR_XDP | r.DYNPTR_SKB_META) and reg.type & r.BASE_MASK == r.PTR_MEM
            ):
                from simulator.verifier.stack import UNKNOWN_REG

                return UNKNOWN_REG
            return reg

        self.state.replace_pointers(change)

    def insn_text(self, idx: int, insn: Insn) -> str:
        """An instruction as the log prints it."""
        name = self.layout.kfuncs.get(idx, "")
        if name and self.kernel_btf is not None:
            number = self.kernel_btf.find(name, BtfKind.FUNC)
            insn = replace(insn, imm=number) if number is not None else insn
        if _calls_nothing(insn):
            return f"({insn.opcode:02x}) call #0"
        # the kernel prints the address of a map or variable, which no two loads have alike: we print none
        address = 0 if insn.row.kind is Kind.LOAD_IMM64 and insn.src else None
        return insn_text(insn, _helper_names(self.kernel), name, address)

    def touch_all(self) -> None:
        """The whole state is printed next."""
        self.scratched_regs, self.scratched_slots = 0x7FF, (1 << 64) - 1

    def touch(self, insn: Insn) -> None:
        """The registers that an instruction reads and writes are printed after it."""
        row = insn.row
        mask = 1 << insn.dst if "dst" in row.uses else 0
        if "src" in row.uses and row.kind is not Kind.CALL and row.kind is not Kind.LOAD_IMM64:
            mask |= 1 << insn.src
        if row.kind is Kind.CALL:
            mask |= 0 if insn.src == CALL_KFUNC and self.typed.calls_nothing(self, insn) else 0x3F
        elif row.kind is Kind.LOAD_PACKET:
            mask |= 0x7F
        elif row.kind is Kind.ATOMIC and row.op.value == "cmpxchg":
            mask |= 1
        self.scratched_regs |= mask

    def let_go(self) -> None:
        """Drops the states, and what refers back to the machine: its memory then comes back with the last reference,
        without a search for garbage. The log and what was counted stay.
        """
        self.steps.clear()
        self.explored.clear()
        self.visits.clear()
        self.pending.clear()
        del self.liveness

    def explored_facts(self) -> Explored:
        """What the closing checks ask for."""
        return Explored(
            stack_depth=self.stack_depth,
            seen=self.seen,
            callbacks=frozenset(self.callbacks),
            async_callbacks=frozenset(self.async_callbacks),
            broken_fastcalls=frozenset(self.broken_fastcalls),
            unresolved=frozenset(self.unresolved),
            inlined_loops=frozenset(at for at, callback in self._loop_inline.items() if callback is not None),
        )


def _is_rewritten(kind: int) -> bool:
    return kind & r.BASE_MASK in (
        r.PTR_CTX, r.PTR_SOCKET, r.PTR_SOCK_COMMON, r.PTR_TCP_SOCK, r.PTR_XDP_SOCK, r.PTR_BTF_ID, r.PTR_ARENA,
    )  # fmt: skip


def _calls_nothing(insn: Insn) -> bool:
    """A call of a kernel function that the kernel does not have: loaders leave its id 0."""
    return insn.row.kind is Kind.CALL and insn.src == CALL_KFUNC and not insn.imm


def _line_index(lines: Sequence[object], size: int) -> list[int]:
    """For each slot the entry of line information that covers it, -1 for none."""
    index = [-1] * size
    starts = {getattr(line, "insn"): number for number, line in enumerate(lines)}  # noqa: B009
    current = -1
    for at in range(size):
        current = starts.get(at, current)
        index[at] = current
    return index


_NAMES: dict[str, dict[int, str]] = {}


def _helper_names(kernel: str) -> dict[int, str]:
    found = _NAMES.get(kernel)
    if found is None:
        limit = helpers.first_unknown(kernel)
        found = _NAMES[kernel] = {one.id: one.name for one in helpers.all_helpers() if one.id < limit}
    return found
