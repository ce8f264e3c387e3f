"""The benchmark: `python -m tests.bench` prints every figure that the project watches, in under a minute."""
