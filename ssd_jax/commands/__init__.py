"""The subcommands of ``ssd-jax``, one module each. Only ``ssd_jax.__main__`` and the benchmarks import this package.

A command parses its options, calls one public function and prints. To add a command, write a module with ``run(argv)``
and list it in `ssd_jax.commands.main`. Import modules that need JAX inside functions, so that ``--help`` is printed at
once.
"""
