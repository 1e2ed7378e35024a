"""A search on Ray Tune, as deploy/ray/pba_tune.py drives it: what it logs is imported as a schedule, and what is exported of
that is replayed by Ray, epoch by epoch."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
from conftest import REPOSITORY, Server, binary

DRIVER = REPOSITORY / "deploy" / "ray" / "pba_tune.py"
EPOCHS, INTERVAL, POPULATION = 3, 1, 4
RUN_SECONDS = 300

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("ray", "torch")),
    reason="Ray and PyTorch are installed with PBA_TEST_FRAMEWORKS=1 only",
)


@pytest.fixture(scope="module")
def driver() -> Any:
    """The driver as a module."""
    spec = importlib.util.spec_from_file_location("pba_tune", DRIVER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Ray's own warnings are none of ours.
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


def run(server: Server, folder: Path, *options: str) -> str:
    """What the driver prints, in a folder."""
    environment = {**os.environ, "PBA_BIN": str(binary()), "CUDA_VISIBLE_DEVICES": "", "RAY_USAGE_STATS_ENABLED": "0"}
    arguments = ["--url", server.url, "--epochs", str(EPOCHS), "--train-size", "320", "--val-size", "320", "--cpus", "0.5"]
    command = [sys.executable, str(DRIVER), *arguments, *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=RUN_SECONDS)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def pba(server: Server, *arguments: str, code: int = 0) -> str:
    done = subprocess.run([str(binary()), *arguments, "--server", server.url], capture_output=True, text=True)
    assert done.returncode == code, done
    return done.stdout


def policies_of(document: Dict[str, Any]) -> List[List[int]]:
    """The policy of each epoch of a ``pba-schedule/1`` document."""
    found = []
    for segment in document["segments"]:
        found += [[level for slot in segment["policy"] for level in slot]] * segment["epochs"]
    return found


def recorded(file: Path) -> Dict[Tuple[int, int], List[int]]:
    """The policy with which each trial trained each epoch, 0-based, as it reported it itself."""
    results = [json.loads(line) for line in file.read_text().splitlines()]
    found = {
        (int(result["trial"].rpartition("_")[2]), result["epoch"] - 1): [int(level) for level in result["policy"].split(",")]
        for result in results
    }
    assert len(found) == len(results)
    return found


def test_a_search_is_imported_and_replayed(server: Server, tmp_path: Path) -> None:
    search = ["--population", str(POPULATION), "--interval", str(INTERVAL), "--experiment", "search"]
    said = run(server, tmp_path, *search, "--name", "mine", "--record", "search.jsonl")
    folder = tmp_path / "ray-results" / "search"
    assert f"Tune's logs: {folder}" in said
    lines = [json.loads(line) for line in (folder / "pbt_global.txt").read_text().splitlines()]
    # One member of four copies another after each epoch but the last, and in the epoch that the log says.
    assert [(line[2], line[3]) for line in lines] == [(epoch, epoch) for epoch in range(1, EPOCHS)]
    assert all(line[4]["policy"] != line[5]["policy"] for line in lines)

    [best] = [line.split()[2].rstrip(",") for line in said.splitlines() if line.startswith("best trial: ")]
    mine = json.loads(pba(server, "schedule", "export", "mine"))
    assert mine["epochs"] == EPOCHS
    # Of the population's log alone: each trial of it has a schedule, and the best has the one that was imported.
    known = {tag for line in lines for tag in line[:2]}
    trained = recorded(tmp_path / "search.jsonl")
    assert set(trained) == {(trial, epoch) for trial in range(POPULATION) for epoch in range(EPOCHS)}
    for tag in known:
        command = ["schedule", "import", str(folder), "--trial", tag, "--name", f"trial-{tag}", "--epochs", str(EPOCHS)]
        pba(server, *command)
        # By other code: what a trial trained with before it copied another, that one trained with.
        member, lineage = tag, []
        for epoch in reversed(range(EPOCHS)):
            lineage.append(trained[int(member), epoch])
            member = next((line[1] for line in lines if line[0] == member and line[3] == epoch), member)
        assert policies_of(exported(server, tag)) == lineage[::-1], tag
    number = str(int(best.rpartition("_")[2]))
    if number in known:
        assert "are the same" in pba(server, "schedule", "diff", "mine", f"trial-{number}")
    # A schedule that changes in each epoch is the better test of a replay.
    changing = max(known, key=lambda tag: len({*map(tuple, policies_of(exported(server, tag)))}))
    assert len({*map(tuple, policies_of(exported(server, changing)))}) > 1

    log = tmp_path / "replay.txt"
    pba(server, "schedule", "export", f"trial-{changing}", "--as", "ray-tune", "--out", str(log))
    run(server, tmp_path, "--experiment", "replayed", "--replay", str(log), "--record", "replay.jsonl")
    replayed = recorded(tmp_path / "replay.jsonl")
    assert [replayed[0, epoch] for epoch in range(EPOCHS)] == policies_of(exported(server, changing))
    assert len(replayed) == EPOCHS


def exported(server: Server, tag: str) -> Dict[str, Any]:
    return json.loads(pba(server, "schedule", "export", f"trial-{tag}"))


def test_explore_is_that_of_the_server(driver: Any) -> None:
    """The words and the levels that schedules/src/explore.rs has pinned."""
    start = [place // 2 % (11 if place % 2 == 0 else 10) for place in range(60)]
    expected = [
        *[0, 0, 6, 2, 4, 0, 8, 3, 4, 5, 8, 2, 1, 6, 9, 7, 9, 9, 9, 0, 3, 0, 0, 3, 0, 1, 3, 0, 5, 1],
        *[5, 7, 5, 8, 8, 7, 10, 2, 7, 9, 10, 0, 10, 1, 0, 1, 0, 8, 1, 4, 3, 3, 8, 8, 2, 7, 6, 7, 9, 8],
    ]
    assert driver.explored(start, 0.2, driver.words(1 << 40 | 7, 3, 5)) == expected
    explore = driver.Explore(7, 0.2)
    config = {"policy": [0] * 60, "lr": 0.1}
    children = [explore(config) for _ in range(3)]
    assert config["policy"] == [0] * 60 and all(child["lr"] == 0.1 for child in children)
    assert len({tuple(child["policy"]) for child in children}) == 3
    assert [driver.Explore(7, 0.2)(config) for _ in range(2)] == [children[0]] * 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--population", "1"], "--population is 1; a population has 2 members or more"),
        (["--epochs", "0"], "--epochs is 0; allowed are 1 and more"),
        (["--quantile", "0.6"], "--quantile is 0.6; allowed are 0 to 0.5"),
        (["--model", "wrn-41-2"], "--model 'wrn-41-2' is not a model; allowed are tiny and wrn-D-K"),
        (["--replay", "x", "--name", "y"], "there is none to import as --name"),
        (["--name", "a/b"], "--name 'a/b': allowed are 1 to 64 letters, digits,"),
        (["--name", "identity"], "--name 'identity': allowed are"),
        (["--name", "mine", "--storage", "s3://bucket/folder"], "--storage is s3://bucket/folder"),
        (["--url", "ftp://h"], "--url: 'ftp://h' is not a server's URL"),
        (["--url", ""], "--url: '' is not a server's URL"),
    ],
)
def test_wrong_options_are_refused(
    driver: Any, options: List[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(driver, options, says, monkeypatch, capsys)


def refuse(
    driver: Any, options: List[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(driver, options, monkeypatch)
    assert ended.value.code == 2
    # Argparse breaks no lines of an error.
    error = capsys.readouterr().err
    assert says in error, error


def parsed(driver: Any, options: List[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "argv", ["pba_tune.py", *options])
    return driver.options()


def test_an_experiment_begins_in_a_folder_of_its_own(
    driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--storage", str(tmp_path), "--experiment", "mine"]
    assert parsed(driver, options, monkeypatch).experiment == "mine"
    (tmp_path / "mine").mkdir()
    assert parsed(driver, options, monkeypatch).experiment == "mine", "nothing is in there"
    (tmp_path / "mine" / "pbt_global.txt").touch()
    refuse(driver, options, f"{tmp_path / 'mine'} exists already; choose another --experiment", monkeypatch, capsys)
    parsed(driver, [*options[:2], "--experiment", "other"], monkeypatch)


def test_a_replay_goes_on_to_the_last_change(
    driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "replay.txt"

    def line(target: str, clone: str, epoch: int, before: int, after: int) -> str:
        configs = [{"policy": [first] + [0] * 59} for first in (before, after)]
        return json.dumps([target, clone, epoch, epoch, *configs]) + "\n"

    def options(epochs: int) -> List[str]:
        return ["--replay", str(log), "--epochs", str(epochs), "--storage", str(tmp_path)]

    for text, last in [
        (line("0", "0", 2, 0, 1) + line("0", "0", 5, 1, 2), 5),
        # What a schedule of one policy is exported as changes nothing.
        (line("0", "0", 199, 3, 3), 0),
        # Of two changes after one epoch, the second comes after the next.
        (line("0", "1", 4, 0, 1) + line("2", "0", 4, 1, 2), 5),
        # A line that does not lead to the last one is none of the replay's.
        (line("4", "5", 9, 0, 1) + line("2", "0", 3, 0, 2), 3),
    ]:
        log.write_text(text)
        assert parsed(driver, options(last + 1), monkeypatch).epochs == last + 1
        if last:
            says = f"changes its policy for the last time after {last} epochs; allowed are {last + 1} and more"
            refuse(driver, options(last), says, monkeypatch, capsys)
    for text in ("", "nonsense", "[1, 2]\n", "['0', '0', 1, 1, [], []]\n", '["0", "0", 1, 1, {}, {}]\n'):
        log.write_text(text)
        refuse(driver, options(9), "is not a log as `pba schedule export --as ray-tune` writes it", monkeypatch, capsys)
    log.unlink()
    refuse(driver, options(9), "replay.txt is not a log", monkeypatch, capsys)


def test_servers_are_those_that_the_client_takes(
    driver: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PBA_SERVER", raising=False)
    assert parsed(driver, [], monkeypatch).urls == ["http://127.0.0.1:8080"]
    monkeypatch.setenv("PBA_SERVER", "")
    assert parsed(driver, [], monkeypatch).urls == ["http://127.0.0.1:8080"]
    monkeypatch.setenv("PBA_SERVER", "a:1, https://b/c")
    assert parsed(driver, [], monkeypatch).urls == ["http://a:1", "https://b:443/c"]
    assert parsed(driver, ["--url", "h"], monkeypatch).urls == ["http://h:80"]
    monkeypatch.setenv("PBA_SERVER", "http://a:1,,b")
    refuse(driver, [], "PBA_SERVER in the environment: '' is not a server's URL", monkeypatch, capsys)


def test_a_name_is_looked_at_before_anything_is_started(
    driver: Any, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--url", server.url, "--storage", str(tmp_path), "--name"]
    program = str(binary())
    for found in (str(tmp_path / "nothing"), ""):
        monkeypatch.setenv("PBA_BIN", found)
        monkeypatch.setenv("PATH", str(tmp_path))
        says = "PBA_BIN, which is not a program" if found else "`pba`, which is not on the PATH"
        refuse(driver, [*options, "mine"], f"--name needs {says}", monkeypatch, capsys)
    monkeypatch.setenv("PBA_BIN", program)
    assert parsed(driver, [*options, "new"], monkeypatch).name == "new"

    class Started(Exception):
        pass

    def connect(address: Any) -> None:
        raise Started

    monkeypatch.setattr(driver, "connect", connect)
    for name in ("svhn-pba", "trivial-augment-wide"):
        monkeypatch.setattr(sys, "argv", ["pba_tune.py", *options, name])
        assert driver.main() == 2
        assert f"--name {name}: there is a schedule of this name already" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["pba_tune.py", *options, "new"])
    with pytest.raises(Started):
        driver.main()


def test_wide_residual_networks_have_their_size(driver: Any) -> None:
    count = sum(values.numel() for values in driver.wide_residual(40, 2, 10).parameters())
    # 2.2 million, as in the paper's table.
    assert round(count / 1e6, 1) == 2.2
