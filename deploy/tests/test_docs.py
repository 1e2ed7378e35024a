"""The pages of deploy/: links lead somewhere, and commands work as printed."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Iterator

import pytest
from conftest import DEPLOY, REPOSITORY, binary, kubectl, run, version

PAGES = sorted(path for path in DEPLOY.rglob("*.md") if "ray" not in path.parts)


def commands(page: Path) -> Iterator[str]:
    for block in re.findall(r"^```sh\n(.+?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        yield from (line for line in block.splitlines() if line and not line.startswith("#"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_paths_exist() -> None:
    """What the page names in its own folder, or from the repository's root."""
    text = (DEPLOY / "README.md").read_text()
    named = set(re.findall(r"`((?:images|compose|kubernetes|helm|prometheus|grafana|deploy)/[\w./-]+)`?", text))
    assert len(named) > 10
    for path in named:
        base = REPOSITORY if path.startswith("deploy/") else DEPLOY
        # These are the user's.
        if path.rstrip(".") not in ("deploy/compose/tokens.toml", "deploy/compose/datasets"):
            assert (base / path).exists(), path


def test_the_secret_is_one_that_pods_look_for(tmp_path: Path) -> None:
    [line] = [line for line in commands(DEPLOY / "README.md") if "create secret" in line]
    (tmp_path / "tokens.toml").write_text("[[tokens]]\n")
    words = shlex.split(line)
    assert words[0] == "kubectl"
    made = run([kubectl(), *words[1:], "--dry-run=client", "--output=yaml"], cwd=tmp_path).stdout
    assert "tokens.toml:" in made and "name: pba-tokens" in made and "namespace: pba" in made


def test_tokens_are_made_as_it_says(tmp_path: Path) -> None:
    """Without its first line, what `pba token new` prints is a file of tokens."""
    program = binary()
    [line] = [line for line in commands(DEPLOY / "README.md") if "token new" in line]
    image = f"docker run --rm localhost/pba:{version()} "
    assert image in line
    run(["sh", "-c", "umask 022\n" + line.replace(image, shlex.quote(str(program)) + " ")], cwd=tmp_path)
    assert (tmp_path / "token.txt").stat().st_mode & 0o077 == 0, "others can read the token"
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert {"/token.txt", "/tokens.toml"} <= set(ignored)
    [strip] = [line for line in commands(DEPLOY / "README.md") if line.startswith("sed 1d")]
    run(["sh", "-c", strip], cwd=tmp_path)
    text = (tmp_path / "tokens.toml").read_text()
    secret = (tmp_path / "token.txt").read_text().splitlines()[0]
    assert text.count("[[tokens]]") == 1 and secret and secret not in text
    settings = [
        "--tokens-file",
        str(tmp_path / "tokens.toml"),
        "--listen",
        "0.0.0.0:8080",
        "--data-dir",
        str(tmp_path),
    ]
    run([str(program), "serve", "--check", *settings])


def test_pages_agree_how_long_docker_waits() -> None:
    pages = [REPOSITORY / "README.md", *PAGES]
    said = {seconds for page in pages for seconds in re.findall(r"--stop-timeout (\d+)", page.read_text())}
    [grace] = re.findall(r"stop_grace_period: (\d+)s", (DEPLOY / "compose" / "compose.yaml").read_text())
    assert said == {grace}


def test_runbooks_are_made_absolute(tmp_path: Path) -> None:
    [line] = [line for line in commands(DEPLOY / "README.md") if line.startswith("sed -i")]
    shutil.copytree(DEPLOY / "prometheus", tmp_path / "deploy" / "prometheus")
    run(["sh", "-c", line], cwd=tmp_path)
    text = (tmp_path / "deploy" / "prometheus" / "alerts.yaml").read_text()
    assert text.count("runbook_url: https://wiki.example.org/pba/runbook.md#") == text.count("- alert: ")


def test_targets_of_make_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"`make ([a-z-]+)", page.read_text()):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
