//! What one would otherwise repeat in review. Each failure says how to fix it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use pba_schedules::Op;
use pba_tests::imports::{Imports, circles};
use pba_tests::repository;
use serde_json::Value;

/// What each crate of the workspace may name of the others.
const ALLOWED: &[(&str, &[&str])] = &[
    ("pba-types", &[]),
    ("pba-schedules", &["pba-types"]),
    ("pba-augment", &["pba-types", "pba-schedules"]),
    ("pba-specs", &["pba-types", "pba-schedules"]),
    ("pba-search", &["pba-types", "pba-schedules", "pba-specs"]),
    ("pba-files", &[]),
    ("pba-datasets", &["pba-types", "pba-files"]),
    (
        "pba-trainer",
        &[
            "pba-types",
            "pba-schedules",
            "pba-specs",
            "pba-augment",
            "pba-search",
            "pba-datasets",
            "pba-files",
        ],
    ),
    (
        "pba-server",
        &[
            "pba-types",
            "pba-schedules",
            "pba-augment",
            "pba-search",
            "pba-datasets",
            "pba-files",
            "pba-wire",
            "pba-client",
        ],
    ),
    ("pba-wire", &["pba-types", "pba-schedules", "pba-specs"]),
    ("pba-client", &["pba-wire"]),
];
/// The modules of the larger crates: each may use those before it.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "pba-server",
        &[
            "sync",
            "background",
            "watched",
            "version",
            "metrics",
            "log",
            "trace",
            "error",
            "format",
            "health",
            "shutdown",
            "apart",
            "hosts",
            "data_lock",
            "access",
            "audit",
            "catalog",
            "jobs",
            "date",
            "tls",
            "config",
            "pace",
            "stream",
            "rates",
            "draw",
            "boundary",
            "app",
            "readiness",
            "http",
            "server",
            "cli",
            "untrusted",
        ],
    ),
    (
        "pba-datasets",
        &["sync", "error", "parallel", "decode", "packed", "cache", "dataset", "formats", "import"],
    ),
    (
        "pba-trainer",
        &[
            "torch",
            "signals",
            "report",
            "network",
            "models",
            "data",
            "schedules",
            "members",
            "cpu",
            "gpu",
            "device",
            "estimate",
            "job",
            "disk",
            "checkpoint",
            "checkpoints",
            "run_dir",
            "work",
            "population",
            "search",
            "evaluation",
            "comparison",
            "bench",
        ],
    ),
];
/// Crates whose results depend on their arguments alone.
const PURE: [&str; 5] = ["pba-types", "pba-schedules", "pba-specs", "pba-augment", "pba-search"];
/// What a pure crate must not know.
const WORLDLY: [&str; 14] = [
    "tokio",
    "axum",
    "hyper",
    "reqwest",
    "arrow-array",
    "arrow-buffer",
    "arrow-ipc",
    "arrow-schema",
    "parquet",
    "tch",
    "prometheus",
    "tracing",
    "crossbeam",
    "rayon",
];

struct Package {
    name: String,
    folder: PathBuf,
    dependencies: BTreeSet<String>,
}

/// The packages of the workspace, with what they name outside of tests.
fn packages() -> BTreeMap<String, Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(repository("Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter().map(|package| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let dependencies = dependencies.filter(|dependency| dependency["kind"] != "dev");
        Package {
            name: text(&package["name"]),
            folder: Path::new(&text(&package["manifest_path"])).parent().unwrap().to_owned(),
            dependencies: dependencies.map(|dependency| text(&dependency["name"])).collect(),
        }
    });
    packages.map(|package| (package.name.clone(), package)).collect()
}

/// Rust sources below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let sources = paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    sources.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// The lines of a source that are code and not tests, numbered.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    let lines = lines.take_while(|(_, line)| line.trim() != "#[cfg(test)]");
    lines.map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
}

#[test]
fn dependencies_point_one_way() {
    let packages = packages();
    for (name, package) in &packages {
        if ["pba-tests", "pba-models", "pba-benches"].contains(&name.as_str()) {
            continue;
        }
        let allowed = ALLOWED.iter().find(|(known, _)| known == name).map(|(_, allowed)| *allowed);
        let allowed = allowed.unwrap_or_else(|| {
            panic!("{name} is new: say in ARCHITECTURE.md and in this test what it may depend on")
        });
        for dependency in package.dependencies.iter().filter(|name| packages.contains_key(*name)) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} depends on {dependency}, against the direction of ARCHITECTURE.md; \
                 move what is shared into a crate that both may use, or pass it in as a value"
            );
        }
    }
    for needed in ["pba-schedules", "pba-augment", "pba-datasets", "pba-server", "pba-wire", "pba-client"] {
        assert!(packages.contains_key(needed), "{needed} is gone; this test must follow its new name");
    }
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let circles = packages().into_iter().map(|(name, package)| {
        let circles = Imports::of(&package.folder.join("src")).circles();
        circles.into_iter().map(move |files| format!("{name}: {files:?}")).collect::<Vec<_>>()
    });
    let circles: Vec<String> = circles.flatten().collect();
    assert!(
        circles.is_empty(),
        "files use each other in a circle: {circles:#?}\n\
         move what they both need into a file that uses neither, or pass it in as a value"
    );
}

