"""Which module of a package uses which."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Dict, List, Set

from conftest import REPOSITORY

# Tests that a machine may leave out: where, and why. What is not run is counted here.
SKIPS = [
    ("deploy/tests/conftest.py", "... is not here: ..."),
    ("deploy/tests/conftest.py", "kubectl brings no kustomize 5 or newer; it says: ..."),
    ("deploy/tests/test_helm.py", "Helm's engine is not here: PyPI's helm-python-sdk has it"),
    ("deploy/tests/test_image_runs.py", "PBA_TEST_TRAINER_IMAGE=1 tests it: 3 GB for a minute"),
    ("deploy/tests/test_image_runs.py", "mmdebstrap reaches no mirror of Debian: ..."),
    ("deploy/tests/test_image_runs.py", "mounts need root, with the right to make namespaces"),
    ("test_addresses.py", "this machine has no IPv6"),
    ("test_memory.py", "sealed memory is Linux's"),
    ("test_openapi.py", "needs Python 3.10"),
    ("test_other_languages.py", "npm reaches no registry with the packages of client/other/node"),
    ("test_other_languages.py", "there is no npm with Node 18 or later"),
    ("test_pages.py", "PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only"),
    ("test_private.py", "what a process listens on is found in Linux's /proc"),
    ("test_private_forks.py", "PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only"),
    ("test_readme.py", "PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only"),
    ("test_real_data.py", "PBA_TEST_DATA names no folder with CIFAR-10 in Parquet (170 MB, not in the repository)"),
    ("test_recipes.py", "PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only"),
    ("test_sizing.py", "the rule is YAML, and PyYAML comes with schemathesis, which needs Python 3.10"),
    ("test_torch.py", "PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only"),
    ("test_torch_frameworks.py", "PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only"),
    ("test_torch_loops.py", "PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only"),
    ("test_torch_prefetch.py", "PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only"),
    ("test_torch_prefetch.py", "needs a GPU"),
    ("test_tune.py", "Ray and PyTorch are installed with PBA_TEST_FRAMEWORKS=1 only"),
    ("test_wheels.py", "there is no maturin in target/tools: `make test` and `make wheels` install it"),
    ("tests/browser/conftest.py", "this build has no trainer (TRAINER=0)"),
]
FOLDERS = ["client/python/src/pba_client", "client/python/tests", "benches", "benches/peers", "benches/sizing"]


def imports(folder: Path) -> Dict[str, Set[str]]:
    """The modules of a folder, and those beside it that each imports, wherever in its code."""
    modules = {path.stem: path for path in folder.glob("*.py")}
    edges: Dict[str, Set[str]] = {}
    for name, path in modules.items():
        used: Set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            # In a package, `import torch` names no module beside it.
            if "__init__" in modules and getattr(node, "level", 0) == 0:
                continue
            if isinstance(node, ast.ImportFrom):
                module = (node.module or "").split(".")[0]
                # `from . import x` names modules; `from .x import y` and `from x import y` name one.
                used.update([module] if module else [alias.name for alias in node.names])
            elif isinstance(node, ast.Import):
                used.update(alias.name.split(".")[0] for alias in node.names)
        edges[name] = {module for module in used if module in modules and module != name}
    return edges


def circles(edges: Dict[str, Set[str]]) -> List[List[str]]:
    """The groups of modules that can be reached from each other."""

    def reached(start: str) -> Set[str]:
        found: Set[str] = set()
        left = [start]
        while left:
            new = edges[left.pop()] - found
            found |= new
            left.extend(new)
        return found

    closure = {module: reached(module) for module in edges}
    found = {
        tuple(sorted(other for other in closure[module] if module in closure[other]))
        for module in edges
        if module in closure[module]
    }
    return [list(circle) for circle in sorted(found)]


def test_no_modules_use_each_other_in_a_circle() -> None:
    for folder in FOLDERS:
        edges = imports(REPOSITORY / folder)
        assert edges, f"{folder} has no modules"
        assert circles(edges) == [], f"in {folder}; move what both need into a module that uses neither"


def test_circles_are_found() -> None:
    edges = {"a": {"b", "c"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert circles(edges) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": set()}) == []


def skip_reason(call: ast.Call) -> str:
    """Why a call of pytest leaves a test out, as it stands in the code; ``...`` for what it fills in."""
    [reason, *_] = [keyword.value for keyword in call.keywords if keyword.arg == "reason"] or call.args
    parts = reason.values if isinstance(reason, ast.JoinedStr) else [reason]
    return "".join("..." if isinstance(part, ast.FormattedValue) else ast.literal_eval(part) for part in parts)


def test_what_is_not_run_is_known() -> None:
    found = []
    for folder in ["client/python/tests", "deploy/tests", "tests/browser"]:
        for path in (REPOSITORY / folder).glob("*.py"):
            name = path.name if folder.startswith("client") else f"{folder}/{path.name}"
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    if node.func.attr in ("skip", "skipif", "importorskip", "xfail"):
                        found.append((name, skip_reason(node)))
    assert sorted(found) == SKIPS, "a test that is left out is counted here, and says why in its code"
