"""Every helper of the tables is a form: under its name, in a program that may call it, it is a call of its number."""

from collections.abc import Iterator

import pytest

from bpflisp import compile_text
from bpflisp.diagnostics import Source
from bpflisp.driver import compile_source
from bpflisp.front.check_helpers import KERNEL
from bpflisp.spec import helpers, maps, programs
from bpflisp.spec.helpers import ArgType, Helper
from bpflisp.spec.insn import decode
from bpflisp.spec.isa import Kind
from simulator.loader import load
from simulator.program import Program
from simulator.run import run
from simulator.world import World
from tests import oracle
from tests.bpflisp.front.running import PACKET, engines

ARGUMENTS = {
    ArgType.CONST_MAP_PTR: "the-map", ArgType.PTR_TO_CTX: "(ctx-ptr)", ArgType.PTR_TO_MEM: "buffer",
    ArgType.PTR_TO_MAP_KEY: "buffer", ArgType.PTR_TO_MAP_VALUE: "buffer", ArgType.PTR_TO_STACK: "buffer",
    ArgType.CONST_SIZE: "8", ArgType.CONST_SIZE_OR_ZERO: "8", ArgType.CONST_ALLOC_SIZE_OR_ZERO: "8",
    ArgType.PTR_TO_RINGBUF_MEM: "buffer", ArgType.PTR_TO_CONST_STR: '"%d"', ArgType.PTR_TO_DYNPTR: "dynptr",
    ArgType.PTR_TO_BTF_ID: "(get-current-task-btf)", ArgType.PTR_TO_FUNC: "callback",
}  # fmt: skip

SOURCE = """
(defmap the-map :type :{kind} {sizes} {entries})
(defsubprog callback ((a ptr) (b ptr) (c ptr) (d ptr)) 0)
(defprog p (:type :{type} :section "{section}")
  (let ((buffer (struct-alloc 64)) (dynptr (struct-alloc 16)))
    {call}
    buffer dynptr 0))
"""

KEYLESS = ("queue", "stack", "bloom_filter")
SIZELESS = ("ringbuf", "user_ringbuf")
UNBUILT = ("array_of_maps", "hash_of_maps", "struct_ops", "arena")


def may_call(helper: Helper) -> Iterator[tuple[str, str]]:
    """Program types with an attach type that may call it, plain ones first."""
    for kind in programs.all_program_types():
        for attach in ("", *kind.attach_types):
            meant = programs.section(programs.libbpf_name(kind.name, attach) or kind.name)
            named = meant is None or meant.attach_type == attach
            if named and helper.id in helpers.allowed(KERNEL, kind.name, attach):
                yield kind.name, attach


def map_for(helper: Helper) -> str:
    wanted = helpers_only = maps.helper_map_types().get(helper.name)
    own = [kind.name for kind in maps.all_map_types() if kind.helpers and helper.name in kind.helpers]
    names = [name for name in own if wanted is None or name in wanted] or sorted(helpers_only or ["hash"])
    return next(name for name in names if name not in UNBUILT)


def call(helper: Helper, prog_type: str) -> str:
    if helper.name == "bpf_tail_call":
        return "(tail-call the-map 0)"
    proto = helpers.proto(helper.id, prog_type)
    kinds = [arg.type for arg in proto.args]
    args = [ARGUMENTS.get(kinds[at], "0") if at < len(kinds) else "0" for at in range(len(helper.c_args))]
    name = "bpf-loop" if helper.name == "bpf_loop" else helper.short_name.replace("_", "-")
    return f"({name} {' '.join(args)})" if "release" not in name else f"({name} buffer)"


def source(helper: Helper) -> str:
    prog_type, attach = next(may_call(helper))
    kind = map_for(helper)
    sizes = "" if kind in SIZELESS else ":value-size 8" if kind in KEYLESS else ":key-size 4 :value-size 8"
    if kind == "stack_trace":
        sizes = ":key-size 4 :value-size 1016"
    if "cgroup_storage" in kind:
        sizes = ":key-size 8 :value-size 8"
    entries = "" if kind in maps.LOCAL_STORAGE or "cgroup_storage" in kind else ":max-entries 4096"
    section = programs.libbpf_name(prog_type, attach) or prog_type
    section += {"kprobe": "/f", "tracepoint": "/a/b"}.get(prog_type, "") if "/" not in section else ""
    name, shown = kind.replace("_", "-"), call(helper, prog_type)
    kwargs = {"kind": name, "sizes": sizes, "entries": entries, "type": prog_type.replace("_", "-")}
    return SOURCE.format(**kwargs, section=section, call=shown)


def program(helper: Helper) -> Program:
    return load(compile_text(source(helper), opt=0))["p"]


EVERY = [helper for helper in helpers.all_helpers() if helper.id and next(may_call(helper), None)]


@pytest.mark.parametrize("helper", EVERY, ids=lambda helper: helper.short_name)
def test_a_helper_by_name_is_a_call_of_its_number(helper: Helper) -> None:
    calls = [insn.imm for insn in decode(program(helper).insns) if insn and insn.row.kind is Kind.CALL]
    assert helper.id in calls


def test_nearly_every_helper_can_be_called_by_some_program() -> None:
    assert len(EVERY) >= 205


PLAIN = [h for h in EVERY if not h.c_args and any(kind == "xdp" for kind, _ in may_call(h))]


@pytest.mark.parametrize("helper", PLAIN, ids=lambda helper: helper.short_name)
def test_the_kernel_takes_the_call(helper: Helper) -> None:
    works, why = oracle.available()
    if not works:
        pytest.skip(why)
    name = helper.short_name.replace("_", "-")
    answer = oracle.ask(load(compile_text(f"(defprog p (:type :xdp) ({name}) 1)"))["p"])
    assert answer.accepted, answer.log


def test_a_helper_that_kernels_may_be_built_without() -> None:
    """The kernel that was asked has no bpf_override_return; the book calls it in kprobes."""
    program = load(compile_text('(defprog p (:type :kprobe :section "kprobe/f") (override-return (ctx-ptr) 0) 0)'))["p"]
    assert [insn.imm for insn in decode(program.insns) if insn and insn.row.kind is Kind.CALL] == [58]


CONVERSIONS = [
    "%d", "%i", "%u", "%x", "%X", "%o", "%c", "%s", "%p", "%px", "%ps", "%pS", "%pB", "%pK", "%pi4", "%pI4", "%pi6",
    "%pks", "%pus", "%ld", "%lld", "%lx", "%hd", "%5d", "%05d", "%-5d", "%+d", "% d", "%#x", "%.3d", "%5s", "%5c",
    "%zd", "%f", "%e", "%n", "100%", "%q", "%lu %%", "%llX", "%3p", "%pM", "%pa", "%lc", "%ls", "%0x", "%10", "%5%",
    "%pz %d",
]  # fmt: skip


@pytest.mark.parametrize("format", CONVERSIONS)
def test_what_is_warned_of_in_a_format_is_what_fails_when_it_runs(format: str) -> None:
    source = f'(defprog p (:type :xdp) (trace-printk "{format}" (ctx rx-queue-index)))'
    compiled = compile_source(Source("format.lisp", source))
    warned = any("no conversion" in each.problem for each in compiled.warnings)
    program = load(compiled.elf)["p"]
    for engine in engines():
        assert (run(program, PACKET, World(), engine).retval >> 31 == 1) is warned, engine
