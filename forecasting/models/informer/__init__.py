"""Informer (Zhou et al., AAAI 2021): sparse attention over time, a distilling encoder, a one-pass decoder."""

from forecasting.models.informer.model import Informer

__all__ = ["Informer"]
