//! Whatever happens to the files of a search, it ends as if nothing had happened.

use super::*;

/// What a search leaves that ends undisturbed: its journal and its members.
static UNDISTURBED: LazyLock<(String, BTreeMap<String, Vec<u8>>)> = LazyLock::new(|| {
    let folder = TempDir::new().unwrap();
    complete(folder.path(), &small_spec());
    ending(folder.path())
});

/// The folder of a search that was killed in its last generation, with two checkpoints.
fn killed() -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut child = search_in(folder.path(), &small_spec());
    let mut told = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    told.find(|line| line.contains("\"saved\",\"epoch\":4")).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(checkpoints(folder.path()).len(), 2);
    folder
}

fn copy_of(folder: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for name in checkpoints(folder).into_iter().chain(["events.jsonl".to_owned()]) {
        fs::copy(folder.join(&name), copy.path().join(&name)).unwrap();
    }
    copy
}

/// Runs a search to its end from what is in a folder; gives what it said on standard error.
#[track_caller]
fn ends_undisturbed(folder: &Path, what: &str) -> String {
    let output = search_in(folder, &small_spec()).wait_with_output().unwrap();
    assert!(output.status.success(), "{what}: {}", text(&output));
    assert!(ending(folder) == *UNDISTURBED, "{what}: it ends otherwise: {}", text(&output));
    String::from_utf8(output.stderr).unwrap()
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 4;
    bytes
}

#[test]
fn a_journal_that_is_damaged_anywhere() {
    let folder = killed();
    let journal = fs::read(folder.path().join("events.jsonl")).unwrap();
    let lines: Vec<&[u8]> = journal.split_inclusive(|&byte| byte == b'\n').collect();
    assert!(lines.len() >= 6);
    let zeroed = |from: usize, to: usize| {
        let mut bytes = journal.clone();
        bytes[from..to].fill(0);
        bytes
    };
    let middle = lines[..3].concat().len() + 20;
    let digit = journal.windows(9).position(|part| part == b"scores\":[").unwrap() + 12;
    let score = journal[digit].is_ascii_digit().then_some(digit).expect("a score");
    let end = journal.len();
    let is_said = "the run goes on from what is whole before it";
    for (what, bytes, says) in [
        ("a bit of the first line", flipped(&journal, 30), is_said),
        ("a digit of a score", [&journal[..score], b"0", &journal[score + 1..]].concat(), is_said),
        ("a bit in the middle", flipped(&journal, middle), is_said),
        ("a bit of the last line", flipped(&journal, end - 20), is_said),
        ("zeroes in the middle", zeroed(middle, middle + 60), is_said),
        ("zeroes from the middle", zeroed(middle, end), ""),
        ("zeroes throughout", zeroed(0, end), ""),
        ("a zeroed line", [&zeroed(middle, end)[..], b"\n"].concat(), is_said),
        ("a line is missing", [&lines[..2], &lines[3..]].concat().concat(), is_said),
        ("a line is there twice", [&lines[..3], &lines[2..]].concat().concat(), is_said),
        ("a torn line", journal[..end - 30].to_vec(), ""),
        ("nothing is left", Vec::new(), ""),
    ] {
        let damaged = copy_of(folder.path());
        fs::write(damaged.path().join("events.jsonl"), bytes).unwrap();
        let said = ends_undisturbed(damaged.path(), what);
        assert!(said.contains(says), "{what}: {said}");
    }
}

