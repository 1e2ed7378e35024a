"""Prints what a C++ compiler needs to use the Arrow C++ that is in the installed pyarrow."""

import pathlib

import pyarrow

for folder in map(pathlib.Path, pyarrow.get_library_dirs()):
    # The version is in the name; what `-larrow` would look for is not in the wheel.
    found = sorted([*folder.glob("libarrow.so*"), *folder.glob("libarrow.*dylib")])
    if found:
        print("-isystem", pyarrow.get_include(), found[-1], f"-Wl,-rpath,{folder}")
        break
else:
    raise SystemExit(f"this pyarrow ({pyarrow.__version__}, in {pyarrow.get_library_dirs()}) has no libarrow")
