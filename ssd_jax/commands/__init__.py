"""The subcommands of ``ssd-jax``, one module each. Nothing imports this package except ``__main__`` and benchmarks.

A command parses its options, calls one public function and prints. To add one, write a module with ``run(argv)`` and
list it in `ssd_jax.commands.main`. Import what needs JAX inside functions, so that ``--help`` is printed at once.
"""
