"""Boots a kernel image under qemu and asks it about programs: `python -m tools.boot_kernel IMAGE RECORDS --out FILE`.

IMAGE is a Debian package of a kernel (`apt-get download linux-image-6.1.0-...-cloud-amd64-unsigned`) or a vmlinuz.
RECORDS has a program a line, in the form of `Program.from_record`, plain or .gz, or with its `text` as
`tests/simulator/verifier/readable.py` reads it; `btf.jsonl.gz` beside it has the BTF that they name. Each answer is a
line of FILE: id, verdict, errno, message, insns_processed, and with `--log` the log.

The machine that is booted has no disk: its initramfs holds this very interpreter, this project, and the records, and
`/init` is `tools/boot_init.py`. Nothing of the host is shared, and the emulation needs no privilege. Software emulation
takes some 15 s to boot, and then is ten times slower than the processor.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("bpflisp", "simulator")
MODULES: Final = (
    "tests/__init__.py", "tests/oracle.py", "tests/simulator/__init__.py", "tests/simulator/verifier/__init__.py",
    "tests/simulator/verifier/readable.py",
)  # fmt: skip
LEFT_OUT: Final = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "ensurepip", "site-packages", "tkinter", "turtledemo"}
)
DIRECTORY, EXECUTABLE, CHARACTER_DEVICE = 0o040755, 0o100755, 0o020600
MEGABYTES: Final = 1536


def main(arguments: Sequence[str] | None = None) -> int:
    """Boots, asks, writes the answers. Exit code 1 where the machine ended without an answer to every record."""
    options = _options().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="boot-kernel-") as folder:
        work = Path(folder)
        kernel = _kernel_of(options.image, work)
        initramfs = work / "initramfs.gz"
        with gzip.open(initramfs, "wb", compresslevel=1) as out:
            _write_initramfs(out, options)
        answers = work / "answers"
        code = _boot(kernel, initramfs, answers, work / "console", options.seconds)
        shutil.copyfile(answers, options.out)
        if b'"done"' not in answers.read_bytes()[-40:]:
            print((work / "console").read_text(errors="replace")[-3000:], file=sys.stderr)
            print(f"boot_kernel: the machine ended early (qemu: {code})", file=sys.stderr)
            return 1
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.boot_kernel", description=__doc__)
    parser.add_argument("image", type=Path, help="a .deb with a kernel, or a vmlinuz")
    parser.add_argument("records", type=Path, help="programs, one a line, .gz or plain")
    parser.add_argument("--out", type=Path, required=True, help="where the answers go")
    parser.add_argument("--btf", type=Path, help="the BTF that the records name (default: btf.jsonl.gz beside them)")
    parser.add_argument("--log", type=int, default=0, metavar="LEVEL", help="keep the log of that level (1 or 2)")
    parser.add_argument("--seconds", type=int, default=1800, help="how long the machine may run")
    return parser


def _kernel_of(image: Path, work: Path) -> Path:
    """The kernel itself, taken out of a package where it is in one."""
    if image.suffix != ".deb":
        return image
    subprocess.run(["dpkg-deb", "-x", str(image), str(work / "package")], check=True)
    found = sorted((work / "package" / "boot").glob("vmlinuz-*"))
    if not found:
        raise SystemExit(f"boot_kernel: {image} has no boot/vmlinuz-*")
    return found[0]


# ---- the initramfs: a cpio archive of the form that the kernel unpacks ("newc") --------------------------------------


def _write_initramfs(out: IO[bytes], options: argparse.Namespace) -> None:
    made: set[str] = set()
    for folder in ("dev", "proc", "sys", "tmp"):
        _folder(out, folder, made)
    for name, minor in (("dev/console", 1),):
        _entry(out, name, b"", CHARACTER_DEVICE, device=(5, minor))
    python = Path(os.path.realpath(sys.executable))
    script = (ROOT / "tools" / "boot_init.py").read_text()
    _entry(out, "init", f"#!{python} -ESsB\n{script}".encode(), EXECUTABLE)
    for path in (python, *_libraries(python), *_standard_library()):
        _file(out, path, str(path).lstrip("/"), made)
    for path in _project():
        _file(out, path, f"project/{path.relative_to(ROOT)}", made)
    _file(out, options.records, f"records{'.gz' if options.records.suffix == '.gz' else ''}", made)
    blobs = options.btf or options.records.with_name("btf.jsonl.gz")
    if blobs.exists():
        _file(out, blobs, "btf.jsonl.gz", made)
    _entry(out, "level", str(options.log).encode(), EXECUTABLE)
    _entry(out, "TRAILER!!!", b"", 0)


def _entry(out: IO[bytes], name: str, body: bytes, mode: int, mtime: int = 0, device: tuple[int, int] = (0, 0)) -> None:
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, mtime, len(body), 0, 0, *device, len(encoded), 0)
    header = b"070701" + "".join(f"{number:08x}" for number in fields).encode() + encoded
    out.write(header + b"\0" * (-len(header) % 4) + body + b"\0" * (-len(body) % 4))


def _folder(out: IO[bytes], name: str, made: set[str]) -> None:
    """A folder and those above it, each once."""
    if name in ("", ".") or name in made:
        return
    _folder(out, os.path.dirname(name), made)
    made.add(name)
    _entry(out, name, b"", DIRECTORY)


def _file(out: IO[bytes], path: Path, name: str, made: set[str]) -> None:
    if name in made:
        return
    _folder(out, os.path.dirname(name), made)
    made.add(name)
    _entry(out, name, path.read_bytes(), EXECUTABLE, int(path.stat().st_mtime))


def _libraries(binary: Path) -> Iterator[Path]:
    """The shared libraries of a binary, under the names by which it asks for them."""
    told = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=True).stdout
    for word in told.split():
        if word.startswith("/"):
            yield Path(word)


def _standard_library() -> Iterator[Path]:
    home = Path(sysconfig.get_path("stdlib"))
    for path in sorted(home.rglob("*")):
        if path.is_file() and not LEFT_OUT.intersection(path.relative_to(home).parts):
            yield path
            if path.suffix == ".so":
                yield from _libraries(path)


def _project() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.is_file():
                yield path
    for name in MODULES:
        yield ROOT / name


# ---- the machine -----------------------------------------------------------------------------------------------------


def _boot(kernel: Path, initramfs: Path, answers: Path, console: Path, seconds: int) -> int:
    """Runs the machine until it powers itself off; the exit code of qemu, 124 where the time ran out."""
    command = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEGABYTES),
        "-nodefaults", "-display", "none", "-no-reboot", "-kernel", str(kernel), "-initrd", str(initramfs),
        "-append", "console=ttyS0 panic=-1 no_timer_check", "-serial", f"file:{console}", "-serial", f"file:{answers}",
    ]  # fmt: skip
    answers.touch()
    console.touch()
    try:
        return subprocess.run(command, timeout=seconds, check=False).returncode
    except subprocess.TimeoutExpired:
        return 124


if __name__ == "__main__":
    sys.exit(main())
