#!/usr/bin/env python3
"""How many cores, replicas and Gbit/s a job needs, of the rates in `rates.json`.

    python3 benches/sizing/size.py --work jpeg-224 --images 10000 [--cores 4] [--link 10] [--busy 0.7] [--spare 1]
    python3 benches/sizing/size.py --table     # the table of README.md
"""

import argparse
import math
from typing import NamedTuple

from rates import Work, works

# Jobs that README.md shows: images per second of all GPUs together, and the work.
SHOWN = [
    (20_000, "pixels-32"), (200_000, "pixels-32"), (2_500, "pixels-224"), (2_500, "jpeg-224"), (20_000, "jpeg-224"),
    (20_000, "jpeg-224-cached"), (20_000, "pixels-224"),
]


class Size(NamedTuple):
    """What a job needs.

    Attributes:
        cores: that are busy.
        gigabits: per second, from all replicas together.
        by_cores: replicas that have as many cores.
        by_link: replicas that have such links.
        replicas: the larger of both, and the spare ones.
    """

    cores: float
    gigabits: float
    by_cores: int
    by_link: int
    replicas: int


def size(work: Work, images: float, cores: float = 4, link: float = 10, busy: float = 0.7, spare: int = 1) -> Size:
    """Args:
        images: per second.
        cores: of a replica.
        link: of a replica, in Gbit/s.
        busy: share of cores and link that is used on average; the rest is for what does not come evenly.
        spare: replicas that may be lost while nobody waits.
    """
    needed = images / work.images_per_core_second
    gigabits = images * work.bytes_per_image * 8 / 1e9
    by_cores, by_link = math.ceil(needed / (cores * busy)), math.ceil(gigabits / (link * busy))
    return Size(needed, gigabits, by_cores, by_link, max(by_cores, by_link) + spare)


def row(images: float, name: str, **given: float) -> str:
    found = size(works()[name], images, **given)
    bound = "cores" if found.by_cores >= found.by_link else "link"
    return f"| {images:,.0f} | `{name}` | {found.cores:.2f} | {found.gigabits:.2f} | {found.replicas} | {bound} |"


HEAD = "| images/s | work | cores | Gbit/s | replicas, one to spare | bound by |\n| ---: | --- | ---: | ---: | ---: | --- |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", choices=sorted(works()))
    parser.add_argument("--images", type=float, help="per second, of all clients together")
    parser.add_argument("--cores", type=float, default=4, help="of a replica")
    parser.add_argument("--link", type=float, default=10, help="of a replica, in Gbit/s")
    parser.add_argument("--busy", type=float, default=0.7, help="share of both that is used on average")
    parser.add_argument("--spare", type=int, default=1, help="replicas that may be lost")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    for name in ("images", "cores", "link", "busy"):
        if getattr(given, name) is not None and getattr(given, name) <= 0:
            parser.error(f"--{name} is {getattr(given, name):g}; expected more than 0")
    if given.busy > 1:
        parser.error(f"--busy is {given.busy:g}; expected a share, 1 at most")
    sizes = {"cores": given.cores, "link": given.link, "busy": given.busy, "spare": given.spare}
    print(HEAD)
    if given.table:
        for images, work in SHOWN:
            print(row(images, work, **sizes))
    elif given.work and given.images:
        print(row(given.images, given.work, **sizes))
    else:
        parser.error("expected --work and --images, or --table")


if __name__ == "__main__":
    main()
