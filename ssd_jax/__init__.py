"""SSD, the Single Shot MultiBox Detector (Liu et al. 2016, arXiv 1512.02325), in JAX and Flax.

Importing the package does nothing: no flags, no device query, no arrays. A notebook starts at
``ssd_jax.inference.detector.load``; a reader starts at ``ssd_jax/config.py`` and follows the data.
"""

__version__ = "0.1.0"
