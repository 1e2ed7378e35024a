#!/usr/bin/env bash
# Puts torchvision into <repository>/.torchvision, for the test that compares with it (torchvision.rs).
#
# It comes with PyTorch of the version that the trainer links, without the CUDA libraries: these are some
# gigabytes, and nobody calls them here. PyTorch wants them loaded all the same, so empty ones stand for
# them. PYTHON (python3 by default) has pip, NumPy and Pillow, and is the one that torchvision is for. About
# 570 MB are downloaded and 1.3 GB kept. A second run finds the first one's work. Everything happens in a
# folder beside the target, renamed at the end: an interrupted run leaves no half.
set -euo pipefail

packages=(torch==2.11.0 torchvision==0.26.0 sympy==1.14.0 mpmath==1.3.0)
# What libtorch_cpu.so of the CUDA wheel links.
packages+=(nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
python="$(command -v "${PYTHON:-python3}")"
python="$(cd "$(dirname "$python")" && pwd)/$(basename "$python")"

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)"
target="$repository/.torchvision"
version="${packages[*]} for $("$python" --version)"
if [[ "$(cat "$target/version" 2>/dev/null)" == "$version" ]]; then
    echo "torchvision is in .torchvision"
    exit 0
fi
for tool in cc nm readelf; do
    command -v "$tool" > /dev/null || { echo "$tool is missing; it comes with a C compiler" >&2; exit 1; }
done

partial="$(mktemp -d "$target.partial.XXXXXX")"
trap 'rm -rf "$partial"' EXIT
echo "fetching torchvision (about 570 MB, once)"
"$python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: \
    --target "$partial/site" "${packages[@]}"

mkdir "$partial/empty"
"$python" - "$partial/site" "$partial/empty" <<'PY'
"""Builds a library for each that is missing, with all functions that are wanted of it; none does anything."""
import collections, pathlib, subprocess, sys

site, empty = map(pathlib.Path, sys.argv[1:])
libraries = [path for path in site.rglob("*.so*") if path.is_file() and not path.is_symlink()]
there, wanted, undefined, defined = {path.name for path in libraries}, set(), set(), set()


def lines(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


for path in libraries:
    wanted |= {line.split("[")[1].split("]")[0] for line in lines("readelf", "-dW", path) if "(NEEDED)" in line}
    for line in lines("nm", "-D", path):
        *_, kind, name = line.split()
        if kind == "U":
            undefined.add(name)
        elif kind not in "vw":
            defined.add(name.partition("@")[0])

# NVIDIA's libraries; each has a prefix for its functions, and most have a version for them.
prefixes = "cublas", "cudnn", "cufft", "cuFile", "curand", "cusolver", "cusparse", "nccl", "nvrtc", "nvshmem"
functions = collections.defaultdict(set)
for symbol in undefined:
    name, _, version = symbol.partition("@")
    if name.startswith(prefixes) and name not in defined:
        functions[version.strip("@")].add(name)
names = sorted(name for name in wanted - there - {"libcuda.so.1"} if name.startswith(("libcu", "libnccl", "libnv")))
for name in names:
    versions = {v: functions[v] for v in functions if v and (v == name or v.lower() in name)}
    # Which library has the functions without a version does not matter.
    without = functions.get("", set()) if name == names[0] else set()
    source = (f"int {function}(void) {{ return 1; }}\n" for function in without.union(*versions.values()))
    script = (f"{v} {{ global: {' '.join(f'{f};' for f in fs)} }};\n" for v, fs in versions.items())
    (empty / "empty.c").write_text("".join(source))
    (empty / "empty.map").write_text("".join(script))
    command = ["cc", "-w", "-fno-builtin", "-shared", "-fPIC", "-o", empty / name, empty / "empty.c"]
    command += [f"-Wl,-soname,{name}"] + ([f"-Wl,--version-script={empty / 'empty.map'}"] if versions else [])
    subprocess.run(command, check=True)
PY

cat > "$partial/python" <<EOF
#!/bin/sh
# The Python that torchvision is for, with it.
here="\$(cd "\$(dirname "\$0")" && pwd)"
PYTHONPATH="\$here/site" LD_LIBRARY_PATH="\$here/empty" exec "$python" "\$@"
EOF
chmod +x "$partial/python"
"$partial/python" -c 'import torch, torchvision'
echo "$version" > "$partial/version"
rm -rf "$target"
mv "$partial" "$target"
trap - EXIT
echo "torchvision is in .torchvision ($(du -sh "$target" | cut -f1))"
