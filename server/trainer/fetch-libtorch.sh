#!/usr/bin/env bash
# Puts libtorch into <repository>/.libtorch, where .cargo/config.toml points cargo.
#
#   fetch-libtorch.sh          what pba-trainer is built with
#   fetch-libtorch.sh --cuda   the same libtorch with its CUDA libraries into .libtorch-cuda, to run searches on an
#                              NVIDIA GPU: pba serve --libtorch .libtorch-cuda
#
# It is taken from the PyTorch wheel with pip: no GPU, no CUDA toolkit and no Python torch is
# needed, only a Python with pip (PYTHON; python3 by default). Without --cuda, the CUDA libraries of the
# wheel are left out, so the pba-trainer built here runs on the CPU, and on CUDA when LD_LIBRARY_PATH
# names the lib folder of a full PyTorch of the same version (see server/trainer/src/gpu/cuda.rs).
#
# About 550 MB are downloaded and 500 MB kept; with --cuda 2.5 GB and 3.5 GB. A second run finds the first one's work. Everything
# happens in a folder beside the target, renamed at the end: an interrupted run leaves no half.
set -euo pipefail

torch=2.11.0
python="${PYTHON:-python3}"
# Headers that the CUDA shim compiles against, and what libtorch_cpu.so of the CUDA wheel links.
companions=(nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85 nvidia-cuda-crt==13.0.88)
# The C++ libraries are the same in the wheels of all Python versions; any one will do.
wheel_python=3.12

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
target="$repository/.libtorch"
case "${1:-}" in
    "") cuda= ;;
    --cuda) cuda=1 target="$repository/.libtorch-cuda" ;;
    *) echo "usage: $0 [--cuda]" >&2; exit 2 ;;
esac
if [[ -z "$cuda" && -n "${LIBTORCH:-}" ]]; then
    echo "LIBTORCH is set to $LIBTORCH: nothing to fetch"
    exit 0
fi

ready() { [[ "$(cat "$target/version" 2>/dev/null)" == "$torch" ]]; }
if ready; then
    echo "libtorch $torch is in ${target##*/}"
    exit 0
fi
if [[ "$(uname -s)" != Linux ]]; then
    echo "libtorch is fetched for Linux only; elsewhere set LIBTORCH to a libtorch $torch" >&2
    exit 1
fi

# One run at a time: the others wait, then find the work done.
exec 9> "$target.lock"
if command -v flock > /dev/null && ! flock --nonblock 9; then
    echo "another run fetches libtorch; waiting for it"
    flock 9
fi
if ready; then exit 0; fi

partial="$(mktemp -d "$target.partial.XXXXXX")"
trap 'rm -rf "$partial"' EXIT
# Bash sees to a signal when the command that it waits for has ended, unless it waits by `wait`.
child=
trap '[[ -z "$child" ]] || kill "$child" 2> /dev/null; exit 130' INT TERM

platforms=()
for glibc in _2_28 _2_27 _2_26 _2_25 _2_24 _2_18 _2_17 2014; do
    platforms+=(--platform "manylinux${glibc}_$(uname -m)")
done

# Downloads wheels.
download() {
    "$python" -m pip download --no-cache-dir --only-binary=:all: \
        --implementation cp --python-version "$wheel_python" "${platforms[@]}" \
        --dest "$partial/wheels" "$@" &
    child=$!
    wait "$child"
    child=
}

mkdir "$partial/wheels" "$partial/tree"
if [[ -n "$cuda" ]]; then
    echo "fetching libtorch $torch with CUDA (about 2.5 GB, once)"
    download --no-deps "torch==$torch"
    # What the wheel of PyTorch asks for, as far as it comes from NVIDIA.
    mapfile -t companions < <("$python" - "$partial" <<'PY'
import pathlib, re, sys, zipfile
[wheel] = pathlib.Path(sys.argv[1], "wheels").glob("torch-*.whl")
with zipfile.ZipFile(wheel) as archive:
    [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    for line in archive.read(metadata).decode().splitlines():
        wanted = re.match(r"Requires-Dist: ((?:cuda-toolkit|nvidia-)[^;]*)", line)
        if wanted and "extra ==" not in line:
            print(wanted[1].strip())
PY
    )
    download "${companions[@]}"
else
    echo "fetching libtorch $torch (about 550 MB, once)"
    download --no-deps "torch==$torch" "${companions[@]}"
fi

echo "unpacking the libraries"
"$python" - "$partial" "$cuda" <<'PY'
import fnmatch, pathlib, shutil, sys, zipfile

WANTED = [
    "torch/include/*",
    "torch/version.py",
    "torch/lib/libc10.so",
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libgomp*",
    "torch/lib/libarm_compute*",
    "torch/lib/libopenblas*",
    "torch.libs/*",
    "nvidia/*/include/*",
    "nvidia/*/lib/libcudart.so.*",
    "nvidia/*/lib/libcupti.so.*",
]
CUDA = ["torch/version.py", "torch/lib/lib*.so*", "torch.libs/*", "nvidia/*/lib/lib*.so*"]
# Needs Python.
NOT_WANTED = "torch/lib/libtorch_python.so"
if sys.argv[2]:
    WANTED = CUDA
partial = pathlib.Path(sys.argv[1])
for wheel in sorted((partial / "wheels").glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if entry.is_dir() or not any(fnmatch.fnmatch(entry.filename, glob) for glob in WANTED):
                continue
            if entry.filename == NOT_WANTED:
                continue
            path = partial / "tree" / entry.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, open(path, "wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
PY

if [[ -z "$cuda" ]]; then
    # torch-sys links -ltorch, which in the wheel is an empty library that needs libtorch_cuda.so.
    # A linker script of the same name stands for it.
    echo 'INPUT(libtorch_cpu.so)' > "$partial/tree/torch/lib/libtorch.so"
    echo "$torch" > "$partial/tree/torch/build-version"
fi
echo "$torch" > "$partial/tree/version"

rm -rf "$target"
mv "$partial/tree" "$target"
echo "libtorch $torch is in ${target##*/} ($(du -sh "$target" | cut -f1))"
