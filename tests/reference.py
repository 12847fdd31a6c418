"""Slow, obvious oracles: plain numpy and Python loops, written from the paper and the reference
code's description, sharing nothing with the package."""

import numpy as np


# ---- boxes ----

# ---- matching, mining, loss ----

# ---- nms, detection ----

# ---- augmentation ----

# ---- metrics ----
