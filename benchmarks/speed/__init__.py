"""Speed of ssd_jax and torchvision on the same tasks and arrays, measured in turns."""
