"""bpftool as tests use it: an object loaded and pinned for a while, its BTF listed."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import oracle

FOUND = shutil.which("bpftool") or shutil.which("bpftool", path="/usr/sbin:/sbin")
BPFFS = Path("/sys/fs/bpf")


def require(*, kernel: bool) -> str:
    """The tool's path; skips the test where it is not installed, or where it needs bpf(2) and that is refused."""
    works, why = oracle.available()
    if FOUND is None:
        pytest.skip("bpftool is not installed")
    if kernel and not works:
        pytest.skip(why)
    return FOUND


def ran(*arguments: str | Path, kernel: bool = True) -> subprocess.CompletedProcess[str]:
    """What the tool says."""
    command = [require(kernel=kernel), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def answer(*arguments: str | Path, kernel: bool = True) -> Any:
    """What the tool says, as JSON."""
    done = ran("--json", *arguments, kernel=kernel)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@contextmanager
def loaded(path: Path, *options: str) -> Iterator[Path]:
    """The folder where the programs of an object are pinned, and its maps in `maps`; all is gone afterwards."""
    pins = BPFFS / f"bpflisp_{uuid.uuid4().hex}"
    pins.parent.mkdir(exist_ok=True)
    try:
        done = ran("prog", "loadall", path, pins, *options, "pinmaps", pins / "maps")
        if "bpffs" in done.stderr or "can't mount" in done.stderr:
            pytest.skip(done.stderr.strip())
        assert done.returncode == 0, done.stderr
        yield pins
    finally:
        if pins.exists():
            shutil.rmtree(pins)
