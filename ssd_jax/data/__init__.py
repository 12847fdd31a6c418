"""From files to batches of numpy arrays. Nothing in here imports jax.numpy."""
