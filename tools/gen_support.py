"""Writes docs/support.md: every helper, map type, program type and kernel function, and what becomes of it here.

    python -m tools.gen_support            # writes
    python -m tools.gen_support --check    # exit status 1 where the file differs from what would be written

Nothing in it is written by hand: it says what the registries of models have, and fixtures/runs/unasked.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from bpflisp.spec import helpers, kfuncs, maps, programs
from simulator import contexts
from simulator.helpers import load_all
from simulator.helpers.registry import MODELS
from simulator.kfuncs import load_all as load_kfuncs
from simulator.kfuncs.registry import MODELS as KFUNC_MODELS
from simulator.maps.registry import KINDS
from simulator.program import Program

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "support.md"
UNASKED = ROOT / "fixtures" / "runs" / "unasked.json"

_CONTEXTS: Mapping[str, str] = {
    "XdpModel": "a packet, `xdp_md`",
    "SkbModel": "a packet, `__sk_buff`",
    "FlowModel": "a packet, `__sk_buff` and the keys that it fills in",
    "WindowModel": "fields, a socket, and bytes as the packet is given where it has a window on some",
    "SkLookupModel": "fields of `bpf_sk_lookup`",
    "SysctlModel": "fields, and `name`, `current_value`, `new_value`",
    "StructModel": "fields",
    "RegistersModel": "registers by name, `arch` x86_64 or arm64",
    "ArgumentsModel": "`args`, a sequence of numbers",
    "IteratorModel": "`args`, `session_id`, `seq_num`",
    "BytesModel": "`raw`, a block of bytes",
}


def unasked() -> Mapping[str, str]:
    """Helper -> why no fixture has the kernel's answer."""
    reasons: Mapping[str, list[str]] = json.loads(UNASKED.read_text())["unasked"]
    return {name: reason for reason, names in reasons.items() for name in names}


def render() -> str:
    """The page."""
    load_all()
    load_kfuncs()
    return "\n".join([*_head(), *_helpers(), *_maps(), *_programs(), *_kfuncs()]) + "\n"


def _head() -> Iterator[str]:
    all_helpers = list(helpers.all_helpers())
    modelled = sum(helper.name in MODELS for helper in all_helpers)
    kinds = [kind for kind in maps.all_map_types() if kind.number]
    yield from (
        "# What is modelled",
        "",
        "Written by `python -m tools.gen_support`; do not edit it.",
        "",
        "- **modelled**: it does here what it does in the kernel, errors included. Where it is held to the kernel, its",
        "  answers are kept as fixtures that every engine has to give; else it says why the kernel was not asked.",
        "- **mockable**: the program runs; a call is a fault that says how to answer it, as in",
        "  `world.helpers.NAME.returns(0)`.",
        "- **refused**: a program may name it; to use it is a fault that names it.",
        "",
        f"{modelled} of {len(all_helpers)} helpers are modelled, "
        f"{sum(kind.name in KINDS for kind in kinds)} of {len(kinds)} map types, "
        f"and {len(KFUNC_MODELS)} kernel functions.",
        "",
    )


def _helpers() -> Iterator[str]:
    reasons = unasked()
    yield from ("## Helpers", "", "| helper | number | state | held to the kernel |", "|---|---|---|---|")
    for helper in helpers.all_helpers():
        if helper.name in MODELS:
            held = reasons.get(helper.name, "yes")
            yield f"| `{helper.name}` | {helper.id} | modelled | {held if held == 'yes' else 'no: ' + held} |"
        else:
            yield f"| `{helper.name}` | {helper.id} | mockable | |"
    yield ""


def _maps() -> Iterator[str]:
    yield from ("## Maps", "", "| type | number | state |", "|---|---|---|")
    for kind in maps.all_map_types():
        if kind.number:
            yield f"| `{kind.name}` | {kind.number} | {'modelled' if kind.name in KINDS else 'refused'} |"
    yield ""


def _programs() -> Iterator[str]:
    yield from (
        "## Contexts",
        "",
        "| program type | what a run is given | unset fields |",
        "|---|---|---|",
    )
    for kind in programs.all_program_types():
        if kind.name == "unspec":
            continue
        model = type(contexts.model_for(Program(b"", kind.name))).__name__
        unset = "as in the kernel's test run" if kind.test_run else "zero: the kernel has no test run"
        yield f"| `{kind.name}` | {_CONTEXTS[model]} | {unset} |"
    yield from (
        "",
        "An iterator (attach type `trace_iter`) is given " + _CONTEXTS["IteratorModel"] + ".",
        "Tracepoints of system calls are given the fields of their record, others `raw`.",
        "",
    )


def _kfuncs() -> Iterator[str]:
    known = {kfunc.name for kfunc in kfuncs.all_kfuncs()}
    yield from ("## Kernel functions", "", "| function | state |", "|---|---|")
    for name in sorted(known | set(KFUNC_MODELS)):
        yield f"| `{name}` | {'modelled' if name in KFUNC_MODELS else 'mockable'} |"


def main(arguments: list[str]) -> int:
    """Writes, or checks."""
    page = render()
    if "--check" in arguments:
        fresh = PAGE.is_file() and PAGE.read_text() == page
        print("docs/support.md is fresh" if fresh else "docs/support.md is old: python -m tools.gen_support")
        return 0 if fresh else 1
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
