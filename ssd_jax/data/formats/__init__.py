"""Readers of data set folders, one module for each format."""
