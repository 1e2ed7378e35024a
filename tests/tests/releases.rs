//! What is released: one version, and a tarball that is the same each time.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pba_tests::{Server, binary, repository};

/// The time of everything in the tarball.
const TIME: &str = "1700000000";
const HOST: &str = "test-host";

fn python(arguments: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(arguments).env("SOURCE_DATE_EPOCH", TIME).env("CARGO_NET_OFFLINE", "true");
    command
}

#[track_caller]
fn done(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// What a file has between two texts, the first of which it is known by.
#[track_caller]
fn written(root: &Path, file: &str, before: &str, after: &str) -> String {
    let text = std::fs::read_to_string(root.join(file)).unwrap();
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{file} has no {before:?}"));
    rest.split_once(after).unwrap().0.to_owned()
}

/// The version in each of the files that it is written in.
fn versions(root: &Path) -> [String; 4] {
    [
        written(root, "Cargo.toml", "[workspace.package]\nversion = \"", "\""),
        written(root, "Cargo.lock", "name = \"pba-server\"\nversion = \"", "\""),
        written(root, "client/python/src/pba_client/__init__.py", "\n__version__ = \"", "\""),
        written(root, "CHANGELOG.md", "\n## ", ","),
    ]
}

#[test]
fn everything_is_of_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(versions(&repository("")), [version; 4]);

    let said = pba_tests::pba(&["--version"]).ok();
    let mut words = said.split_whitespace();
    assert_eq!((words.next(), words.next()), (Some("pba"), Some(version)), "{said}");
    // A release names its commit, here and in the metrics.
    let revision = words.next().map_or("unknown", |word| word.trim_matches(['(', ')']));

    let server = Server::start(&[]);
    let build = &server.metrics().families["pba_build_info"].samples;
    let [build] = &build[..] else { panic!("{build:?}") };
    let labels = [("revision", revision), ("version", version)];
    assert_eq!(build.labels, labels.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let epoch = server.epoch("shapes/epochs/0/batches?split=test&batch_size=1000");
    assert_eq!(epoch.metadata[pba_wire::stream::VERSION], version);

    // The wheels take theirs from the same places.
    let wheel = std::fs::read_to_string(repository("deploy/wheel/pyproject.toml")).unwrap();
    let client = std::fs::read_to_string(repository("client/python/pyproject.toml")).unwrap();
    for project in [wheel, client] {
        assert!(project.contains("\ndynamic = [\"version\"]\n"), "{project}");
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        std::fs::copy(from, to).unwrap();
    }
}

#[test]
fn a_version_is_set_everywhere_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for part in [
        "Cargo.toml",
        "Cargo.lock",
        "CHANGELOG.md",
        "schedules",
        "server",
        "client",
        "tests",
        "benches",
        "deploy",
    ] {
        copy(&repository(part), &folder.path().join(part));
    }
    let bump = folder.path().join("deploy/release/bump.py");
    let bump = bump.to_str().unwrap();
    let others = |root: &Path| {
        let lock = std::fs::read_to_string(root.join("Cargo.lock")).unwrap();
        let ours = |package: &&str| !package.starts_with("name = \"pba-");
        lock.split("[[package]]\n").filter(ours).map(str::to_owned).collect::<Vec<_>>()
    };
    done(&mut python(&[bump, "7.8.9", "--date", "2026-12-01"]));
    assert_eq!(versions(folder.path()), ["7.8.9"; 4]);
    assert_eq!(written(folder.path(), "CHANGELOG.md", "\n## ", "\n"), "7.8.9, 2026-12-01");
    assert_eq!(others(folder.path()), others(&repository("")), "versions of others have changed");
    // What is released is not written over: the next one begins a section.
    done(&mut python(&[bump, "7.9.0"]));
    assert_eq!(versions(folder.path()), ["7.9.0"; 4]);
    let changes = std::fs::read_to_string(folder.path().join("CHANGELOG.md")).unwrap();
    assert!(changes.contains("\n## 7.9.0, not released\n\n## 7.8.9, 2026-12-01\n"), "{changes:.300}");

    let refused = python(&[bump, "7.9"]).output().unwrap();
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && error.contains("'7.9' is not a version; expected three numbers"),
        "{error}"
    );
}

