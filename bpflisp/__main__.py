"""`python -m bpflisp`: the command line."""

from __future__ import annotations

from bpflisp.cli import main

if __name__ == "__main__":
    main()
