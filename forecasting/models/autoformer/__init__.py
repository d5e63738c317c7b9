"""Autoformer (Wu et al., NeurIPS 2021): decomposition as an inner block, and auto-correlation in place of attention."""

from forecasting.models.autoformer.model import Autoformer

__all__ = ["Autoformer"]
