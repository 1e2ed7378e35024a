"""Batches on their way to a device: copied while the step before them is computed."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import Any, Deque, Dict, Generic, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, TypeVar, Union

import numpy as np
import torch

from ._errors import PbaError
from ._torch_loaders import FAILED, Loop, counted_loops


class Pair(NamedTuple):
    """The images of a batch and their labels; a DataLoader leaves it what it is, where it would make a list of a tuple."""

    image: torch.Tensor
    label: torch.Tensor


_Batch = TypeVar("_Batch", Pair, Dict[str, torch.Tensor])
Statistics = Union[Sequence[float], np.ndarray, torch.Tensor]
# A channel that never changes in the training split would be divided by zero; the server's searches have this bound,
# too.
STD_MIN = 1 / 255


def checked(name: str, values: Statistics) -> torch.Tensor:
    """A mean or a deviation that was given, float32 [3]; a ``ValueError`` where it cannot be one."""
    try:
        found = torch.as_tensor(values, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        found = torch.empty(0)
    is_valid = found.shape == (3,) and bool(((found >= 0) & (found <= 1)).all())
    if not is_valid or (name == "std" and not bool((found > 0).all())):
        lowest = "above 0" if name == "std" else "from 0"
        raise ValueError(f"{name} is {values!r}; expected 3 numbers {lowest} to 1, one for each channel of pixels that are 0 to 1")
    return found


class Normalization:
    """From uint8 [N, H, W, 3] to float, ``(pixel / 255 - mean) / std``, channels first or last."""

    def __init__(
        self,
        mean: Statistics,
        std: Statistics,
        *,
        device: Union[str, torch.device] = "cpu",
        dtype: torch.dtype = torch.float32,
        channels_first: bool = True,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        mean, std = (torch.as_tensor(values, dtype=torch.float32) for values in (mean, std))
        std = std.clamp(min=STD_MIN)
        shape = (1, 3, 1, 1) if channels_first else (1, 1, 1, 3)
        self._scale = (1 / (255 * std)).view(shape).to(device)
        self._shift = (mean / std).view(shape).to(device)
        self._dtype = dtype
        self._channels_first = channels_first
        self._memory_format = memory_format

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        if self._channels_first:
            image = image.permute(0, 3, 1, 2)
        # In float32, whatever comes of it.
        image = image.to(torch.float32, memory_format=self._memory_format)
        return image.mul_(self._scale).sub_(self._shift).to(self._dtype)


class Prefetch(Generic[_Batch]):
    """The batches of a loader on a device, loop by loop. Made by ``prefetch``."""

    def __init__(
        self, loader: Iterable[_Batch], device: torch.device, normalization: Normalization, depth: int
    ) -> None:
        self._loader = loader
        self._device = device
        self._normalization = normalization
        self._depth = depth

    def __len__(self) -> int:
        """Batches of a loop."""
        return len(self._loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[_Batch]:
        batches = iter(self._loader)
        return StickyFailure(self._copied_ahead(batches) if self._device.type == "cuda" else self._one_by_one(batches))

    def _one_by_one(self, batches: Iterator[_Batch]) -> Iterator[_Batch]:
        """Each batch when it is asked for."""
        while True:
            try:
                with fetching() as loops:
                    converted = self._converted(next(batches))
            except StopIteration:
                return
            give_on(loops)
            yield converted

    def _converted(self, batch: _Batch) -> _Batch:
        """A batch on the device, by the stream that is current."""
        moved = {name: value.to(self._device, non_blocking=True) for name, value in _named(batch).items()}
        image = moved["image"]
        if image.dtype != torch.uint8 or image.dim() != 4 or image.shape[3] != 3:
            raise ValueError(
                f"images are {image.dtype} {list(image.shape)}; prefetch() normalises uint8 [N, H, W, 3], as an "
                "EpochDataset yields them"
            )
        moved["image"] = self._normalization(moved["image"])
        return _like(batch, moved)

    def _copied_ahead(self, batches: Iterator[_Batch]) -> Iterator[_Batch]:
        """Up to ``depth`` batches are copied ahead of the loop, by a stream of their own, out of pinned memory."""
        stream = torch.cuda.Stream(self._device)
        # The mean and deviation may still be on their way.
        stream.wait_stream(torch.cuda.current_stream(self._device))
        slots: Deque[Slot] = deque(Slot() for _ in range(self._depth + 1))
        ahead: Deque[Tuple[_Batch, List[Loop], torch.cuda.Event]] = deque()
        # What ended the batches, after those that were copied before.
        end: Optional[BaseException] = None
        while True:
            while end is None and len(ahead) <= self._depth:
                try:
                    with fetching() as loops:
                        batch = next(batches)
                        slot = slots[0]
                        slots.rotate(-1)
                        with torch.cuda.device(self._device):
                            pinned = slot.filled(_named(batch))
                        with torch.cuda.stream(stream):
                            converted = self._converted(_like(batch, pinned))
                            slot.copied.record(stream)
                    copied = torch.cuda.Event()
                    copied.record(stream)
                    ahead.append((converted, loops, copied))
                except Exception as error:
                    end = error
            if not ahead:
                if isinstance(end, StopIteration):
                    return
                assert end is not None
                raise end
            converted, loops, copied = ahead.popleft()
            give_on(loops)
            current = torch.cuda.current_stream(self._device)
            current.wait_event(copied)
            for value in _named(converted).values():
                # Its memory is not given to another batch before the loop is done with it.
                value.record_stream(current)
            yield converted


class StickyFailure(Generic[_Batch], Iterator[_Batch]):
    """The batches of a generator, which after an error would seem to be at its end."""

    def __init__(self, batches: Iterator[_Batch]) -> None:
        self._batches = batches
        self._is_failed = False

    def __next__(self) -> _Batch:
        if self._is_failed:
            raise PbaError(FAILED)
        try:
            return next(self._batches)
        except StopIteration:
            raise
        except BaseException:
            self._is_failed = True
            raise


@contextmanager
def fetching() -> Iterator[List[Loop]]:
    """The loops that a batch comes out of, which is ahead until it is taken. One that is lost to an error stays so, and is
    read again by the next loop."""
    with counted_loops() as loops:
        try:
            yield loops
        except StopIteration:
            # What a dataset around another has read at last, and keeps.
            loops.clear()
            raise
        except BaseException:
            for loop in loops:
                loop.is_failed = True
            raise
        finally:
            for loop in loops:
                loop.ahead += 1


def give_on(loops: List[Loop]) -> None:
    """A batch out of these loops is given on."""
    for loop in loops:
        loop.ahead -= 1


class Slot:
    """Pinned memory for one batch."""

    def __init__(self) -> None:
        self._pinned: Dict[str, torch.Tensor] = {}
        self.copied = torch.cuda.Event()

    def filled(self, batch: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        """The batch in this memory, once what was in it has been copied to the device."""
        self.copied.synchronize()
        filled = {}
        for name, value in batch.items():
            held = self._pinned.get(name)
            if held is None or held.dtype != value.dtype or held.shape[1:] != value.shape[1:] or len(held) < len(value):
                held = self._pinned[name] = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
            filled[name] = held[: len(value)].copy_(value)
        return filled


def _named(batch: Any) -> Dict[str, torch.Tensor]:
    if isinstance(batch, dict):
        if "image" not in batch:
            raise ValueError(f"a batch has {', '.join(map(repr, batch)) or 'nothing'}; prefetch() normalises its 'image'")
        named = batch
    else:
        image, label = batch
        named = {"image": image, "label": label}
    for name, value in named.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}; prefetch() takes batches of tensors")
    return named


def _like(batch: Any, values: Dict[str, torch.Tensor]) -> Any:
    return values if isinstance(batch, dict) else Pair(values["image"], values["label"])
