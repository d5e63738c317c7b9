"""TSMixer (Ekambaram et al., KDD 2023), published by its authors as PatchTSMixer: an MLP-Mixer over patches."""

from forecasting.models.tsmixer.model import TSMixer

__all__ = ["TSMixer"]
