"""Benchmarks: speed, quick, growth, input and fine_tune.

Each one is a command: python -m benchmarks.NAME --help.
"""
