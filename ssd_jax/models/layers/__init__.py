"""Layers that the networks in `ssd_jax.models` are built from.

Each module holds one layer and imports nothing from `ssd_jax` but other layers. A layer belongs here if more than one
module uses it, or if its code needs a derivation.
"""
