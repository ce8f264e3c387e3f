"""The `defprog` chapter of the book: each line of its tables, each of its programs."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bpflisp import CompileError, compile_text
from bpflisp.diagnostics import Source
from bpflisp.driver import compile_source
from simulator.loader import load
from simulator.program import Object
from simulator.run import run
from simulator.world import World
from tests.bpflisp.front.running import PACKET, engines

DROP_ALL = "(defprog drop-all (:type :xdp)\n  XDP_DROP)"
TRACE_EXEC = '(defprog trace-exec (:type :kprobe :section "kprobe/sys_execve")\n  0)'
DISPATCH = """
(defmap dispatch :type :prog-array
  :key-size 4
  :value-size 4
  :max-entries 4)

(defprog handler-a (:type :xdp :section "xdp/handler_a")
  ;; Handle protocol A
  XDP_PASS)

(defprog handler-b (:type :xdp :section "xdp/handler_b")
  ;; Handle protocol B
  XDP_DROP)

(defprog main (:type :xdp)
  ;; Dispatch to sub-programs via tail call
  (tail-call dispatch 0)
  XDP_PASS)"""
TRACE_SCHED = """
(defstruct event
  (pid u32)
  (ts u64))

(defmap events :type :ringbuf
  :max-entries (* 256 1024))