/// Packs what `make release` packs, of a wheel as maturin builds it with the binary under test.
fn packed(folder: &Path) -> PathBuf {
    const WHEEL: &str = "import os, sys, zipfile\n\
        with zipfile.ZipFile(sys.argv[1], 'w') as wheel:\n\
        \x20   wheel.write(sys.argv[2], 'pba_server-1.data/scripts/pba')\n\
        \x20   wheel.writestr('pba_server-1.dist-info/licenses/THIRD-PARTY.txt', 'notices')\n\
        \x20   wheel.writestr('pba_server-1.dist-info/sboms/pba-server.cyclonedx.json', '{}')";
    let wheel = folder.join("a.whl");
    let wheel = wheel.to_str().unwrap();
    done(python(&["-c", WHEEL, wheel]).arg(binary::path()));
    let script = repository("deploy/release/tarball.py");
    let folder_name = folder.to_str().unwrap();
    done(&mut python(&[
        script.to_str().unwrap(),
        "--wheel",
        wheel,
        "--target",
        HOST,
        "--out",
        folder_name,
        wheel,
    ]));
    folder.to_owned()
}

#[test]
fn a_tarball_of_the_same_files_has_the_same_bytes() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = folders.each_ref().map(|folder| packed(folder.path()));
    let name = format!("pba-{}-{HOST}", env!("CARGO_PKG_VERSION"));
    let tarball = format!("{name}.tar.gz");
    let read = |folder: &Path| std::fs::read(folder.join(&tarball)).unwrap();
    assert!(read(&first) == read(&second), "the tarballs differ");
    done(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&first));
    let sums = std::fs::read_to_string(first.join("SHA256SUMS")).unwrap();
    let named = sums.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect::<Vec<_>>();
    assert_eq!(named, ["a.whl", &format!("{name}.cyclonedx.json"), &tarball]);

    let listed =
        done(Command::new("tar").args(["-tvzf", &tarball, "--utc", "--full-time"]).current_dir(&first));
    for line in listed.lines() {
        assert!(line.contains(" root/root ") && line.contains(" 2023-11-14 22:13:20 "), "{line}");
    }
    for inside in [
        "pba",
        "README.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "THIRD-PARTY.txt",
        "pba.cyclonedx.json",
        "pba.toml",
    ] {
        assert!(
            listed.lines().any(|line| line.ends_with(&format!(" {name}/{inside}"))),
            "no {inside}:\n{listed}"
        );
    }
    done(Command::new("tar").args(["-xzf", &tarball]).current_dir(&first));
    assert_eq!(
        done(Command::new(first.join(&name).join("pba")).arg("--version")),
        pba_tests::pba(&["--version"]).ok()
    );
}

#[test]
fn what_is_linked_is_named_with_its_licence() {
    let script = repository("deploy/release/third_party.py");
    let notices = done(&mut python(&[script.to_str().unwrap()]));
    for (linked, licence) in [
        ("axum", "MIT"),
        ("mozjpeg-sys", "IJG"),
        ("ring", "Apache-2.0 AND ISC"),
        ("zstd-sys", "BSD-3-Clause"),
    ] {
        let line = notices.lines().find(|line| line.starts_with(&format!("  {linked} ")));
        let line = line.unwrap_or_else(|| panic!("{linked} is linked, and not named"));
        assert!(line.contains(licence), "{line}");
    }
    for owner in ["Independent JPEG Group", "Meta Platforms", "The Rust Standard Library"] {
        assert!(notices.contains(owner), "no notice of {owner}");
    }
    // Of tests alone, and of ours.
    for other in ["  proptest ", "  pba-", "  tch "] {
        assert!(!notices.lines().any(|line| line.starts_with(other)), "{other} is not linked");
    }
}
