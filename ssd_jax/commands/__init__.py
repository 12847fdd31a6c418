"""The subcommands of ``ssd-jax``: what each prints and writes."""
