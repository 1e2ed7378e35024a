"""Reads augmented image batches from a PBA server, epoch by epoch.

>>> from pba_client import Loader
>>> loader = Loader("http://127.0.0.1:8080", "shapes", "cifar10-pba", 200)  # doctest: +SKIP
>>> for epoch in range(200):  # doctest: +SKIP
...     for batch in loader.epoch(epoch):
...         batch.image  # uint8 [N, H, W, 3]
...         batch.label  # int64 [N]

``Loader`` reads a training run, ``Client`` single epochs and everything else. ``pba_client.torch``
is the adapter for PyTorch. The path of a dataset in place of a URL starts a server for it, as ``serve`` does.
"""

from ._batch import Batch
from ._client import Client
from ._epoch import Epoch
from ._errors import (
    ChangedError,
    CutError,
    PbaError,
    PbaWarning,
    RefusedError,
    StreamError,
    UnreachableError,
)
from ._iterator import BatchIterator
from ._loader import Loader
from ._metadata import Metadata
from ._private import PrivateServer, serve
from ._private_plan import StartError

# That of the whole repository; deploy/release/bump.py sets it.
__version__ = "0.1.0"

__all__ = [
    "Batch",
    "BatchIterator",
    "ChangedError",
    "Client",
    "CutError",
    "Epoch",
    "Loader",
    "Metadata",
    "PbaError",
    "PbaWarning",
    "PrivateServer",
    "RefusedError",
    "StartError",
    "StreamError",
    "UnreachableError",
    "__version__",
    "serve",
]
