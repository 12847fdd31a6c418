"""Layers that the network is built from."""
