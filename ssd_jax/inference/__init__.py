"""A trained detector at work."""
