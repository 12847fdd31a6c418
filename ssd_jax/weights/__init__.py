"""Weights of other projects: files to arrays and back, and what their keys and numbers mean."""
