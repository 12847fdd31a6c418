"""What is measured: speed, the same quickly, growth, input, fine-tuning.

Each is a command of its own: python -m benchmarks.NAME --help.
"""
