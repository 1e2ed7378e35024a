"""Runs one peer in its own environment; `run.py` starts it and speaks to it.

    python worker.py MODULE FILE SIDE PADDING CUTOUT RED,GREEN,BLUE

Answers each line of its standard input with a line of JSON, as `pba-engine-peer` does:
`measure SECONDS` and `apply OP LEVEL SIGN COLUMN ROW PICTURE`. A peer of which whole pipelines run
in other processes gives their processor time as well.
"""

import importlib
import inspect
import json
import os
import pathlib
import sys

# Before any library starts threads: every peer has one.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import numpy as np  # noqa: E402

from measured import Measured  # noqa: E402


def pictures_of(file, side):
    """The pictures of a file, read into memory as a training program would hold them; of a folder,
    its files, still encoded."""
    if os.path.isdir(file):
        return [path.read_bytes() for path in sorted(pathlib.Path(file).iterdir())]
    return np.fromfile(file, np.uint8).reshape(-1, side, side, 3)


def main():
    module, file, side, padding, cutout, mean = sys.argv[1:]
    peer = importlib.import_module(module.partition(":")[0])
    arguments = (pictures_of(file, int(side)), int(padding), int(cutout), [int(c) for c in mean.split(",")])
    # A module with more than one way takes the rest of the name: `torch_loader:opencv,2`.
    if not hasattr(peer, "start"):
        measured = Measured(peer.Augment(*arguments))
    elif "file" in inspect.signature(peer.start).parameters:
        measured = peer.start(module.partition(":")[2], arguments, file=file)
    else:
        measured = peer.start(module.partition(":")[2], arguments)
    # What a library prints must not get between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps({"versions": peer.versions()}), file=answers, flush=True)
    for line in sys.stdin:
        request, *rest = line.split()
        if request == "measure":
            answer = measured.measure(float(rest[0]))
        elif request == "apply":
            answer = measured.apply(*rest)
        else:
            raise SystemExit(f"unknown request {line!r}")
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
