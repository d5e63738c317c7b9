"""The weights of an earlier run as the start of another: transfer to other data, linear probing, fine-tuning."""

import warnings
from pathlib import Path

from torch import Tensor

from datasets.errors import ForetideError, ForetideWarning
from forecasting import artifact
from forecasting.config import RunConfig
from forecasting.forecaster import Forecaster

# what the schema of an artifact says that holds no complete forecaster
BACKBONE = "backbone"
_PART = f"{BACKBONE}."


def start(model: Forecaster, config: RunConfig) -> None:
    """Gives a new model the weights of ``training.init_from``, and freezes its backbone if the run says so.

    The backbone must fit tensor by tensor. The rest, the head, is taken if all of it fits, and else stays new with a
    warning: another horizon or kind of head is what a backbone is pre-trained for. A model without a submodule of that
    name must fit as a whole.

    Raises:
        ForetideError: The folder holds another model or size, or there is no backbone to freeze.
    """
    training = config.training
    if training.init_from is None:
        return
    own = model.state_dict()
    parted = any(name.startswith(_PART) for name in own)
    if training.freeze_backbone and not parted:
        raise ForetideError(
            f"training.freeze_backbone: {config.model} has no part that is its backbone; leave it false"
        )
    model.load_state_dict(_fitting(own, config, training.init_from, parted), strict=False)
    if training.freeze_backbone:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(_PART))
        model.train()


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _fitting(own: dict[str, Tensor], config: RunConfig, folder: str, parted: bool) -> dict[str, Tensor]:
    """The stored tensors that the model takes: all of them, or those of the backbone."""
    where = f"training.init_from: {folder}"
    stored = artifact.load(Path(folder))
    if stored.config.get("model") != config.model:
        raise ForetideError(f"{where}: found a {stored.config.get('model')}, expected a {config.model} as in --model")
    found = under(stored.weights, "model.")

    def part(tensors: dict[str, Tensor], body: bool) -> dict[str, Tensor]:
        return {name: t for name, t in tensors.items() if (name.startswith(_PART) or not parted) == body}

    if misfit := _misfit(part(own, True), part(found, True)):
        raise ForetideError(f"{where}: {misfit}; set --lookback and --architecture as in its {artifact.CONFIG}")
    misfit = _misfit(part(own, False), part(found, False))
    if misfit and config.training.max_epochs == 0:
        raise ForetideError(f"{where}: {misfit}; training.max_epochs 0 needs a complete forecaster, so train for some")
    if misfit and stored.schema.get("holds") != BACKBONE:
        warnings.warn(f"{where}: {misfit}; only the backbone is taken, the head is new", ForetideWarning, stacklevel=4)
    return part(found, True) if misfit else found


def _misfit(own: dict[str, Tensor], found: dict[str, Tensor]) -> str | None:
    """The first tensor that differs in name or shape, in words."""
    for name in [*own, *found]:
        shapes = [tuple(part[name].shape) if name in part else None for part in (found, own)]
        if shapes[0] != shapes[1]:
            return f"{name}: found {shapes[0] or 'nothing'}, expected {shapes[1] or 'nothing'}"
    return None
