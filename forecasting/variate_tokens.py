"""The frame of models whose tokens are variates: iTransformer, S-Mamba."""

from typing import Any

import torch
from torch import Tensor, nn

from datasets.windows import Batch
from forecasting.forecaster import Forecaster, Recipe, Task
from forecasting.layers import Dropout


class VariateTokenForecaster(Forecaster):
    """Each variate's whole lookback is one token; an encoder mixes tokens, and one linear map makes the horizon.

    Calendar features and past covariates are further tokens through the same embedding; future covariates span lookback
    and horizon and have an embedding of their own; static ones form one token.

    A subclass builds, after ``super().__init__``, ``encoder`` (layers that map ``tokens, keep`` to the first ``keep``
    tokens), ``norm`` and ``project``.

    Args:
        architecture: With ``d_model`` and ``dropout``.
    """

    encoder: nn.ModuleList
    norm: nn.Module
    project: nn.Module

    def __init__(self, task: Task, architecture: Any, recipe: Recipe) -> None:
        super().__init__(task, architecture, recipe)
        width = architecture.d_model
        self.embed = nn.Linear(task.lookback, width)
        self.embed_future = nn.Linear(task.lookback + task.horizon, width) if task.future else None
        self.embed_static = nn.Linear(task.static, width) if task.static else None
        self.dropout = Dropout(architecture.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """See `Forecaster.forward`."""
        tokens, variates = self.tokens(batch), batch.past.shape[2]
        for layer in self.encoder[:-1]:
            tokens = layer(tokens)
        # what the last layer would make of calendar and covariate tokens is never read
        outputs = self.project(self.norm(self.encoder[-1](tokens, variates)))  # (B, C, H·P)
        return outputs.unflatten(-1, (self.task.horizon, self.head.size)).transpose(1, 2)

    def tokens(self, batch: Batch) -> Tensor:
        """Embedded tokens ``(B, N, D)``; the first C are the variates."""
        columns = [batch.past]
        if self.task.calendar:
            columns.append(batch.past_calendar)
        if batch.past_covariates is not None and self.task.past:
            columns.append(batch.past_covariates)
        tokens = [self.embed(torch.cat(columns, dim=2).transpose(1, 2))]  # (B, C + F + P, D)
        if self.embed_future is not None and batch.future_covariates is not None:
            tokens.append(self.embed_future(batch.future_covariates.transpose(1, 2)))
        if self.embed_static is not None and batch.static is not None:
            tokens.append(self.embed_static(batch.static)[:, None])
        return self.dropout(torch.cat(tokens, dim=1) if len(tokens) > 1 else tokens[0])
