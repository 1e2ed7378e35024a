"""How long a client tries again, what it says meanwhile, and that it can be interrupted."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, Iterator, List, Optional, Tuple

import polars
import pyarrow as pa
import pytest
from conftest import CuttingProxy, Server
from script import Script, answer, full, refusal, stream

from pba_client import Client, CutError, Loader, PbaError, RefusedError, StreamError, UnreachableError, _outage
from pba_client._address import parse_url
from pba_client._errors import ChangedError
from pba_client._http import Access, ConnectError, Eof, UntrustedError
from pba_client._outage import Outage, may_pass

REQUEST = {"split": "test", "shard": (0, 50), "batch_size": 7, "schedule": "cifar10-pba"}
DOCUMENT = answer(b'{"datasets": []}', kind="application/json")
FULL = RefusedError("full (429)", status=429, detail="full")


class Clock:
    """The time of the code under test, which passes only in pauses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(_outage, "time", SimpleNamespace(monotonic=lambda: self.now))


def outage(urls: List[str], reached: bool = True, was_cut: bool = False, **options: float) -> Outage:
    seconds = {"retry_seconds": 600.0, "wait_seconds": 0.0, **options}
    access = Access(list(map(parse_url, urls)), None, None, 120.0, prefetch=None, shared_memory=True, **seconds)
    return Outage(access, reached, "it failed", ("again", "it was done"), was_cut)


def pauses(clock: Clock, failing: Outage, *errors: PbaError) -> List[float]:
    """The pauses until it is given up, where replicas give these errors in turn."""
    found: List[float] = []
    for number in range(10_000):
        at = number % len(errors)
        pause = failing.failed(failing._access.addresses[at], errors[at])
        if pause is None:
            return found
        found.append(pause)
        clock.now += pause
    raise AssertionError("it is never given up")


def test_pauses_grow_and_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    found = pauses(clock, outage(["a"]), FULL)
    assert found[:9] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0]
    assert set(found[8:-1]) == {10.0} and sum(found) == pytest.approx(600) and 0 < found[-1] <= 10
    assert pauses(clock, outage(["a"], retry_seconds=0), FULL) == []
    assert sum(pauses(clock, outage(["a"], retry_seconds=24 * 3600), FULL)) == pytest.approx(24 * 3600)
    # Each replica is tried once, without a pause between them.
    assert pauses(clock, outage(["a", "b", "c"], retry_seconds=0), FULL, FULL, FULL) == [0.0, 0.0]
    assert pauses(clock, outage(["a", "b"]), FULL, FULL)[:6] == [0.0, 0.0, 0.0, 0.1, 0.0, 0.2]


def test_a_server_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def busy(seconds: Optional[float]) -> RefusedError:
        return RefusedError("full (429)", status=429, detail="full", retry_after=seconds)

    assert pauses(clock, outage(["a"]), busy(3))[:3] == [3, 3, 3]
    assert pauses(clock, outage(["a"]), busy(9999))[0] == 60
    # Of several, the one that is ready first is asked first; what no attempt helps says nothing.
    assert pauses(clock, outage(["a", "b"]), busy(30), busy(7))[1] == 7
    assert pauses(clock, outage(["a", "b"]), busy(30), Eof("cut"))[:4] == [0, 0, 0, 0.1]
    assert pauses(clock, outage(["a", "b"]), busy(30), UntrustedError("who?"))[1] == 30


def test_what_no_attempt_helps_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    missing = RefusedError("none (404)", status=404, detail="none")
    for error in (missing, UntrustedError("who?")):
        assert pauses(clock, outage(["a"]), error) == []
        assert pauses(clock, outage(["a", "b"]), error, missing) == [0.0]
        # Beside one that may come back it is tried as long as that.
        assert sum(pauses(clock, outage(["a", "b"]), error, FULL)) == pytest.approx(600)
    for error in (ChangedError("other"), RefusedError("wrong (400)", status=400), ValueError("x"), KeyboardInterrupt()):
        assert not may_pass(error)


