"""Speed comparison of ssd-jax and torchvision, which are timed in turns on the same tasks and arrays."""
