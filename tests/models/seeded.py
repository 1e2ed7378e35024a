"""Shows that the models check what they say: seeds one fault after another into a copy of the daemon's files, and
runs the model that has to find it.

    python3 tests/models/seeded.py [WORD...]     only faults whose property or description has one of the words
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

# Where the files of the faults lie.
SOURCES = {"stream": "server/daemon/src/stream", "packed": "server/datasets/src/packed"}

# Part of the property, what is wrong, the file, the code, and what it is replaced by.
FAULTS = [
    ("the budget", "taken in two steps", "stream/budget.rs",
     "        let took = |left: u64| left.checked_sub(bytes);\n"
     "        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, took).is_err() {\n"
     "            return false;\n        }\n",
     "        let left = self.left.load(Ordering::SeqCst);\n        if left < bytes {\n            return false;\n"
     "        }\n        self.left.store(left - bytes, Ordering::SeqCst);\n"),
    ("the budget", "a share loses what the whole refuses", "stream/budget.rs",
     "            self.left.fetch_add(bytes, Ordering::Relaxed);\n            return false;", "            return false;"),
    ("the budget", "what is given back early is given back twice", "stream/budget.rs",
     "        self.bytes -= less;\n", ""),
    ("its own batch", "told before it is so", "stream/budget.rs",
     "            own.is_taken.store(false, Ordering::Release);\n"
     "            // Kept for the stream if it does not wait yet.\n            own.returned.notify_one();",
     "            own.returned.notify_one();\n            own.is_taken.store(false, Ordering::Release);"),
    ("its own batch", "no stream is told", "stream/budget.rs", "            own.returned.notify_one();\n", ""),
    ("make room for", "gives up when another has made room", "stream/buffers.rs",
     "if missing > 0 && !self.free(missing)", "if !self.free(missing)"),
    ("make room for", "asks once", "stream/buffers.rs",
     "            if missing > 0 && !self.free(missing) {\n                return None;\n            }\n",
     "            self.free(missing);\n            return budget.reserve(bytes);\n"),
    ("comes back while", "a buffer that is one too many stays reserved", "stream/buffers.rs",
     "        drop(oldest);", "        std::mem::forget(oldest);"),
    ("goes to one", "free after it was looked for whom to pass it to", "stream/turns.rs",
     "                let mut state = lock(&turns);\n                let next = state.next();\n"
     "                state.free += usize::from(next.is_none());\n                next",
     "                let next = lock(&turns).next();\n"
     "                lock(&turns).free += usize::from(next.is_none());\n                next"),
    ("goes to one", "lost with who has left", "stream/turns.rs",
     "                self.turns = unwanted.turns.take();", "                unwanted.turns.take();"),
    ("client to client", "the same client is next", "stream/round_robin.rs",
     "self.0.push_back((key, waiting))", "self.0.push_front((key, waiting))"),
    ("permits", "counted in two steps", "stream/permits.rs",
     "        state.taken += 1;\n", "        drop(state);\n        let mut state = lock(&self.state);\n        state.taken += 1;\n"),
    ("permits", "the memory of a client is forgotten", "stream/permits.rs",
     "        if taken.streams == 0 {\n", "        if taken.bytes > 0 {\n"),
    ("connections", "shown when it has ended", "stream/connections.rs", "        self.active.dec();\n", ""),
    ("every part", "the parts that are left are counted in two steps", "stream/work.rs",
     "(self.left.fetch_sub(1, Ordering::AcqRel) == 1)",
     "({ let left = self.left.load(Ordering::SeqCst); self.left.store(left - 1, Ordering::SeqCst); left } == 1)"),
    ("every part", "a worker looks, and sleeps later", "stream/queue.rs",
     "            waiting.idle += 1;\n", "            drop(waiting);\n            waiting = self.waiting();\n            waiting.idle += 1;\n"),
    ("every part", "one worker is told of the end", "stream/queue.rs",
     "        self.waiting().is_closed = true;\n        self.more.notify_all();",
     "        self.waiting().is_closed = true;\n        self.more.notify_one();"),
    ("whose reader leaves", "what is skipped stays counted", "stream/queue.rs",
     "        if is_first {\n", "        if is_first && taken.is_some() {\n"),
    ("work that panics", "a panic ends its worker", "stream/work.rs",
     "Err(_) => {\n", "Err(panic) => {\n                if true {\n                    std::panic::resume_unwind(panic);\n                }\n"),
    ("work that fails", "answered by the last part", "stream/work.rs",
     "Ok(Some(output)) => Some(output),", "Ok(Some(output)) => {\n                if part == 0 {\n                    return;\n                }\n                Some(output)\n            }"),
    ("at most one part", "the same client is next", "stream/round_robin.rs",
     "self.0.push_back((key, waiting))", "self.0.push_front((key, waiting))"),
    ("a slot is written", "one that the client holds is used when none is free", "stream/slots.rs",
     "        self.free.pop()\n",
     "        self.free.pop().or_else(|| {\n            let number = *self.held.keys().next()?;\n"
     "            self.held.remove(&number)\n        })\n"),
    ("shared memory", "a slot that is dropped late is not looked for", "stream/shared_memory.rs",
     "        memories.contains_key(&number)\n", "        memories.get(&number).is_some_and(Option::is_some)\n"),
    ("shared memory", "looked at before it is listed", "stream/shared_memory.rs",
     "        let mut memories = self.home.memories();\n        if last.is_unused() {\n            memories.remove(&self.number);\n        } else {",
     "        let is_unused = last.is_unused();\n        self.home.memories().remove(&self.number);\n"
     "        let mut memories = self.home.memories();\n        if !is_unused {"),
    ("a fault is found", "a start is taken for that of another map", "packed/area.rs",
     "changes.is_multiple_of(2) && self.changes.load(Ordering::Relaxed) == changes", "start != 0"),
    ("a fault is found", "the counts are not in order with what they count", "packed/area.rs",
     "        fence(Ordering::Acquire);\n", ""),
    ("a fault is found", "the counts are not written in order", "packed/area.rs",
     "        fence(Ordering::Release);\n", ""),
    ("decoded cache", "the room of who comes second stays reserved", "stream/decoded_cache.rs",
     "        self.shard(&key).entry(key)", "        if self.shard(&key).contains_key(&key) {\n            return std::mem::forget(room);\n        }\n        self.shard(&key).entry(key)"),
]


def copy(to):
    """Copies what the models are made of: two crates, the daemon's files, and the manifest."""
    for part in ["schedules", "tests/models", *SOURCES.values()]:
        source, target = REPOSITORY / part, to / part
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
    for name in ["Cargo.lock", "rust-toolchain.toml"]:
        shutil.copy2(REPOSITORY / name, to)
    manifest = (REPOSITORY / "Cargo.toml").read_text()
    first, rest = manifest.split("members = [", 1)
    rest = rest[rest.index("[workspace.package]"):]
    # Without the profiles of packages that are not there.
    rest = rest.split("[profile.dev.package]")[0]
    (to / "Cargo.toml").write_text(
        f'{first}members = ["schedules", "schedules/types", "schedules/specs", "tests/models"]\n\n{rest}')