(defprog trace-sched (:type :tracepoint
                      :section "tracepoint/sched/sched_process_exec")
  (with-ringbuf (e events (sizeof event))
    (setf (event-pid e) (get-current-pid-tgid)
          (event-ts e) (ktime-get-ns)))
  0)"""


def compiled(text: str) -> Object:
    return load(compile_text(text))


# The table of program types

TYPES = [
    (":xdp", "xdp", "xdp_md", "(ctx data)"),
    (":socket-filter", "socket_filter", "__sk_buff", "(ctx len)"),
    (":tracepoint", "tracepoint", "", "(ctx u64 8)"),
    (":kprobe", "kprobe", "pt_regs", "(ctx u64 112)"),
    (":cgroup-skb", "cgroup_skb", "__sk_buff", "(ctx len)"),
    (":cgroup-sock", "cgroup_sock", "bpf_sock", "(ctx family)"),
    (":cgroup-sock-addr", "cgroup_sock_addr", "bpf_sock_addr", "(ctx user-family)"),
]


@pytest.mark.parametrize(("keyword", "prog_type", "struct", "read"), TYPES)
def test_program_type(keyword: str, prog_type: str, struct: str, read: str) -> None:
    program = compiled(f"(defprog p (:type {keyword}) (if {read} 1 1))")["p"]
    assert program.type == prog_type
    assert program.section == keyword[1:]


@pytest.mark.parametrize(("keyword", "prog_type", "struct", "read"), TYPES)
def test_context_struct(keyword: str, prog_type: str, struct: str, read: str) -> None:
    """A field that is not there is an error, which names the structure where there is one."""
    with pytest.raises(CompileError, match=f"`{struct}`" if struct else "no named fields"):
        compile_text(f"(defprog p (:type {keyword}) (ctx no-such-field))")


def test_type_defaults_to_xdp() -> None:
    program = compiled("(defprog p () XDP_PASS)")["p"]
    assert (program.type, program.section) == ("xdp", "xdp")


# The table of parameters


@pytest.mark.parametrize("keyword", [row[0] for row in TYPES])
def test_section_defaults_to_the_lower_case_type(keyword: str) -> None:
    found = compile_source(Source("t.lisp", f"(defprog p (:type {keyword.upper()} :section nil) 0)"))
    assert found.programs["p"].section == keyword[1:]
    known = keyword in (":xdp", ":tracepoint", ":kprobe")
    warnings = [w.code for w in found.warnings]
    assert warnings == ([] if known else ["unknown-section"])
    if not known:
        assert "it knows `:section" in found.warnings[0].help[0]


def test_license() -> None:
    assert compiled(DROP_ALL)["drop_all"].license == "GPL"
    assert compiled('(defprog p (:license "Dual MIT/GPL") 0)')["p"].license == "Dual MIT/GPL"


def test_gpl_only_helper_without_gpl_compiles_and_is_refused_at_load_time() -> None:
    text = '(defprog p (:type :kprobe :license "MIT") (probe-read-kernel (struct-alloc 8) 8 (ctx-ptr)) 0)'
    found = compile_source(Source("t.lisp", text))
    assert "gpl-only" in [w.code for w in found.warnings]


# Return value


def test_the_last_expression_is_returned() -> None:
    program = compiled("(defprog p (:type :xdp) 1 (+ 1 1) (if (ctx ingress-ifindex) XDP_TX XDP_DROP))")["p"]
    for engine in engines():
        assert run(program, PACKET, World(), engine).retval == 3


def test_an_empty_body_returns_0() -> None:
    program = compiled("(defprog p (:type :xdp))")["p"]
    for engine in engines():
        assert run(program, PACKET, World(), engine).retval == 0


# Programs of the chapter


def test_drop_all() -> None:
    program = compiled(DROP_ALL)["drop_all"]
    for engine in engines():
        assert run(program, PACKET, World(), engine).retval == 1


def test_trace_exec() -> None:
    program = compiled(TRACE_EXEC)["trace_exec"]
    assert (program.type, program.section) == ("kprobe", "kprobe/sys_execve")


def test_dispatch() -> None:
    found = compiled(DISPATCH)
    assert {name: program.section for name, program in found.programs.items()} == {
        "handler_a": "xdp/handler_a",
        "handler_b": "xdp/handler_b",
        "main": "xdp",
    }
    assert found["xdp/handler_b"].name == "handler_b"
    assert run(found["main"], PACKET, World(), "python").retval == 2
    world = World()
    world.add_programs(found.programs)
    world.bind(found["main"])
    world.maps["dispatch"][0] = found["handler_b"]
    assert run(found["main"], PACKET, world, "python").retval == 1


def test_dispatch_warns_of_sections_that_libbpf_does_not_know() -> None:
    warnings = compile_source(Source("t.lisp", DISPATCH)).warnings
    assert [w.code for w in warnings] == ["unknown-section"] * 2
    assert all('`:section "xdp"`' in w.help[0] for w in warnings)


def test_trace_sched() -> None:
    found = compiled(TRACE_SCHED)
    program = found["trace_sched"]
    assert (program.type, program.section) == ("tracepoint", "tracepoint/sched/sched_process_exec")
    assert found.maps["events"].max_entries == 256 * 1024
    world = World()
    assert run(program, bytes(64), world, "python").retval == 0


# Several programs


def test_several_programs_of_one_section() -> None:
    """Both symbols lie in one section, at their own offsets, as clang writes them."""
    found = compiled("(defprog a () XDP_PASS)\n(defprog b () (if (ctx ingress-ifindex) XDP_DROP XDP_TX))")
    assert [found[name].section for name in ("a", "b")] == ["xdp", "xdp"]
    for engine in engines():
        assert [run(found[name], PACKET, World(), engine).retval for name in ("a", "b")] == [2, 1]


OBJECTS = {
    "drop_all": (DROP_ALL, ["drop_all"], ""),
    "trace_exec": (TRACE_EXEC, ["trace_exec"], ""),
    "dispatch": (DISPATCH, ["handler_a", "handler_b", "main"], "xdp"),
    "trace_sched": (TRACE_SCHED, ["trace_sched"], ""),
    "one_section": ("(defprog a () XDP_PASS)\n(defprog b () XDP_DROP)", ["a", "b"], ""),
    "strings": ('(defprog p (:type :kprobe) (trace-printk "got %d" (get-current-pid-tgid)) 0)', ["p"], ""),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_libbpf_loads_it(name: str, tmp_path: Path) -> None:
    """`bpftool prog loadall`; the chapter's `xdp/handler_a` with the type given, as libbpf does not know it."""
    if "kernel" not in engines():
        pytest.skip("bpf(2) is refused here")
    bpftool, mount = shutil.which("bpftool"), Path("/sys/fs/bpf")
    if bpftool is None or not mount.is_mount():
        pytest.skip("no bpftool, or no bpf file system at /sys/fs/bpf")
    text, programs, kind = OBJECTS[name]
    path, pins = tmp_path / "o.bpf.o", mount / f"bpflisp-test-{tmp_path.name}-{name}"
    path.write_bytes(compile_text(text))
    command = [bpftool, "prog", "loadall", str(path), str(pins), *(["type", kind] if kind else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert sorted(each.name for each in pins.iterdir()) == programs
    finally:
        shutil.rmtree(pins, ignore_errors=True)