#[test]
fn modules_point_one_way() {
    let packages = packages();
    for (name, order) in LAYERS {
        let edges = Imports::of(&packages[*name].folder.join("src")).edges;
        // A file or folder below `src` is a module; what is in it may use what stands before it.
        let place = |file: &Path| {
            let module = file.iter().next().expect("a path has a part").to_str().expect("names are ASCII");
            let module = module.trim_end_matches(".rs");
            order.iter().position(|known| *known == module).unwrap_or_else(|| {
                panic!("{name}: {module} is new: say in this test what may use it, by its place in the order")
            })
        };
        for (file, used) in edges.iter().filter(|(file, _)| !is_root(file)) {
            for other in used.iter().filter(|other| !is_root(other)) {
                assert!(
                    place(other) <= place(file),
                    "{name}: {} uses {}, which stands above it in {order:?}; move what is shared below both",
                    file.display(),
                    other.display()
                );
            }
        }
    }
}

/// Whether a file only lists the modules of its crate.
fn is_root(file: &Path) -> bool {
    file == Path::new("lib.rs") || file == Path::new("main.rs")
}

#[test]
fn circles_are_found() {
    let edges = |pairs: &[(u8, &[u8])]| {
        pairs.iter().map(|(from, to)| (*from, BTreeSet::from_iter(to.iter().copied()))).collect()
    };
    assert_eq!(circles(&edges(&[(1, &[2, 3]), (2, &[3]), (3, &[])])), Vec::<Vec<u8>>::new());
    let found = circles(&edges(&[(1, &[2]), (2, &[3]), (3, &[2]), (4, &[5]), (5, &[6]), (6, &[4, 1])]));
    assert_eq!(found, [vec![2, 3], vec![4, 5, 6]]);
}

#[test]
fn pure_crates_know_nothing_of_the_world() {
    let packages = packages();
    for package in PURE.iter().filter_map(|name| packages.get(*name)) {
        for worldly in WORLDLY {
            assert!(
                !package.dependencies.contains(worldly),
                "{} depends on {worldly}; it takes and gives values, and the server moves them",
                package.name
            );
        }
    }
}

#[test]
fn pure_crates_read_no_clock_touch_no_file_start_no_thread() {
    const BANNED: [&str; 14] = [
        "std::fs",
        "std::thread",
        "std::time",
        "std::net",
        "std::env",
        "std::process",
        "SystemTime",
        "Instant::now",
        "thread_rng",
        "from_entropy",
        "from_os_rng",
        "rand::rng(",
        "rand::random",
        "OsRng",
    ];
    let packages = packages();
    for package in PURE.iter().filter_map(|name| packages.get(*name)) {
        let sources = sources(&package.folder.join("src"));
        assert!(!sources.is_empty(), "{} has no sources", package.name);
        for source in sources {
            let text = std::fs::read_to_string(&source).unwrap();
            for (number, line) in code(&text) {
                for banned in BANNED {
                    assert!(
                        !line.contains(banned),
                        "{}:{number} uses {banned}: {} is pure, so that a batch depends on the request alone; \
                         take a seed, bytes or a number as an argument instead",
                        source.display(),
                        package.name
                    );
                }
            }
        }
    }
}

#[test]
fn files_of_a_data_directory_are_read_in_one_way() {
    const BANNED: [&str; 4] = ["fs::read(", "fs::read_to_string(", "File::open(", "File::create("];
    let server = repository("server");
    let folders = ["daemon/src/catalog", "daemon/src/jobs"].map(|folder| sources(&server.join(folder)));
    let own = ["run_dir", "checkpoint", "checkpoints", "schedules", "population"];
    let own = own.map(|name| server.join(format!("trainer/src/{name}.rs")));
    for source in folders.into_iter().flatten().chain(own) {
        let text = std::fs::read_to_string(&source).unwrap();
        for (number, line) in code(&text) {
            for banned in BANNED {
                assert!(
                    !line.contains(banned),
                    "{}:{number} has {banned}...): a FIFO would be waited for, and a device has no end; \
                     use pba_files::read, read_text, open or open_as",
                    source.display()
                );
            }
        }
    }
}

