"""Devices, compilation, and several processes as one run."""
