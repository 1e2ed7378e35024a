//! The real binary, used as the server uses it.

mod damage;
mod evaluations;
mod interruptions;
mod machine;
mod refusals;
mod results;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use pba_schedules::rng::{Address, Purpose};
use pba_search::protocol::exit;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A search that takes seconds: 4 members, 6 epochs, generations of 2.
fn small_spec() -> Value {
    json!({
        "name": "small", "model": "tiny", "population": 4, "epochs": 6, "perturbation_interval": 2,
        "train_size": 96, "val_size": 100, "seed": 11, "device": "cpu",
    })
}

/// The built-in dataset, drawn once for all tests.
static CACHE: LazyLock<PathBuf> = LazyLock::new(|| {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("datasets");
    let output = trainer(&["search", "--check"], &small_spec(), &cache);
    assert!(output.status.success(), "{}", text(&output));
    cache
});

fn command(arguments: &[&str], cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pba-trainer"));
    command.args(arguments).args(["--spec", "-", "--dataset", "shapes", "--cache"]).arg(cache);
    // What takes seconds here would not be saved before its end.
    if !arguments.contains(&"--save-seconds") {
        command.args(["--save-seconds", "0"]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn spawn(mut command: Command, spec: &Value) -> Child {
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(spec.to_string().as_bytes()).unwrap();
    child
}

fn trainer(arguments: &[&str], spec: &Value, cache: &Path) -> Output {
    spawn(command(arguments, cache), spec).wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn search_in(folder: &Path, spec: &Value) -> Child {
    spawn(command(&["search", "--dir", folder.to_str().unwrap()], &CACHE), spec)
}

/// Runs a search to its end; gives its journal.
#[track_caller]
fn complete(folder: &Path, spec: &Value) -> String {
    let output = search_in(folder, spec).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    fs::read_to_string(folder.join("events.jsonl")).unwrap()
}

fn digest(journal: &str) -> String {
    let done: Value = serde_json::from_str(journal.lines().last().unwrap()).unwrap();
    assert_eq!(done["event"], "done");
    done["digest"].as_str().unwrap().to_owned()
}

fn checkpoints(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.contains(".safetensors")).collect();
    names.sort_unstable();
    names
}

/// A search in a folder, on one core: the first of those that this process may use.
fn on_a_core(folder: &Path) -> Command {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let core = allowed.trim().split(['-', ',']).next().unwrap();
    let mut command = Command::new("taskset");
    command.args(["-c", core, env!("CARGO_BIN_EXE_pba-trainer")]);
    command.args(["search", "--spec", "-", "--dataset", "shapes", "--save-seconds", "3600"]);
    command.arg("--cache").arg(&*CACHE).arg("--dir").arg(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a run ends with: its journal and its members, bit by bit.
fn ending(folder: &Path) -> (String, BTreeMap<String, Vec<u8>>) {
    let last = fs::read(folder.join(checkpoints(folder).pop().unwrap())).unwrap();
    let members = SafeTensors::deserialize(&last).unwrap();
    let numbers = members.iter().map(|(name, tensor)| (name.to_owned(), tensor.data().to_vec()));
    (fs::read_to_string(folder.join("events.jsonl")).unwrap(), numbers.collect())
}
