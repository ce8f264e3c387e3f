"""What eBPF is: data and arithmetic that the compiler and the simulator read, and nobody repeats.

Nothing here imports more than the standard library.
"""
