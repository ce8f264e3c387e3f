"""The verifier: for a program and a kernel version, the kernel's verdict. It never asks a kernel."""
