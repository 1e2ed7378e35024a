"""What fails for reasons that pass: when it is tried again, for how long, and what is said of it."""

from __future__ import annotations

import logging
import math
import ssl
import time
from collections import deque
from typing import Deque, Optional, Tuple

from ._address import Address
from ._errors import (
    URN,
    PbaError,
    RefusedError,
    StreamError,
    UnreachableError,
    is_busy,
    is_of_replica,
    of_all,
    told,
)
from ._http import Access, ConnectError, Eof, StallError, UntrustedError

# Pause before the second round of attempts after a failure; doubled each time.
PAUSE_SECONDS = 0.1
PAUSE_SECONDS_MAX = 10.0
# Longest pause that a server can ask for.
RETRY_AFTER_SECONDS_MAX = 60.0
# How long a client that has reached no server yet tries again where something answers that is none: a
# bit may have been flipped, but more likely the address is that of another program.
FOREIGN_SECONDS = 10.0
# Kind of the refusal of a dataset that is being imported; shortest pause until it is asked for again,
# and how often the wait is logged.
IMPORTING = URN + "importing"
IMPORT_SECONDS = 1.0
LOG_SECONDS = 5.0

_LOG = logging.getLogger("pba_client")


def may_pass(error: BaseException) -> bool:
    """Whether another attempt, or another replica, may succeed."""
    return is_busy(error) or is_of_replica(error) or isinstance(error, (UnreachableError, StreamError))


def is_importing(error: BaseException) -> bool:
    """Whether a server refuses only because it is still importing the dataset."""
    return isinstance(error, RefusedError) and error.kind == IMPORTING


def counted(attempts: int) -> str:
    """A number of attempts, for people."""
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"


