"""What is measured: speed, growth, fine-tuning. Each is a command of its own: python -m benchmarks.NAME --help."""
