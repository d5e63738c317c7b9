"""Feeds windows to Lightning: batches made on the training device, in an order that seed and epoch fix."""

from collections.abc import Callable, Iterator

import torch
from pytorch_lightning import LightningDataModule

from datasets.windows import Batch, Windows


class WindowLoader:
    """An iterable of batches; in the Lightning protocol it is its own sampler.

    Every global batch is cut into one share for each process, so that the union over processes is the batch that a
    single process would have seen. No window is dropped; a process without a share of the last batch gets a window
    that is not scored.

    Args:
        batch_size: Windows per global batch.
        shuffle: Draws a new order each epoch from ``seed`` and the epoch, not from global state.
        rank, world: Which share of how many.
    """

    def __init__(
        self, windows: Windows, batch_size: int, *, shuffle: bool, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.windows, self.batch_size, self.shuffle, self.seed = windows, batch_size, shuffle, seed
        self.rank, self.world, self.epoch = rank, world, 0
        # Lightning looks for these two names of a DataLoader, to tell a sampler the epoch
        self.sampler, self.batch_sampler = self, None

    def __len__(self) -> int:
        return -(-len(self.windows) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch, also after a resume."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        count, device = len(self.windows), self.windows.device
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(count, generator=generator).to(device)
        else:
            order = torch.arange(count, device=device)
        for whole in order.split(self.batch_size):
            share = whole[self.rank :: self.world]
            batch = self.windows.batch(share if len(share) else whole[:1])
            if not len(share) and batch.future_mask is not None:
                batch.future_mask = torch.zeros_like(batch.future_mask)
            yield batch


class WindowModule(LightningDataModule):
    """Training and validation windows for a Trainer.

    Args:
        make: ``part, device → Windows``; called once the device is known.
        evaluation_batch: Windows per validation batch.
    """

    def __init__(
        self,
        make: Callable[[str, torch.device], Windows],
        batch_size: int,
        seed: int,
        *,
        validate: bool = True,
        evaluation_batch: int = 256,
    ) -> None:
        super().__init__()
        self._make, self._batch_size, self._seed = make, batch_size, seed
        self._validate, self._evaluation_batch = validate, evaluation_batch

    def _loader(self, part: str, batch_size: int, shuffle: bool) -> WindowLoader:
        trainer = self.trainer
        assert trainer is not None
        return WindowLoader(
            self._make(part, trainer.strategy.root_device),
            batch_size,
            shuffle=shuffle,
            seed=self._seed,
            rank=trainer.global_rank,
            world=trainer.world_size,
        )

    def train_dataloader(self) -> WindowLoader:
        """Shuffled training windows."""
        return self._loader("train", self._batch_size, shuffle=True)

    def val_dataloader(self) -> WindowLoader | list[WindowLoader]:
        """All validation windows in time order; none for a refit."""
        return self._loader("validation", self._evaluation_batch, shuffle=False) if self._validate else []
