"""Errors of the client."""

from __future__ import annotations

from typing import Iterable, Optional, Tuple


class PbaError(Exception):
    """Any error of this package.

    Each can be made of its message alone: PyTorch makes the error of a DataLoader's worker again so, of
    which everything but the class and the text is lost. All other attributes are None then.
    """


class PbaWarning(UserWarning):
    """What is done as asked, and hardly meant so."""


class RefusedError(PbaError, ValueError):
    """The server refused the request, with a reason.

    Attributes:
        status: HTTP status, for example 400.
        parameter: the offending parameter, if the server named one.
        value: its value.
        allowed: the allowed values.
        detail: the exact error, for people.
        kind: the kind of error, for example ``urn:pba:problem:full``, if the server named one.
        retry_after: seconds after which to try again, if the server stated them.
    """

    def __init__(
        self,
        message: str,
        *,
        status: Optional[int] = None,
        detail: Optional[str] = None,
        parameter: Optional[str] = None,
        value: Optional[str] = None,
        allowed: Optional[str] = None,
        kind: Optional[str] = None,
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail
        self.parameter = parameter
        self.value = value
        self.allowed = allowed
        self.kind = kind
        self.retry_after = retry_after

    def telling(self, detail: str) -> RefusedError:
        """The same, in other words."""
        return RefusedError(f"{detail} ({self.status})", **{**vars(self), "detail": detail})


class UnreachableError(PbaError, ConnectionError):
    """No server accepted a connection, or none answered.

    Tracebacks also show its kinds: ``ConnectError``, when no connection was made, and ``UntrustedError``, when
    a certificate is not trusted.
    """


# Full, shutting down, or a proxy whose server is down: another attempt may succeed.
STATUS_RETRIED = (429, 502, 503, 504)
# What each kind of a PBA server's refusals begins with.
URN = "urn:pba:problem:"
# Of samples whose packed file is damaged: another replica's may be whole, and the server mends its own.
DAMAGED = URN + "damaged"
# Of a proxy before a server, to those that it does not let in.
STATUS_OF_ACCESS = (401, 403, 407)


class StreamError(PbaError):
    """The received bytes are not the promised Arrow stream, or end too early; or the answer is not a PBA server's."""


def is_busy(error: BaseException) -> bool:
    """Whether another attempt may succeed: the server is full, shutting down or mending a dataset, or is that of a
    proxy and temporarily away."""
    return isinstance(error, RefusedError) and (error.status in STATUS_RETRIED or error.kind == DAMAGED)


def is_of_replica(error: BaseException) -> bool:
    """Whether another replica may succeed, while this one will not soon: it does not have what is asked for, or
    cannot read it, or is at fault itself; or a proxy before it does not let the client in. That the request is wrong,
    all would say."""
    if not isinstance(error, RefusedError) or is_busy(error):
        return False
    status = error.status or 0
    return status in (404, 422, *STATUS_OF_ACCESS) or status >= 500


def told(failures: Iterable[Tuple[str, PbaError]]) -> str:
    """What each of several replicas answered, with its URL."""
    texts = [(url, str(error.detail if isinstance(error, RefusedError) else error)) for url, error in failures]
    return "; ".join(text if url in text else f"{url}: {text}" for url, text in texts)


def of_all(failures: Iterable[Tuple[str, PbaError]]) -> PbaError:
    """The errors of several replicas, with their URLs, as one that tells them all: of the kind of a refusal, if one
    of them is, first of those that another attempt may change; else of the kind of an answer, if one is."""
    errors = [error for _, error in failures]
    if len(errors) == 1:
        return errors[0]
    refusals = [error for error in errors if isinstance(error, RefusedError)]
    if refusals:
        first = next((error for error in refusals if is_busy(error)), refusals[0])
        return first.telling(told(failures))
    kept = next((error for error in errors if isinstance(error, StreamError)), errors[-1])
    every = type(kept)(told(failures))
    every.__cause__ = kept.__cause__
    return every


class CutError(PbaError, ConnectionError):
    """The stream was cut, and every attempt to resume it failed.

    The batches so far are correct. Asking for the next batch tries again.

    Attributes:
        received: batches received completely.
        expected: batches of the epoch.
        attempts: attempts to continue it since the last batch.
        seconds: how long they took.
        reason: why the last ones failed.
    """

    def __init__(
        self,
        message: str,
        *,
        received: Optional[int] = None,
        expected: Optional[int] = None,
        attempts: Optional[int] = None,
        seconds: Optional[float] = None,
        reason: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        self.received = received
        self.expected = expected
        self.attempts = attempts
        self.seconds = seconds
        self.reason = reason


_HINTS = {
    "pba.recipe": ": something else that pixels or order depend on differs, such as the dataset's base "
    "augmentation in the server's configuration, the training images that the mean is of, or the server's version"
}


class ChangedError(PbaError):
    """A server has a different dataset or schedule under the same name, or sends other batches than
    requested.

    Attributes:
        key: the metadata key that differs, for example ``pba.dataset``.
        found: the value found.
        expected: the first value, or the requested one.
        source: the server's URL.
    """

    def __init__(
        self,
        message: str,
        *,
        source: Optional[str] = None,
        key: Optional[str] = None,
        found: Optional[str] = None,
        expected: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        self.source = source
        self.key = key
        self.found = found
        self.expected = expected

    @classmethod
    def of(cls, source: str, key: str, found: str, expected: str) -> ChangedError:
        """The error of a server whose metadata have another value than expected."""
        message = f"{source} sends other data: its {key} is {found!r}, and should be {expected!r}{_HINTS.get(key, '')}"
        return cls(message, source=source, key=key, found=found, expected=expected)
