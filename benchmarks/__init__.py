"""Benchmarks of speed, memory and fine-tuning.

Each benchmark is a command: ``python -m benchmarks.NAME --help``, where NAME is speed, quick, startup, growth, input,
serving or fine_tune.
"""