def test_the_first_contact_is_less_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is there, or somebody else: the address may be mistyped."""
    clock = Clock(monkeypatch)
    away, foreign = ConnectError("away"), StreamError("a page")
    assert pauses(clock, outage(["a"], False), away) == []
    assert sum(pauses(clock, outage(["a"], False, wait_seconds=70), away)) == pytest.approx(70)
    assert sum(pauses(clock, outage(["a"], False), foreign)) == pytest.approx(10)
    assert sum(pauses(clock, outage(["a"], False, retry_seconds=3), foreign)) == pytest.approx(3)
    # Who was reached, or only accepts connections, is no mistake.
    for error in (away, foreign):
        assert sum(pauses(clock, outage(["a"]), error)) == pytest.approx(600)
    for error in (Eof("cut"), UnreachableError("it did not answer"), FULL):
        assert sum(pauses(clock, outage(["a"], False), error)) == pytest.approx(600)
        failing = outage(["a"], False)
        failing.failed(failing._access.addresses[0], error)
        assert sum(pauses(clock, failing, away)) == pytest.approx(600)


def test_an_import_takes_none_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    importing = RefusedError("wait (503)", status=503, detail="wait", kind="urn:pba:problem:importing", retry_after=20)
    failing = outage(["a"], retry_seconds=30)
    for _ in range(100):
        pause = failing.failed(failing._access.addresses[0], importing)
        assert pause == 20
        clock.now += pause
    assert sum(pauses(clock, failing, FULL)) == pytest.approx(30)


def said(caplog: pytest.LogCaptureFixture) -> List[Tuple[str, str]]:
    found = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "pba_client"]
    caplog.clear()
    return found


def test_an_outage_is_said_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """And that it is over, to those who want to know."""
    caplog.set_level("INFO", "pba_client")
    expected = Client(server.url).epoch("shapes", 9, **REQUEST).read_all()
    assert said(caplog) == []
    with CuttingProxy(server.address, [100_000, 0, 0, 0]) as proxy:
        epoch = Client(proxy.url, prefetch=0, retry_seconds=77).epoch("shapes", 9, **REQUEST)
        assert epoch.read_all().equals(expected)
        assert epoch.resumes == 4
    (level, warning), (over_level, over) = said(caplog)
    assert (level, over_level) == ("WARNING", "INFO")
    cut = "the stream was cut after 4 of 6 batches: " + re.escape(proxy.url)
    last = f"; then {re.escape(proxy.url)} did not answer: the connection ended"
    assert re.fullmatch(f"{cut}: .*{last}; trying to continue it for 77 s", warning)
    assert re.fullmatch(rf"{cut}: .*{last}; continued after \d+\.\d s and 4 attempts", over)


def test_a_cut_that_is_mended_at_once_is_no_warning(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pba_client")
    with CuttingProxy(server.address, [100_000]) as proxy:
        epoch = Client(proxy.url, prefetch=0).epoch("shapes", 9, **REQUEST)
        assert len(list(epoch)) == 6 and epoch.resumes == 1
    ((level, message),) = said(caplog)
    assert level == "INFO" and message.endswith(" s and 1 attempt")


def test_what_cannot_be_opened_or_read_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pba_client")
    with Script(*[full()] * 3, answer(stream(1, 1)), *[full()] * 3, DOCUMENT) as script:
        client = Client(script.url)
        for ask, what, done in [
            (lambda: client.epoch("d", 0), "epoch 0 of 'd' could not be opened", "opened"),
            (client.datasets, "/v1/datasets could not be read", "read"),
        ]:
            ask()
            (level, warning), (over_level, over) = said(caplog)
            assert (level, over_level) == ("WARNING", "INFO")
            reason = f"{what}: {script.url}: all streams are taken"
            assert warning == f"{reason}; trying again for 600 s"
            assert re.fullmatch(re.escape(reason) + rf"; {done} after \d+\.\d s and 4 attempts", over)


@contextlib.contextmanager
def absence(server: Server) -> Iterator[Tuple[str, Callable[[], None]]]:
    """An address where nobody listens until a function is called."""
    with contextlib.ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]

        def begin() -> None:
            listener = socket.create_server(("127.0.0.1", port))
            stack.enter_context(CuttingProxy(server.address, [], listener=listener))

        yield f"http://127.0.0.1:{port}", begin


class Reaction(logging.Handler):
    """Does something when the first warning is logged."""

    def __init__(self, react: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._react: Optional[Callable[[], None]] = react

    def emit(self, record: logging.LogRecord) -> None:
        react, self._react = self._react, None
        if react is not None:
            react()

    def __enter__(self) -> None:
        logging.getLogger("pba_client").addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("pba_client").removeHandler(self)


@pytest.mark.parametrize("how", ["document", "epoch", "loader"])
def test_a_server_that_is_being_started_is_waited_for(
    server: Server, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    with absence(server) as (url, begin), Reaction(begin):
        if how == "document":
            assert Client(url, wait_seconds=60).datasets()[0]["name"] == "shapes"
        elif how == "epoch":
            assert len(list(Client(url, wait_seconds=60).epoch("shapes", 9, **REQUEST))) == 6
        else:
            assert len(Loader(url, "shapes", batch_size=1000, wait_seconds=60)) == 10
    ((level, warning),) = said(caplog)
    start = f"Start one with: pba serve --listen {url[len('http://') :]}"
    assert level == "WARNING" and warning.endswith(f"{start}; trying again for 60 s"), warning


def test_a_server_that_does_not_come_is_told_of(server: Server) -> None:
    with absence(server) as (url, _):
        for client in (Client(url, wait_seconds=0.2), Client([url, url], wait_seconds=0.2)):
            for ask in (client.datasets, lambda: client.epoch("shapes", 0)):
                with pytest.raises(UnreachableError) as failure:
                    ask()
                assert "Start one with: pba serve" in str(failure.value)
                assert "wait_seconds" not in str(failure.value), "it was used"


def test_a_server_that_went_away_is_waited_for_by_all(server: Server) -> None:
    """Whatever is asked for; once it was reached, that is."""
    client = Client(server.url)
    assert client.datasets()
    with absence(server) as (url, begin), Reaction(begin):
        client._access.addresses = Client(url)._access.addresses
        assert client.dataset("shapes")["name"] == "shapes"
    with absence(server) as (url, begin), Reaction(begin):
        client._access.addresses = Client(url)._access.addresses
        assert len(list(client.epoch("shapes", 9, **REQUEST))) == 6


def test_a_loader_outlasts_a_busy_server(server: Server) -> None:
    described = Client(server.url)._get("/v1/datasets/shapes")
    with Script(full(), full(), b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", full()) as script:
        with pytest.raises(RefusedError, match="no more"):
            script._answers += [answer(json.dumps(described).encode(), kind="application/json")]
            script._answers += [full(), refusal(400, "no more")]
            Loader(script.url, "shapes")
        assert len(script.requests) == 8


# PBA_TEST_OUTAGE_SECONDS=180 waits for three minutes.
AWAY_SECONDS = float(os.environ.get("PBA_TEST_OUTAGE_SECONDS", "8"))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_server_that_is_killed_and_comes_back_costs_nothing(
    tmp_path: Path, prefetch: int, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of an epoch: no sample is lost or repeated, and one warning tells of it."""
    caplog.set_level("INFO", "pba_client")
    request = {"schedule": "cifar10-pba", "epochs": 200, "seed": 5}
    first = Server(tmp_path)
    expected = Client(first.url).epoch("shapes", 7, **request).read_all()
    servers, begun, said_before = [first], [], said(caplog)
    assert said_before == []

    def come_back() -> None:
        begun.append(time.monotonic())
        servers.append(Server(tmp_path, wait=False, listen=first.url[len("http://") :]))

    again = threading.Timer(AWAY_SECONDS, come_back)
    try:
        taken = []
        epoch = Loader(first.url, "shapes", prefetch=prefetch, **request).epoch(7)
        for batch in epoch:
            taken.append(batch.record_batch)
            if batch.number == 10:
                first.kill()
                killed = time.monotonic()
                again.start()
        ended = time.monotonic()
        again.join()
    finally:
        again.cancel()
        for server in servers:
            server.kill()
    found = pa.Table.from_batches(taken)
    assert sorted(found["index"].to_pylist()) == list(range(10_000))
    assert found.equals(expected) and len(taken) == len(epoch) == 79
    assert ended > begun[0] >= killed + AWAY_SECONDS and epoch.resumes > 1
    (level, warning), (over_level, over) = told = said(caplog)
    print(*told, f"{ended - killed:.1f} s from the kill to the epoch's end", sep="\n")
    assert (level, over_level) == ("WARNING", "INFO")
    url = re.escape(first.url)
    cut = rf"the stream was cut after \d+ of 79 batches: {url}: "
    assert re.match(cut, warning) and warning.endswith("; trying to continue it for 600 s")
    lasted = re.fullmatch(rf"{cut}.*; continued after (\d+\.\d) s and {epoch.resumes} attempts", over)
    assert lasted and AWAY_SECONDS - 1 < float(lasted[1]) < AWAY_SECONDS + 30