def main():
    wanted = sys.argv[1:]
    missed = []
    with tempfile.TemporaryDirectory(prefix="pba-models-") as folder:
        folder = pathlib.Path(folder)
        copy(folder)
        target = os.environ.get("CARGO_TARGET_DIR", str(REPOSITORY / "target"))
        environment = {**os.environ, "CARGO_TARGET_DIR": target, "RUST_BACKTRACE": "0"}
        environment.setdefault("PBA_INTERRUPTIONS", "1")
        for model, what, name, old, new in FAULTS:
            if wanted and not any(word in model or word in what for word in wanted):
                continue
            path = folder / SOURCES.get(name.split("/")[0], "server/daemon/src") / name.split("/")[-1]
            sound = path.read_text()
            if sound.count(old) != 1:
                sys.exit(f"{name} has no longer, or more than once: {old!r}; seeded.py must follow it")
            path.write_text(sound.replace(old, new))
            command = [os.environ.get("CARGO", "cargo"), "test", "--offline", "--quiet", "-p", "pba-models", "--test", "models"]
            build = subprocess.run([*command, "--no-run"], cwd=folder, env=environment, capture_output=True, text=True)
            if build.returncode != 0:
                sys.exit(f"{what}: it does not compile:\n{build.stderr}")
            run = subprocess.run([*command, "--", "--nocapture"], cwd=folder, env={**environment, "PBA_MODEL": model},
                                 capture_output=True, text=True, timeout=600)
            # The test's own dots may stand before it.
            failure = next((line for line in run.stdout.splitlines() if "FAILS" in line), None)
            is_found = run.returncode != 0 and failure is not None
            print(f"{'found ' if is_found else 'MISSED'} {name}: {what}; {failure}", flush=True)
            if not is_found:
                missed.append(what)
                print(run.stdout[-2000:], run.stderr[-2000:])
            path.write_text(sound)
    if missed:
        sys.exit(f"missed: {missed}")


if __name__ == "__main__":
    main()
