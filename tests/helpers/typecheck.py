"""The checker that jaxtyping applies to the package during tests: beartype, with an int taken where
a float is asked for, as Python's type checkers take it."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
