"""Batches through shared memory: the server writes them, and the arrays are views of them there.

`client/wire/src/shared_memory.rs` describes the protocol. In short: the server announces which part
of the shared memory (a slot) holds the next batch; the slot is given back when it is no longer used.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import struct
import sys
import threading
import weakref
from typing import Dict, Optional, Tuple

import numpy as np
import pyarrow as pa

from ._batch import Batch, Layout, decoded, head_of
from ._errors import StreamError
from ._http import Eof, Response, broken
from ._progress import Progress

PAGE_BYTES = 4096
# Linux's numbers; Python names them from 3.13 on.
_F_GET_SEALS = 1034
_F_SEAL_SHRINK = 2

_READY = struct.pack("<I", 0xFFFFFFFF)
_RECORD = struct.Struct("<IIQQ")
_SLOT = struct.Struct("<I")
_OPEN, _BATCH, _END = 1, 2, 3
# Slots given back at a time: each message wakes the server.
_WORDS = 2
# As in the plain stream, so that both count the same.
_END_OF_STREAM_BYTES = 8


class _SharedMemory:
    """The mapping and the socket beside it; lives as long as the memory is used.

    The mapping is private: a page that is written to is copied for this process alone.
    """

    def __init__(self, sock: socket.socket, descriptor: int, length: int) -> None:
        # From 3.13 on, a mapping need not keep a descriptor of its own.
        untracked = {"trackfd": False} if sys.version_info >= (3, 13) else {}
        access = mmap.PROT_READ | mmap.PROT_WRITE
        self.map = mmap.mmap(descriptor, length, flags=mmap.MAP_PRIVATE, prot=access, **untracked)
        self.address: int = np.frombuffer(self.map, np.uint8).__array_interface__["data"][0]
        # Slots that the client holds: their offsets and lengths, in pages.
        self.held: Dict[int, Tuple[int, int]] = {}
        # Those of them that are no longer used, encoded to be sent.
        self._unsaid = bytearray()
        self._socket: Optional[socket.socket] = sock
        self._pid = os.getpid()
        # Collecting garbage may give back a slot while another one is being given back.
        self._lock = threading.RLock()
        _MEMORIES.add(self)

    def give_back(self, number: int) -> None:
        """Lets the server write a slot again. Called by the thread that releases it last."""
        # A process that was forked off has pages of its own, and its parent's socket.
        if self._pid != os.getpid():
            return
        with self._lock:
            if self._socket is None:
                return
            # Pages that were written to are copies: the next read must see the server's.
            self.map.madvise(mmap.MADV_DONTNEED, *self.held[number])
            self._unsaid += _SLOT.pack(number)
            if len(self._unsaid) >= _WORDS * _SLOT.size:
                self.say()

    def say(self) -> None:
        """Gives back the slots that are still pending."""
        with self._lock:
            if self._socket is None or not self._unsaid:
                return
            words, self._unsaid = self._unsaid, bytearray()
            for (number,) in _SLOT.iter_unpack(words):
                del self.held[number]
            # A server that is gone needs nothing back.
            with contextlib.suppress(OSError):
                self._socket.send(words, socket.MSG_DONTWAIT)

    def end(self) -> None:
        """From now on no slot is given back or overwritten; existing views stay valid."""
        with self._lock:
            self._socket = None

    def make_own(self) -> None:
        """Turns the held slots into copies, for this process and its forks."""
        if self._pid != os.getpid():
            return
        with self._lock:
            if self._socket is None:
                return
            # A copy of a slot that is given back would hide the server's next batch there.
            self.say()
            pages = np.frombuffer(self.map, np.uint8)
            for start, length in self.held.values():
                # Writing to a page, even its own content, makes the kernel copy it.
                pages[start : start + length : PAGE_BYTES] += 0


_MEMORIES: weakref.WeakSet[_SharedMemory] = weakref.WeakSet()


def _before_fork() -> None:
    # The child uses the same batches, but only the parent gives them back.
    for memory in list(_MEMORIES):
        memory.make_own()


os.register_at_fork(before=_before_fork)


class _Slot:
    """Keeps a batch's slot; gives it back with the last buffer over it."""

    __slots__ = ("_memory", "_number")

    def __init__(self, memory: _SharedMemory, number: int) -> None:
        self._memory = memory
        self._number = number

    def __del__(self) -> None:
        self._memory.give_back(self._number)


