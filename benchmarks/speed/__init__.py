"""Comparison of the speed of ssd-jax and torchvision on the same tasks and arrays, timed in turns."""
