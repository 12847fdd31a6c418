"""What several tests share."""

from helpers import typecheck as typecheck  # pytest's --jaxtyping-packages looks for it as an attribute
