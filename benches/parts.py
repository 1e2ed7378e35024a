#!/usr/bin/env python3
"""What each part costs, in nanoseconds of processor time per image, and the floor beside it.

    python3 benches/parts.py [--bin-dir FOLDER] [--seconds 0.3]

The parts of the engine, of encoding and of sockets are measured by `pba-parts`; libjpeg-turbo alone
by the peers' environment for it, on files like photographs. A floor is what has to be done in any
case: as many bytes copied by `memcpy`, measured in the same run with the same number of bytes, or
the bare decode. Writes `results/parts.md`. Takes a minute or two.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from machine import HERE, RESULTS, circumstances, programs, say

sys.path.insert(0, str(HERE / "peers"))
from run import DidNotRun, environment  # noqa: E402

# Decodes in full, and only the luminance of an eighth of the size, which is nearly all entropy decoding.
DECODE = """
import json, pathlib, sys, time
import simplejpeg, numpy as np
files = [path.read_bytes() for path in sorted(pathlib.Path(sys.argv[1]).iterdir())]
full = np.empty((375, 500, 3), np.uint8)
def timed(decode):
    times = []
    for _ in range(3):
        start = time.process_time()
        for file in files:
            decode(file)
        times.append((time.process_time() - start) / len(files) * 1e9)
    return sorted(times)[1]
print(json.dumps({
    "bytes": sum(map(len, files)) / len(files),
    "full": timed(lambda file: simplejpeg.decode_jpeg(file, colorspace="RGB", buffer=full)),
    "fast": timed(lambda file: simplejpeg.decode_jpeg(file, colorspace="RGB", buffer=full, fastdct=True, fastupsample=True)),
    "half": timed(lambda file: simplejpeg.decode_jpeg(file, colorspace="RGB", min_width=250, min_height=188, min_factor=2)),
    "eighth": timed(lambda file: simplejpeg.decode_jpeg(file, colorspace="GRAY", min_width=63, min_height=47, min_factor=8)),
}))
"""
DRAW = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from photographs import photographs
small = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
photographs(small, pathlib.Path(sys.argv[2]))
"""


# Works of `pba-jpeg-rate`, and what they are called here.
WORKS = {
    "regions": "ours: decoding what the crop needs",
    "whole": "ours: decoding the whole image",
    "resize": "ours: resizing the crop to 224x224, from decoded pixels",
    "cached": "ours: resize, policy and flip, from decoded pixels",
    "cold": "ours: all of (c)",
}

NO_DECODE = ("resize", "cached")


def jpeg_parts(program, core, seconds):
    """Lines of libjpeg-turbo alone, and of our own way from JPEG; or why there are none."""
    try:
        draw, decode = environment("client"), environment("jpeg")
    except DidNotRun as failure:
        return [], f"libjpeg-turbo was not measured: {failure}."
    with tempfile.TemporaryDirectory(prefix="pba-parts-") as folder:
        files = f"{folder}/jpeg"
        subprocess.run([draw, "-c", DRAW, HERE / "peers", files], check=True)
        found = json.loads(subprocess.run([decode, "-c", DECODE, files], check=True, stdout=subprocess.PIPE,
                                          preexec_fn=lambda: os.sched_setaffinity(0, {core})).stdout)
        if not program.exists():
            raise SystemExit(f"{program.name} is not there")
        run = subprocess.run([program, "--images", files, "--seconds", str(seconds)], check=True, text=True,
                             stdout=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, {core}))
        ours = {line["work"]: 1000 * line["us_per_image"] for line in map(json.loads, run.stdout.splitlines())}
    floor = found["full"]
    return [
        {"part": f"libjpeg-turbo, 500x375 to RGB, in full ({found['bytes'] / 1000:.0f} kB a file)", "size": "JPEG",
         "ns": floor, "floor_ns": floor, "floor": "itself"},
        {"part": "libjpeg-turbo, the same with its fast transform and upsampling", "size": "JPEG",
         "ns": found["fast"], "floor_ns": floor, "floor": "full decode"},
        {"part": "libjpeg-turbo, at half the size", "size": "JPEG",
         "ns": found["half"], "floor_ns": floor, "floor": "full decode"},
        {"part": "libjpeg-turbo, gray at an eighth of the size: nearly entropy decoding alone", "size": "JPEG",
         "ns": found["eighth"], "floor_ns": floor, "floor": "full decode"},
        *({"part": title, "size": "JPEG", "ns": ours[work], "floor_ns": 0 if work in NO_DECODE else found["eighth"],
           "floor": "no decoding" if work in NO_DECODE else "libjpeg-turbo's entropy decoding, of the whole file"}
          for work, title in WORKS.items() if work in ours),
    ], ""


def number(value):
    # What is less than the noise of a difference may come out below nothing.
    value = max(0.0, value)
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin-dir", type=pathlib.Path, help="folder of pba-parts and pba-jpeg-rate; built when not given")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each part")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    arguments = parser.parse_args()
    program, jpeg_program = programs(["pba-parts", "pba-jpeg-rate"], arguments.bin_dir)
    core = sorted(os.sched_getaffinity(0))[0]
    say("parts of the engine")
    run = subprocess.run([program, "--seconds", str(arguments.seconds)], check=True, stdout=subprocess.PIPE, text=True,
                         preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    say("libjpeg-turbo alone")
    more, remark = jpeg_parts(jpeg_program, core, max(0.5, arguments.seconds))
    lines += more
    rows = ["| part | size | ns an image | floor, ns | times the floor | the floor is |", "| --- | --- | ---: | ---: | ---: | --- |"]
    for line in lines:
        size = line["size"] if isinstance(line["size"], str) else f"{line['size']}x{line['size']}" if line["size"] else "any"
        floor = line["floor_ns"]
        rows.append(f"| {line['part']} | {size} | {number(line['ns'])} | {number(floor) if floor else ''} | "
                    f"{number(line['ns'] / floor) if floor else ''} | {line['floor']} |")
    rates = [f"{size}x{size} {bytes_a_pixel * size * size / line['ns']:.0f} GB/s {'RGB' if bytes_a_pixel == 3 else 'RGBA'}, {where}"
             for line in lines for size in (32, 224)
             for bytes_a_pixel, where, name in ((3, "in the cache", "memcpy, RGB, in the cache"),
                                                (4, "in the cache", "memcpy, RGBA, in the cache"),
                                                (3, "from memory", "memcpy, RGB, from anywhere in memory"))
             if line["part"] == name and line["size"] == size]
    text = f"""# Cost by part

{circumstances('parts.py')} Processor time of one core, medians of five runs. {remark}

{chr(10).join(rows)}

Bandwidth that the floors stand for: {'; '.join(rates)}.

- Ops are at level {MAGNITUDE} on a working image (RGBA) in the cache, less the cost of a fresh working image. In the engine most ops never see a working image: what is a function of one byte becomes a table that the last pass looks up, and untouched images are copied. So the parts do not add up to the whole, which is lower.
- An op may cost less than its floor where it touches a part of the pixels (Cutout, and translations by a row's length). Our decoding may, because it ends where the crop ends.
- Sockets: a batch of 128 written by one thread and read by another on the same core in pieces of 256 KiB, processor time of each, the kernel's included.
"""
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "parts.md").write_text(text)
    print(text)


# Of the ops, as pba-parts has it.
MAGNITUDE = 7

if __name__ == "__main__":
    main()
