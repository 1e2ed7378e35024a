#!/usr/bin/env bash
# Puts PyTorch and the frameworks around it into <repository>/.frameworks, for the tests of the adapter and of the
# recipes in client/python/examples (PBA_TEST_FRAMEWORKS=1).
#
# PyTorch is that of .torchvision, which server/augment/tests/fetch-torchvision.sh fetches: without the CUDA libraries,
# in place of which empty ones stand. PYTHON (python3 by default) is 3.11 or newer, and the one that .torchvision is for.
# About 600 MB are downloaded and 2 GB kept. A second run finds the first one's work. Everything happens in a folder
# beside the target, renamed at the end: an interrupted run leaves no half.
set -euo pipefail

python="${PYTHON:-python3}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
repository="$(cd "$here/../../.." && pwd)"
target="$repository/.frameworks"
torchvision="$repository/.torchvision"
requirements=(-r "$here/../requirements-frameworks.txt" -r "$here/../requirements-test.txt")
version="$(cat "$here"/../requirements-{frameworks,test}.txt "$torchvision/version") at $repository"
if [[ "$(cat "$target/version" 2>/dev/null)" == "$version" ]]; then
    echo "PyTorch and the frameworks are in .frameworks"
    exit 0
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "$("$python" --version) is too old for the frameworks of requirements-frameworks.txt; PYTHON names another" >&2
    exit 1
}

partial="$(mktemp -d "$target.partial.XXXXXX")"
trap 'rm -rf "$partial"' EXIT
echo "fetching the frameworks around PyTorch (about 600 MB, once)"
"$python" -m venv "$partial"
site="$("$partial/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
printf '%s\n' "$torchvision/site" "$repository/client/python/src" > "$site/pba.pth"
# Found beside PyTorch's own libraries by whatever process loads them.
ln -sf "$torchvision"/empty/*.so* "$torchvision/site/torch/lib/"
# pip would fetch gigabytes that nobody calls here.
sed -i -E '/^Requires-Dist: (nvidia|cuda|triton)/d' "$torchvision"/site/torch-*.dist-info/METADATA
"$partial/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir "${requirements[@]}"
"$partial/bin/python" -c 'import torch, torchdata, lightning, accelerate, transformers, ray, jax'
echo "$version" > "$partial/version"
rm -rf "$target"
mv "$partial" "$target"
trap - EXIT
echo "PyTorch and the frameworks are in .frameworks ($(du -sh "$target" | cut -f1))"
