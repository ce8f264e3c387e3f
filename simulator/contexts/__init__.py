"""Contexts: what a program of each type is given in r1, made of the input, and read back after the run.

One model a structure: `enter` before the run, `leave` after it. What the input does not name has the value of the
kernel's own test run (6.18), as `fixtures/runs/contexts.jsonl` keeps it.
"""

from __future__ import annotations

from functools import cache

from bpflisp.spec.contexts import context_struct, struct
from simulator.contexts.base import Model
from simulator.program import Program

__all__ = ["Model", "model_for"]


def model_for(program: Program) -> Model:
    """The model of a program's context."""
    return _model(program.type, program.attach_type, program.section)


@cache
def _model(prog_type: str, attach_type: str, section: str) -> Model:
    if prog_type == "xdp":
        from simulator.contexts.xdp import XdpModel

        return XdpModel()
    if prog_type == "flow_dissector":
        from simulator.contexts.flow import FlowModel

        return FlowModel()
    from simulator.contexts.other import other_model
    from simulator.contexts.skb import SKB_TYPES, SkbModel
    from simulator.contexts.windows import WINDOWS, WITH_SOCKET, SkLookupModel, SysctlModel, WindowModel

    if prog_type in SKB_TYPES:
        return SkbModel(prog_type, attach_type)
    if prog_type in WINDOWS or prog_type in WITH_SOCKET:
        layout = context_struct(prog_type)
        assert layout is not None
        return WindowModel(layout, prog_type, attach_type)
    if prog_type == "sk_lookup":
        return SkLookupModel(struct("bpf_sk_lookup"), prog_type, attach_type)
    if prog_type == "cgroup_sysctl":
        return SysctlModel(struct("bpf_sysctl"), prog_type, attach_type)
    return other_model(prog_type, attach_type, section)