class Outage:
    """What has failed since something succeeded, at one replica after another.

    It is given each failure, says how long to pause until the next attempt, and is told when one has
    succeeded. It is logged once: as a warning when the first pause begins, and when it is over.

    Args:
        access: the servers, and how long they are tried.
        reached: whether a server was reached before. One that was is expected to come back; one that
            never was may be a mistyped address.
        what: what has failed, for people.
        again: what is tried, and what was done in the end: of the warning and the later message.
        was_cut: whether the first failure is that of a stream which was running, not of an attempt.
    """

    def __init__(
        self,
        access: Access,
        reached: bool,
        what: str,
        again: Tuple[str, str] = ("again", "it was done"),
        was_cut: bool = False,
    ) -> None:
        self._access = access
        self._reached = reached
        self._what = what
        self._again = again
        self._was_cut = was_cut
        self._failures = 0
        # The first one, and the last one of each replica.
        self._first: Optional[Tuple[str, PbaError]] = None
        self._last: Deque[Tuple[str, PbaError]] = deque(maxlen=len(access.addresses))
        self._began = self._counted_from = time.monotonic()
        # Rounds of attempts that were followed by a pause, though the first pause is none.
        self._pauses = 0
        self._is_told = False
        # When a wait for an import was logged last.
        self._logged = -math.inf

    @property
    def attempts(self) -> int:
        """Attempts that failed."""
        return self._failures - self._was_cut

    @property
    def seconds(self) -> float:
        """Since the first failure."""
        return time.monotonic() - self._began

    @property
    def reason(self) -> str:
        """What each replica answered last."""
        return told(self._last)

    @property
    def advice(self) -> str:
        """What to do now that no further attempt is made, at the end of an error."""
        advice = [error.advice for _, error in self._last if isinstance(error, ConnectError) and error.advice]
        return f"; {advice[0]}" if advice else ""

    def is_of_replicas(self) -> bool:
        """Whether each of the replicas lacks what is asked for, or is at fault."""
        return all(is_of_replica(error) for _, error in self._last)

    def failed(self, address: Address, error: PbaError) -> Optional[float]:
        """Takes note of a failure.

        Returns:
            Seconds until the next replica is to be tried; none when no further attempt is of use.
        """
        now = time.monotonic()
        if not self._failures:
            self._began = self._counted_from = now
        failure = (str(address), error)
        self._first = self._first or failure
        self._failures += 1
        self._last.append(failure)
        # Whoever accepts connections and refuses or breaks off is not a mistyped address.
        foreign = isinstance(error, StreamError) and not isinstance(error, (Eof, StallError))
        self._reached = self._reached or not (foreign or isinstance(error, (ConnectError, UntrustedError)))
        replicas = len(self._access.addresses)
        if self._failures < replicas:
            return 0.0
        bound = max(self._bound(error) for _, error in self._last)
        left = bound - (now - self._counted_from)
        if left <= 0:
            return None
        # Each replica is tried once without a pause, and so is a single one that cut a stream.
        return 0.0 if self._failures % replicas else self._pause(bound, left)

    def _bound(self, error: PbaError) -> float:
        """Seconds for which a failure is worth another attempt."""
        access = self._access
        if isinstance(error, UntrustedError) or is_of_replica(error):
            return 0.0
        if is_importing(error):
            return math.inf
        if not self._reached and isinstance(error, ConnectError) and not error.comes_back:
            return access.wait_seconds
        if not self._reached and isinstance(error, StreamError):
            return min(access.retry_seconds, FOREIGN_SECONDS)
        return access.retry_seconds

    def _pause(self, bound: float, left: float) -> float:
        """Seconds until the next round: longer each time, and at least as long as the servers ask for."""
        waited_for = [error for _, error in self._last if self._bound(error) > 0]
        asked = min((error.retry_after or 0.0) if isinstance(error, RefusedError) else 0.0 for error in waited_for)
        asked = min(asked, RETRY_AFTER_SECONDS_MAX)
        importing = next((error for error in waited_for if is_importing(error)), None)
        if importing is not None:
            # An import ends, so that it counts as no failure.
            self._tell_import(str(importing.detail))
            pause = max(IMPORT_SECONDS, min(importing.retry_after or 0.0, RETRY_AFTER_SECONDS_MAX))
            self._counted_from = time.monotonic() + pause
            self._pauses = 0
            return pause
        growing = PAUSE_SECONDS * 2.0 ** min(self._pauses - 1, 30) if self._pauses else 0.0
        self._pauses += 1
        pause = min(max(min(growing, PAUSE_SECONDS_MAX), asked), left)
        if pause > 0 and not self._is_told:
            self._is_told = True
            _LOG.warning("%s: %s; trying %s for %g s", self._what, self._story(), self._again[0], bound)
        return pause

    def _story(self) -> str:
        """What began it, and what each replica answered last."""
        assert self._first is not None
        first, last = told([self._first]), self.reason
        return last if first in last else f"{first}; then {last}"

    def _tell_import(self, detail: str) -> None:
        if time.monotonic() - self._logged >= LOG_SECONDS:
            # The first is seen without any configuration: the wait may take hours.
            level = logging.WARNING if self._logged == -math.inf else logging.INFO
            _LOG.log(level, "waiting: %s", detail)
            self._logged = time.monotonic()

    def over(self) -> None:
        """Says that an attempt succeeded, if any failed before."""
        if self._failures:
            tried = counted(self.attempts + 1)
            done = f"{self._again[1]} after {self.seconds:.1f} s and {tried}"
            _LOG.info("%s: %s; %s", self._what, self._story(), done)

    def error(self) -> PbaError:
        """What each replica answered last, as one error."""
        every = of_all(self._last)
        cause = every.__cause__
        advice = self.advice
        if isinstance(every, ConnectError) and not isinstance(cause, (ssl.SSLError, UnicodeError)):
            if not (advice or every.comes_back or self._reached or self._access.wait_seconds):
                advice = "; wait_seconds=60 waits for a server that is being started"
            if advice:
                every = type(every)(f"{every}{advice}")
                every.__cause__ = cause
        return every