@pytest.mark.parametrize("how", ["document", "open", "read", "read ahead"])
def test_ctrl_c_ends_a_pause(how: str) -> None:
    """In the main thread, as in a trainer; also where polars has installed a handler of signals of its own."""
    polars.DataFrame({"any": [1]})
    batches = answer(stream(4, 4))[:-400]

    ended = threading.Event()

    def interrupt() -> None:
        # Once it waits. What a handler raises while something is logged is caught in logging, on a busy machine, too.
        while not ended.wait(0.3):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with contextlib.ExitStack() as stack:
        script = stack.enter_context(Script(*([batches] if how.startswith("read") else []), full("60")))
        client = Client(script.url, prefetch=2 if how == "read ahead" else 0)
        stack.enter_context(Reaction(thread.start))
        with pytest.raises(KeyboardInterrupt):
            try:
                if how == "document":
                    client.datasets()
                else:
                    with client.epoch("d", 0) as epoch:
                        list(epoch)
            finally:
                ended.set()
        thread.join()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_close_ends_a_pause(prefetch: int) -> None:
    batches = answer(stream(4, 4))[:-400]
    with Script(batches, full("60"), answer(stream(2, 2, first=2))) as script:
        epoch = Client(script.url, prefetch=prefetch).epoch("d", 0)
        failures: List[Exception] = []

        def loop() -> None:
            try:
                list(epoch)
            except Exception as error:
                failures.append(error)

        begun = threading.Event()
        thread = threading.Thread(target=loop)
        with Reaction(begun.set):
            thread.start()
            assert begun.wait(20)
        epoch.close()
        thread.join(20)
        assert not thread.is_alive() and len(failures) == 1 and len(script.requests) == 2


def test_a_cut_says_how_often_and_how_long_it_was_tried() -> None:
    batches = answer(stream(4, 4))[:-400]
    with Script(batches, *[full()] * 99) as script:
        epoch = Client(script.url, retry_seconds=0.3, prefetch=0).epoch("d", 0)
        with pytest.raises(CutError) as cut:
            list(epoch)
    error = cut.value
    # The last connection only wakes the script.
    assert error.attempts == len(script.requests) - 2 and error.seconds is not None and error.seconds >= 0.3
    tried = f"{error.attempts} attempts to continue it within {error.seconds:.1f} s failed"
    assert str(error) == f"the stream was cut after 2 of 4 batches, and {tried}: {script.url}: all streams are taken"
    with Script(batches) as script:
        with pytest.raises(CutError, match="after 2 of 4 batches, and nothing else was tried: .*ended") as cut:
            list(Client(script.url, retry_seconds=0, prefetch=0).epoch("d", 0))
    assert cut.value.attempts == 0
