"""Layers that the networks in `ssd_jax.models` are built from.

Each module holds one layer, and imports only other layers from `ssd_jax`. A layer belongs here if more than one
module uses it, or if its code needs a derivation.
"""
