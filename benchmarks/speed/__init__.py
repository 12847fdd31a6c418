"""How fast: the same work done by ssd_jax and by torchvision, on the same arrays, in turns."""
