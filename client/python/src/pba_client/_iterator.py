"""All batches of a training run as one iterator."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ContextManager, Dict, Iterator, Optional

from ._batch import Batch
from ._epoch import Epoch
from ._errors import PbaError
from ._loader import Loader


class BatchIterator(Iterator[Batch], ContextManager["BatchIterator"]):
    """The batches of all epochs of a run, one after another, with the protocol of grain's iterators: ``get_state`` and
    ``set_state``, for a checkpoint beside the weights.

    Args:
        loader: what is read. It should not be read in another way meanwhile.
        epochs: epochs to read, from 0 on.

    Attributes:
        epoch: epoch of the batch that came last, 0-based; at first that of the next one.

    Raises:
        ValueError: when ``epochs`` is not an integer of 0 or more.

    >>> loader = Loader("http://127.0.0.1:8080", "shapes", "cifar10-pba", 200)  # doctest: +SKIP
    >>> batches = BatchIterator(loader, epochs=200)  # doctest: +SKIP
    >>> for batch in batches:  # doctest: +SKIP
    ...     batch.image, batch.label
    """

    def __init__(self, loader: Loader, epochs: int) -> None:
        if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 0:
            raise ValueError(f"epochs is {epochs!r}; expected an integer of 0 or more")
        self._loader = loader
        self._epochs = epochs
        self.epoch = 0
        self._reading: Optional[Epoch] = None

    def __next__(self) -> Batch:
        while True:
            if self._reading is None:
                if self.epoch >= self._epochs:
                    raise StopIteration
                self._reading = self._loader.epoch(self.epoch)
            batch = next(self._reading, None)
            if batch is not None:
                return batch
            self._reading = None
            self.epoch += 1

    def get_state(self) -> Dict[str, Any]:
        """The position after the batches that were taken. It can be written as JSON."""
        return self._loader.state_dict()

    def set_state(self, state: Dict[str, Any]) -> None:
        """Goes to a saved position, forwards or backwards.

        Raises:
            ValueError, ChangedError: as ``Loader.load_state_dict``.
        """
        position = self._loader._position_of(state)
        if position > (self._epochs, 0):
            raise ValueError(f"the state is in epoch {position.epoch}; there are {self._epochs}, from 0 on")
        self.close()
        self._loader._go_to(position)
        self.epoch = position.epoch

    def close(self) -> None:
        """Ends the stream; the next batch opens it again, where it was."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.close()
            # A loader with headspace has no position, and needs none.
            with suppress(PbaError):
                self._loader._go_to(self._loader._position())

    def __exit__(self, *_: object) -> None:
        self.close()
