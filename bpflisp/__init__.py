"""A Lisp compiler for eBPF: `compile_text` and `compile_file` give the bytes of an ELF object, or raise `CompileError`.

Nothing else of the compiler is loaded before it is used.
"""

from __future__ import annotations

from pathlib import Path

from bpflisp.diagnostics import CompileError

__all__ = ["CompileError", "compile_file", "compile_text"]


def compile_text(text: str, filename: str = "<text>", *, mcpu: str = "v3", opt: int = 2, arch: str = "x86_64") -> bytes:
    """Compile Lisp text to an ELF object. Raises CompileError with everything that is wrong with the text.

    `filename` is what diagnostics and line information call it; `mcpu` is v1 to v4, `opt` 0 to 2; `arch`
    (x86_64 or arm64) is whose registers a kprobe's forms name.
    """
    from bpflisp.diagnostics import Source
    from bpflisp.driver import compile_source

    return compile_source(Source(filename, text), mcpu=mcpu, opt=opt, arch=arch).elf


def compile_file(path: str | Path, *, mcpu: str = "v3", opt: int = 2, arch: str = "x86_64") -> bytes:
    """Compile a file to an ELF object. Raises CompileError, and OSError where the file cannot be read."""
    from bpflisp.driver import compile_source, read_source

    return compile_source(read_source(path), mcpu=mcpu, opt=opt, arch=arch).elf
