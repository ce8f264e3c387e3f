"""Passes from function to function; none changes what a program does."""

from bpflisp.opt.pipeline import PASSES, Pass, run

__all__ = ["PASSES", "Pass", "run"]
