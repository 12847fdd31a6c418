"""The folder of a run on the disk."""