class SharedMemoryReader:
    """Reads the messages of one stream from shared memory, after the answer 101.

    Attributes:
        schema: the stream's schema.
        batches: how many batches may be held at a time; further ones are copied.

    Raises:
        StreamError: here and from ``next``, when the stream is cut, or the server breaks the protocol.
    """

    def __init__(self, response: Response, progress: Progress) -> None:
        self._response = response
        self._progress = progress
        self._record = memoryview(bytearray(_RECORD.size))
        # Of the last batch that was decoded; those with the same head need not be.
        self._layout: Optional[Layout] = None
        try:
            response.socket.sendall(_READY)
            data, descriptors, _, _ = socket.recv_fds(response.socket, _RECORD.size, 1)
        except OSError as error:
            raise broken(error, response.stall_seconds) from error
        try:
            if len(data) != _RECORD.size:
                raise Eof("the connection ended")
            kind, self.batches, self._bytes, schema_bytes = _RECORD.unpack(data)
            if kind != _OPEN or len(descriptors) != 1 or schema_bytes > self._bytes:
                raise StreamError("the server shares no memory, although it said it would")
            seals = fcntl.fcntl(descriptors[0], _F_GET_SEALS)
            if not seals & _F_SEAL_SHRINK or os.fstat(descriptors[0]).st_size < self._bytes:
                raise StreamError("the server's shared memory could be truncated while in use")
            self._memory = _SharedMemory(response.socket, descriptors[0], self._bytes)
            response.opened.callback(self._memory.end)
            self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(self._memory.map[:schema_bytes]))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise StreamError(f"the server's shared memory cannot be used: {error}") from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        progress.bytes += schema_bytes

    def next(self) -> Optional[Batch]:
        """The next batch; none at the end of the stream."""
        try:
            # Below http.client, which expects no body after 101.
            count = self._response.body.fp.readinto(self._record)
        except OSError as error:
            raise broken(error, self._response.stall_seconds) from error
        if count != _RECORD.size:
            raise Eof("the connection ended before the stream")
        kind, number, offset, length = _RECORD.unpack(self._record)
        if kind == _END:
            self._progress.bytes += _END_OF_STREAM_BYTES
            return None
        memory = self._memory
        if kind != _BATCH or offset + length > self._bytes or number in memory.held:
            raise StreamError("the server sent an invalid record")
        self._progress.bytes += length
        start = offset // PAGE_BYTES * PAGE_BYTES
        memory.held[number] = (start, min(offset + length, self._bytes) - start)
        buffer = pa.foreign_buffer(memory.address + offset, length, _Slot(memory, number))
        if len(memory.held) > self.batches:
            memory.say()
        if len(memory.held) > self.batches:
            # With so many held, further batches are copies, and the stream continues.
            copy = pa.allocate_buffer(length)
            memoryview(copy).cast("B")[:] = memoryview(buffer).cast("B")
            buffer = copy
        layout = self._layout
        if layout is not None and length == len(layout.head) + layout.body_bytes:
            if memoryview(buffer).cast("B")[: len(layout.head)] == layout.head:
                return Batch(self.schema, None, layout, buffer)
        try:
            message = pa.ipc.read_message(buffer)
            record_batch = decoded(message, self.schema)
        except (pa.ArrowException, EOFError, OSError) as error:
            raise StreamError(f"a batch is broken: {error}") from error
        self._layout = Layout.of(head_of(message), 0, None, message.body, record_batch)
        return Batch(self.schema, record_batch)
