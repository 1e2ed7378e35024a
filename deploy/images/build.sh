#!/usr/bin/env bash
# Builds the images with buildah, podman or docker, whichever is there, from anywhere:
#
#   deploy/images/build.sh [pba|trainer]... [--prebuilt FOLDER] [-- ARGUMENTS]
#
# Without names, both. They are tagged localhost/pba:VERSION and localhost/pba-trainer:VERSION.
# --prebuilt takes pba, and pba-trainer, out of a folder instead of compiling them: target/release, say. Beside them
# the trainer's image then takes libtorch from .libtorch-cuda if that is there, else from .libtorch.
# What follows -- goes to the builder: --build-arg BASE=..., say.
set -euo pipefail

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$repository"
prebuilt=""
images=()
while [ $# -gt 0 ]; do
    case "$1" in
        pba | trainer) images+=("$1") ;;
        --prebuilt)
            prebuilt="${2:?--prebuilt wants a folder with pba, as target/release}"
            shift
            ;;
        --)
            shift
            break
            ;;
        *)
            echo "$1 is neither pba, trainer, --prebuilt FOLDER nor --; arguments of the builder follow --" >&2
            exit 2
            ;;
    esac
    shift
done
[ ${#images[@]} -gt 0 ] || images=(pba trainer)

builder="${BUILDER_PROGRAM:-}"
for program in buildah podman docker; do
    [ -n "$builder" ] || ! command -v "$program" > /dev/null || builder="$program"
done
[ -n "$builder" ] || { echo "none of buildah, podman and docker is here" >&2; exit 1; }
build=("$builder" build)
# The OCI format has no health check.
[ "$builder" = docker ] || build+=(--format docker)

version="$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)"
revision="$(git rev-parse HEAD 2> /dev/null || echo unknown)"
created="$(git show -s --format=%cI 2> /dev/null || date -u +%Y-%m-%dT%H:%M:%SZ)"

# What a builder may see of what was built before is in one folder.
staged=target/images
# Names of functions stay, for the backtrace of a panic; lines would be half of the binary.
stage() {
    if [ ! -f "$prebuilt/$1" ]; then
        echo "--prebuilt $prebuilt: there is no $1 in it; a folder such as target/release has it" >&2
        exit 1
    fi
    cp "$prebuilt/$1" "$staged/"
    if command -v strip > /dev/null; then strip --strip-debug "$staged/$1"; fi
}
if [ -n "$prebuilt" ]; then
    rm -rf "$staged"
    mkdir -p "$staged"
    trap 'rm -rf "$staged"' EXIT
    build+=(--build-arg BINARIES=prebuilt)
    stage pba
fi

for image in "${images[@]}"; do
    command=("${build[@]}")
    name=pba
    if [ "$image" = trainer ]; then
        name=pba-trainer
        if [ -n "$prebuilt" ]; then
            stage pba-trainer
            libtorch=.libtorch-cuda
            [ -d "$libtorch" ] || libtorch=.libtorch
            if [ ! -d "$libtorch" ]; then
                echo "there is no .libtorch: server/trainer/fetch-libtorch.sh fetches it" >&2
                exit 1
            fi
            mkdir "$staged/libtorch"
            # Links where possible: it is large. Headers are of no use in an image.
            source="$(cd "$libtorch" && pwd -P)"
            for part in torch/lib torch/version.py torch/build-version torch.libs nvidia version; do
                [ -e "$source/$part" ] || continue
                mkdir -p "$staged/libtorch/$(dirname "$part")"
                cp -al "$source/$part" "$staged/libtorch/$part" 2> /dev/null || {
                    rm -rf "${staged:?}/libtorch/$part"
                    cp -a "$source/$part" "$staged/libtorch/$part"
                }
            done
            find "$staged/libtorch" -type d -name include -prune -exec rm -rf {} +
            command+=(--build-arg LIBTORCH=prebuilt)
        fi
    fi
    "${command[@]}" \
        --file "deploy/images/$image.Containerfile" \
        --tag "localhost/$name:$version" \
        --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "CREATED=$created" \
        "$@" .
    echo "built localhost/$name:$version"
done
