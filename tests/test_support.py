"""docs/support.md is what the registries say, and every modelled helper was asked of the kernel or says why not."""

from __future__ import annotations

from bpflisp.spec import helpers as spec
from simulator.helpers import known_names, load_all
from simulator.helpers.registry import MODELS
from tests.agreement import attached
from tests.simulator import behaviour
from tests.simulator.helpers import calls, network
from tools import gen_support


def test_the_page_is_fresh() -> None:
    assert gen_support.PAGE.read_text() == gen_support.render(), "python -m tools.gen_support"


def _asked() -> set[str]:
    """The helpers that a recorded answer is about."""
    called = {name for case in (*calls.cases(), *network.cases()) for name, _ in case.steps}
    called |= {name for case in attached.cases() for name, _ in case.calls}
    found = {helper.name for name in called if (helper := spec.by_name(name))}
    for _, _, program in behaviour.cases():
        for insn in program.code:
            if insn is not None and insn.opcode == 0x85 and insn.src == 0 and (helper := spec.by_id(insn.imm)):
                found.add(helper.name)
    return found


def test_every_model_is_held_to_the_kernel_or_says_why_not() -> None:
    load_all()
    reasons = gen_support.unasked()
    assert set(reasons) <= known_names()
    assert set(MODELS) - _asked() == set(reasons)
