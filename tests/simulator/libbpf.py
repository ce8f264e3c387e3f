"""libbpf's own answer: the instructions that it would hand to the kernel, by ctypes on libbpf.so.1.

    python -m tests.simulator.libbpf OBJECT... > fixtures/objects/libbpf.json

libbpf relocates while it loads, so that this needs bpf(2); whether the kernel then accepts the program does not matter.
Maps are named by their index, as our loader has them: libbpf's file descriptors are looked up in its list of maps.
"""

from __future__ import annotations

import ctypes
import errno
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bpflisp.spec.isa import (
    LD_IMM64_OPCODE,
    PSEUDO_MAP_FD,
    PSEUDO_MAP_IDX,
    PSEUDO_MAP_IDX_VALUE,
    PSEUDO_MAP_VALUE,
)

_INDEXED = {PSEUDO_MAP_FD: PSEUDO_MAP_IDX, PSEUDO_MAP_VALUE: PSEUDO_MAP_IDX_VALUE}


def library() -> ctypes.CDLL:
    """libbpf. Raises OSError where it is not installed."""
    lib = ctypes.CDLL("libbpf.so.1")
    for name in ("bpf_object__open_file", "bpf_object__next_program", "bpf_object__next_map", "bpf_program__name",
                 "bpf_program__insns", "bpf_program__section_name", "bpf_map__name"):  # fmt: skip
        getattr(lib, name).restype = ctypes.c_void_p
    lib.bpf_program__insn_cnt.restype = ctypes.c_size_t
    lib.libbpf_set_print.restype = ctypes.c_void_p
    return lib


def _each(lib: ctypes.CDLL, next_one: str, obj: int) -> Iterator[ctypes.c_void_p]:
    at = getattr(lib, next_one)(ctypes.c_void_p(obj), None)
    while at:
        yield ctypes.c_void_p(at)
        at = getattr(lib, next_one)(ctypes.c_void_p(obj), ctypes.c_void_p(at))


_PREPARE_LOAD = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long)


class _HandlerOptions(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("cookie", ctypes.c_long),
        ("setup", ctypes.c_void_p),
        ("prepare_load", _PREPARE_LOAD),
        ("attach", ctypes.c_void_p),
    )


class _Capture:
    """Takes the instructions in the moment before libbpf loads them, when maps have their descriptors, and stops it."""

    _ANY_TYPE = 1

    def __init__(self, lib: ctypes.CDLL) -> None:
        self.lib, self.obj = lib, 0
        self.code: dict[str, str] = {}
        self._options = _HandlerOptions(ctypes.sizeof(_HandlerOptions), 0, None, _PREPARE_LOAD(self._take), None)

    def register(self, section: str) -> int:
        return int(
            self.lib.libbpf_register_prog_handler(section.encode(), self._ANY_TYPE, 0, ctypes.byref(self._options))
        )

    def _take(self, program: int, _options: int, _cookie: int) -> int:
        lib, pointer = self.lib, ctypes.c_void_p(program)
        maps = _each(lib, "bpf_object__next_map", self.obj)
        descriptors = {lib.bpf_map__fd(each): at for at, each in enumerate(maps)}
        count = lib.bpf_program__insn_cnt(pointer)
        code = bytearray(ctypes.string_at(lib.bpf_program__insns(pointer), 8 * count))
        _name_maps_by_index(code, descriptors)
        self.code[_text(lib.bpf_program__name(pointer))] = bytes(code).hex()
        return -errno.ECANCELED


def _text(pointer: int) -> str:
    return ctypes.string_at(pointer).decode()


class _OpenOptions(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
        ("_unused", ctypes.c_uint32),
        ("kconfig", ctypes.c_char_p),
        ("btf_custom_path", ctypes.c_char_p),
    )


KCONFIG = {"CONFIG_HZ": 250, "CONFIG_BPF_SYSCALL": "y", "CONFIG_NET": "m", "CONFIG_CC_VERSION_TEXT": "clang"}
"""The configuration that every object is loaded with."""


def _kconfig() -> bytes:
    quoted = {name: f'"{value}"' if len(str(value)) > 3 else value for name, value in KCONFIG.items()}
    return "".join(f"{name}={value}\n" for name, value in quoted.items()).encode()


def _open(lib: ctypes.CDLL, path: Path) -> int:
    target = path.with_name(path.name.replace(".bpf.o", "_target.bpf.o"))
    options = _OpenOptions(ctypes.sizeof(_OpenOptions), kconfig=_kconfig())
    if target != path and target.exists():
        options.btf_custom_path = str(target).encode()
    obj = lib.bpf_object__open_file(str(path).encode(), ctypes.byref(options))
    if not obj:
        raise OSError(f"libbpf does not open {path}")
    return int(obj)


def relocated(path: Path, quiet: bool = True) -> tuple[dict[str, str], list[str]]:
    """Program -> its instructions in hex; and the names of the maps, in their order. Raises OSError if it fails."""
    lib = library()
    if quiet:
        lib.libbpf_set_print(None)
    obj = _open(lib, path)
    programs = list(_each(lib, "bpf_object__next_program", obj))
    sections = {_text(lib.bpf_program__section_name(each)) for each in programs}
    names = [_text(lib.bpf_program__name(each)) for each in programs]
    maps = [_text(lib.bpf_map__name(each)) for each in _each(lib, "bpf_object__next_map", obj)]
    lib.bpf_object__close(ctypes.c_void_p(obj))
    capture = _Capture(lib)
    for section in sections:
        capture.register(section)
    for name in names:
        _load_one(lib, capture, path, name)
    missing = set(names) - set(capture.code)
    if missing:
        raise OSError(f"libbpf does not relocate {sorted(missing)} of {path}")
    return capture.code, maps


def _load_one(lib: ctypes.CDLL, capture: _Capture, path: Path, name: str) -> None:
    """Loads one program of an object as far as the capture lets it."""
    capture.obj = _open(lib, path)
    for each in _each(lib, "bpf_object__next_program", capture.obj):
        lib.bpf_program__set_autoload(each, _text(lib.bpf_program__name(each)) == name)
    lib.bpf_object__load(ctypes.c_void_p(capture.obj))
    lib.bpf_object__close(ctypes.c_void_p(capture.obj))


def _name_maps_by_index(code: bytearray, descriptors: dict[int, int]) -> None:
    for at in range(0, len(code), 8):
        source = code[at + 1] >> 4
        if code[at] == LD_IMM64_OPCODE and source in _INDEXED:
            (descriptor,) = struct.unpack_from("<i", code, at + 4)
            code[at + 1] = code[at + 1] & 15 | _INDEXED[source] << 4
            struct.pack_into("<i", code, at + 4, descriptors[descriptor])


def main() -> None:
    """Prints what libbpf makes of the objects named on the command line; what it refuses goes to standard error.

    Each is asked about in a process of its own: the handlers of one are in the way of the next.
    """
    answers = {}
    for argument in sys.argv[1:]:
        command = [sys.executable, "-c", f"from tests.simulator import libbpf; libbpf.answer({argument!r})"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{argument}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        else:
            answers[Path(argument).name] = json.loads(done.stdout)
    print(json.dumps(answers, indent=1, sort_keys=True))


def answer(path: str) -> None:
    """Prints what libbpf makes of one object."""
    programs, maps = relocated(Path(path))
    print(json.dumps({"programs": programs, "maps": maps}))


if __name__ == "__main__":
    main()