#[test]
fn checkpoints_that_are_damaged() {
    let folder = killed();
    let [before, newest] = <[String; 2]>::try_from(checkpoints(folder.path())).unwrap();
    let bytes = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let length = bytes(&newest).len();
    for at in [300, length / 2] {
        let damaged = copy_of(folder.path());
        fs::write(damaged.path().join(&newest), flipped(&bytes(&newest), at)).unwrap();
        let what = format!("a bit of byte {at} of the newest");
        let said = ends_undisturbed(damaged.path(), &what);
        assert!(said.contains(&newest), "{what}: {said}");
        // Nor is it better if the one before is, too.
        let damaged = copy_of(folder.path());
        for name in [&before, &newest] {
            fs::write(damaged.path().join(name), flipped(&bytes(name), at)).unwrap();
        }
        let said = ends_undisturbed(damaged.path(), "both");
        assert!(said.contains(&newest) && said.contains(&before), "{said}");
    }
    let damaged = copy_of(folder.path());
    fs::write(damaged.path().join(&newest), &bytes(&newest)[..length - 1]).unwrap();
    ends_undisturbed(damaged.path(), "the newest is cut");
}

/// The journal of an older version has neither numbers nor checksums.
#[test]
fn the_journal_of_an_older_version_goes_on() {
    let events = |journal: &str| -> Vec<Value> {
        let event = |line: &str| {
            let mut event: Value = serde_json::from_str(line).unwrap();
            event.as_object_mut().unwrap().retain(|key, _| key != "seq" && key != "xxh3");
            event
        };
        journal.lines().map(event).collect()
    };
    let folder = killed();
    let path = folder.path().join("events.jsonl");
    let journal = fs::read_to_string(&path).unwrap();
    let old: String = events(&journal).iter().map(|event| format!("{event}\n")).collect();
    assert!(!old.contains("xxh3"));
    fs::write(&path, &old).unwrap();
    let whole = complete(folder.path(), &small_spec());
    assert!(whole.starts_with(old.lines().next().unwrap()), "what was there stays");
    assert_eq!(events(&whole), events(&UNDISTURBED.0));
    assert!(whole.lines().last().unwrap().contains("\"xxh3\""));
    assert_eq!(ending(folder.path()).1, UNDISTURBED.1);
}

/// Every call that may fail for the disk, failing once: the run ends with the reason or does not need the call, and
/// goes on when there is room again.
#[test]
fn a_disk_that_fails_at_any_call() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("left out: there is no strace, which makes calls fail");
        return;
    }
    let folder = killed();
    for (calls, error, at) in [
        ("write", "ENOSPC", &[1, 3, 6][..]),
        ("write", "EIO", &[2]),
        ("fsync,fdatasync", "EIO", &[1, 3, 6]),
        ("fsync,fdatasync", "ENOSPC", &[2]),
        ("rename,renameat,renameat2", "EIO", &[1, 2]),
        ("ftruncate", "EIO", &[1]),
    ] {
        for when in at {
            let failing = copy_of(folder.path());
            let what = format!("{calls} fails with {error} at call {when}");
            // Files of the folder only: what is said goes elsewhere.
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
            command.args(["-e", &format!("inject={calls}:error={error}:when={when}")]);
            command.arg("-P").arg(failing.path()).arg("-P").arg(failing.path().join("events.jsonl"));
            for epoch in 1..=6 {
                for end in ["", ".partial"] {
                    let name = format!("checkpoint-{epoch:06}.safetensors{end}");
                    command.arg("-P").arg(failing.path().join(name));
                }
            }
            command.arg(env!("CARGO_BIN_EXE_pba-trainer"));
            command.args(["search", "--spec", "-", "--dataset", "shapes", "--save-seconds", "0"]);
            command.arg("--cache").arg(&*CACHE).arg("--dir").arg(failing.path());
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let output = spawn(command, &small_spec()).wait_with_output().unwrap();
            if output.status.success() {
                assert!(ending(failing.path()) == *UNDISTURBED, "{what}: {}", text(&output));
                continue;
            }
            let (code, reason) = if error == "EIO" {
                (exit::FAILED, "Input/output error")
            } else {
                (exit::DISK_FULL, "o space left on")
            };
            assert_eq!(output.status.code(), Some(code.into()), "{what}: {}", text(&output));
            let said = text(&output);
            assert!(said.contains("\"event\":\"failed\"") && said.contains(reason), "{what}: {said}");
            ends_undisturbed(failing.path(), &what);
        }
    }
}
