"""The network as Linen modules."""
