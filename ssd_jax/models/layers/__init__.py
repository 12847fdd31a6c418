"""Layers that the networks in `ssd_jax.models` are built from.

Each file holds one layer and imports nothing of the package but other layers. A layer belongs here when more than one
module uses it, or when its code needs a derivation of its own.
"""
