"""What makes the tables of `bpflisp.spec`: probes of a running kernel, and the generator that reads their answers."""