#[test]
fn only_the_trainer_names_torch() {
    for (name, package) in packages() {
        for dependency in package.dependencies.iter().filter(|d| d.contains("tch") || d.contains("torch")) {
            assert_eq!(
                name, "pba-trainer",
                "{name} depends on {dependency}; only pba-trainer links libtorch, and pba starts it as a child process"
            );
        }
    }
}

#[test]
fn only_the_server_has_configuration_and_metrics() {
    for (name, package) in packages() {
        for dependency in ["prometheus", "toml", "axum"] {
            assert!(
                // The models compile files of the server's, and do so with its counts.
                ["pba-server", "pba-models"].contains(&name.as_str())
                    || !package.dependencies.contains(dependency),
                "{name} depends on {dependency}; only pba-server reads configuration and records metrics: \
                 return the value, and let it do so"
            );
        }
    }
}

#[test]
fn clients_import_nothing_of_the_server() {
    let packages = packages();
    let server = repository("server");
    for package in packages.values().filter(|package| package.folder.starts_with(repository("client"))) {
        for dependency in package.dependencies.iter().filter_map(|name| packages.get(name)) {
            assert!(
                !dependency.folder.starts_with(&server),
                "{} depends on {}, which lies under server/; what both sides need belongs in client/wire",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn every_op_has_its_file_with_tests() {
    let packages = packages();
    let folder = packages["pba-augment"].folder.join("src/ops");
    for op in Op::ALL {
        let mut name = String::new();
        for letter in op.name().chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.extend(letter.to_lowercase());
        }
        let file = folder.join(format!("{name}.rs"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|_| {
            panic!("{op} has no file {}: one op, one file, all with the same face", file.display())
        });
        assert!(text.starts_with("//! "), "{} does not begin by saying what the op does", file.display());
        let module = std::fs::read_to_string(folder.join("mod.rs")).unwrap();
        assert!(module.contains(&format!("mod {name};")), "{name} is not a module of ops/mod.rs");
    }
}

#[test]
fn lints_live_in_the_root_manifest() {
    for package in packages().values() {
        let manifest = std::fs::read_to_string(package.folder.join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} does not take the workspace's lints; add [lints] workspace = true to its Cargo.toml",
            package.name
        );
    }
}

/// Unsafe code is listed with its argument and its test.
#[test]
fn unsafe_code_is_listed() {
    let page = std::fs::read_to_string(repository("tests/unsafe.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let listed: BTreeMap<String, usize> = rows
        .map(|(file, rest)| (file.to_owned(), rest.split(' ').next().unwrap().parse().expect("a count")))
        .collect();
    let starts = ["{", "fn ", "impl ", "extern "].map(|what| format!("{} {what}", "unsafe"));
    let mut found = BTreeMap::new();
    for source in
        ["server", "schedules", "client", "tests", "benches"].map(repository).iter().flat_map(|f| sources(f))
    {
        let text = std::fs::read_to_string(&source).unwrap();
        let code = text.lines().map(|line| line.split("//").next().unwrap());
        let count: usize =
            code.map(|line| starts.iter().map(|what| line.matches(what).count()).sum::<usize>()).sum();
        if count > 0 {
            let source = source.strip_prefix(repository("")).unwrap().to_str().unwrap().to_owned();
            found.insert(source, count);
        }
    }
    assert_eq!(found, listed, "unsafe code and tests/unsafe.md differ: left is the code, right the page");
}

/// Tests that `make test` leaves out, which nothing else would count: each with its file and its reason.
#[test]
fn what_is_not_run_is_known() {
    const GPU: (&str, &str) = ("server/trainer/src/population.rs", "needs a GPU");
    const MEASURES: &str =
        "measures times, which no test asserts: run it by its name with --ignored --nocapture";
    const IGNORED: [(&str, &str); 6] = [
        ("server/daemon/src/access/tokens.rs", MEASURES),
        GPU,
        GPU,
        GPU,
        GPU,
        ("tests/tests/token_secrecy.rs", MEASURES),
    ];
    // Not written out, or it would find itself.
    let mark = format!("#[{}", "ignore");
    let mut found = Vec::new();
    for source in
        ["server", "schedules", "client", "tests", "benches"].map(repository).iter().flat_map(|f| sources(f))
    {
        let text = std::fs::read_to_string(&source).unwrap();
        for line in text.lines().map(str::trim).filter(|line| line.starts_with(&mark)) {
            let reason = line.split('"').nth(1).unwrap_or_default().to_owned();
            let source = source.strip_prefix(repository("")).unwrap().to_str().unwrap().to_owned();
            found.push((source, reason));
        }
    }
    found.sort();
    let expected = IGNORED.map(|(file, reason)| (file.to_owned(), reason.to_owned()));
    assert_eq!(found, expected, "a test that is not run is counted here, and says why in its #[ignore]");
}
