"""The type checker that jaxtyping applies to the package during tests: beartype.

Like static type checkers, it accepts an int where a float is expected.
"""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
