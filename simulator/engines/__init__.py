"""Engines: ways to run one program. They must agree on every program that the verifier accepts."""
