"""The type checker that jaxtyping applies to the package during tests: beartype.

It is configured to accept an int for a float, as static type checkers do.
"""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
