"""What runs as /init on a machine that `tools/boot_kernel.py` boots: asks its kernel about each record, powers off."""

from __future__ import annotations

import ctypes
import gzip
import json
import os
import resource
import sys
import termios
from pathlib import Path
from typing import Any

POWER_OFF = 0x4321FEDC
MOUNTS = (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"))


def main() -> None:
    """Mounts what is needed, asks, and ends the machine whatever happens."""
    libc = ctypes.CDLL(None, use_errno=True)
    for kind, where in MOUNTS:
        libc.mount(kind.encode(), where.encode(), kind.encode(), 0, None)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    sys.path.insert(0, "/project")
    port = os.open("/dev/ttyS1", os.O_WRONLY | os.O_NOCTTY)
    _as_it_is(port)
    try:
        for row in _answers():
            _send(port, row)
        _send(port, {"id": "done"})
    finally:
        termios.tcdrain(port)
        libc.reboot(POWER_OFF)


def _as_it_is(port: int) -> None:
    """No carriage returns are added to what is written."""
    settings = termios.tcgetattr(port)
    settings[1] &= ~termios.OPOST
    termios.tcsetattr(port, termios.TCSANOW, settings)


def _send(port: int, row: dict[str, Any]) -> None:
    data = json.dumps(row).encode() + b"\n"
    while data:
        data = data[os.write(port, data) :]


def _lines(name: str) -> list[dict[str, Any]]:
    for path in (Path(f"/{name}.gz"), Path(f"/{name}")):
        if path.exists():
            text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            return [json.loads(line) for line in text.splitlines() if line.strip()]
    return []


def _answers() -> Any:
    from simulator.program import Program
    from tests import oracle
    from tests.simulator.verifier import readable

    level = int(Path("/level").read_text())
    blobs = {row["name"]: bytes.fromhex(row["hex"]) for row in _lines("btf.jsonl")}
    for record in _lines("records"):
        row: dict[str, Any] = {"id": record.get("id", "")}
        try:
            text = record.get("text")
            program = readable.program(text, row["id"]) if text else Program.from_record(record, blobs)
            answer = oracle.ask(program, level or 1)
        except Exception as error:
            yield {**row, "cannot_ask": f"{type(error).__name__}: {error}"}
            continue
        row["verdict"] = "accept" if answer.accepted else "reject"
        row.update(errno=answer.errno_name, message=answer.message, insns_processed=answer.insns_processed)
        yield {**row, "log": answer.log} if level else row


main()
