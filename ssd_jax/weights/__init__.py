"""Weights from elsewhere, and back: files, the keys that others give to our parameters, what goes with them."""
