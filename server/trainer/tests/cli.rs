//! The real binary, used as the server uses it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use pba_schedules::rng::{Address, Purpose};
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
    command.env("PBA_TRAINER_SAVE_SECONDS", "0");
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

#[test]
fn the_same_spec_gives_the_same_journal_whatever_the_strategy_or_the_cores() {
    let (one, other, stacked) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let journal = complete(one.path(), &small_spec());
    let output = spawn(on_a_core(other.path()), &small_spec()).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::read_to_string(other.path().join("events.jsonl")).unwrap(), journal);
    println!("digest {}", digest(&journal));

    let schedule = fs::read_to_string(one.path().join("schedule.json")).unwrap();
    let schedule = pba_schedules::formats::json::read(&schedule).unwrap();
    assert_eq!(schedule.digest().to_string(), digest(&journal));
    assert_eq!((schedule.name(), schedule.epochs()), ("small", 6));
    assert_eq!(checkpoints(one.path()).last().unwrap(), "checkpoint-000006.safetensors");
    // This one was saved at its end only, which the journal does not tell.
    assert_eq!(checkpoints(other.path()), ["checkpoint-000006.safetensors"]);

    // Rounding may differ, so this one only has to end.
    let mut spec = small_spec();
    spec["strategy"] = "stacked".into();
    complete(stacked.path(), &spec);
}

#[test]
fn killed_at_five_random_moments_it_ends_as_if_nothing_had_happened() {
    let (whole, killed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let started = std::time::Instant::now();
    let journal = complete(whole.path(), &small_spec());
    let duration = started.elapsed();
    let draws = Address { seed: 5, purpose: Purpose::Dataset, epoch: 0, item: 0 };
    for kill in 0..5 {
        // Anywhere between the start and what a whole run takes.
        let share = f64::from(draws.block(kill)[0]) / f64::from(u32::MAX);
        let mut child = search_in(killed.path(), &small_spec());
        std::thread::sleep(duration.mul_f64(share * 0.7));
        child.kill().unwrap();
        child.wait().unwrap();
        let so_far = fs::read_to_string(killed.path().join("events.jsonl")).unwrap_or_default();
        println!("kill {kill} after {share:.2}: {} events", so_far.lines().count());
        assert!(journal.starts_with(&so_far), "what happened twice happened in the same way");
    }
    let again = complete(killed.path(), &small_spec());
    assert_eq!(again, journal);
    println!("digest {}", digest(&again));
    assert_eq!(checkpoints(killed.path()).last(), checkpoints(whole.path()).last());
}

/// Runs a search that saves nothing of itself until it is told to stop, once it has said `line`.
fn interrupted_at(line: &str, folder: &Path, spec: &Value) {
    let mut command = command(&["search", "--dir", folder.to_str().unwrap()], &CACHE);
    command.env("PBA_TRAINER_SAVE_SECONDS", "3600");
    let mut child = spawn(command, spec);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.by_ref().any(|said| said.contains(line)));
    assert_eq!(checkpoints(folder), Vec::<String>::new());
    Command::new("sh").args(["-c", &format!("kill {}", child.id())]).status().unwrap();
    assert_eq!(lines.last().unwrap(), "{\"event\":\"interrupted\"}");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn an_interruption_costs_no_finished_epoch() {
    let (whole, stopped) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut spec = small_spec();
    spec["epochs"] = 40.into();
    spec["perturbation_interval"] = 4.into();
    let journal = complete(whole.path(), &spec);
    interrupted_at("\"epoch\":8,\"scores\"", stopped.path(), &spec);
    // One epoch or more after the generation has ended, in which it was interrupted.
    let saved = checkpoints(stopped.path());
    assert!(saved.len() == 1 && saved[0].as_str() >= "checkpoint-000007.safetensors", "{saved:?}");
    let output = search_in(stopped.path(), &spec).wait_with_output().unwrap();
    let resumed: Value = serde_json::from_str(text(&output).lines().next().unwrap()).unwrap();
    assert!(resumed["epoch"].as_u64().unwrap() >= 4, "{resumed}");
    assert_eq!(fs::read_to_string(stopped.path().join("events.jsonl")).unwrap(), journal);
}

#[test]
fn a_checkpoint_that_is_damaged_or_ahead_of_the_journal_is_passed_over() {
    let (whole, damaged) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let journal = complete(whole.path(), &small_spec());
    let path = |name: &str| damaged.path().join(name);
    let last = checkpoints(whole.path()).pop().unwrap();
    fs::copy(whole.path().join(&last), path(&last)).unwrap();
    fs::write(path("checkpoint-000005.safetensors"), "no checkpoint").unwrap();
    let end = journal.find("\"scored\",\"epoch\":4").unwrap();
    let end = journal[..end].rfind('\n').unwrap() + 1;
    fs::write(path("events.jsonl"), &journal[..end]).unwrap();
    let output = search_in(damaged.path(), &small_spec()).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        text(&output).starts_with("{\"event\":\"resumed\",\"epoch\":0,\"events\":1}"),
        "{}",
        text(&output)
    );
    assert!(text(&output).contains("checkpoint-000005.safetensors is no checkpoint"), "{}", text(&output));
    assert_eq!(fs::read_to_string(path("events.jsonl")).unwrap(), journal);
}

/// Older versions wrote every generation's checkpoint before its event.
#[test]
fn a_folder_of_an_older_version_resumes() {
    let (whole, old) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut spec = small_spec();
    spec["epochs"] = 40.into();
    let journal = complete(whole.path(), &spec);
    interrupted_at("\"scored\",\"epoch\":6", old.path(), &spec);
    let name = checkpoints(old.path()).pop().unwrap();
    let is_mid_generation = !journal.contains(&format!(
        "\"checkpoint\",\"epoch\":{}}}",
        name["checkpoint-".len()..][..6].trim_start_matches('0')
    ));
    if is_mid_generation {
        fs::rename(old.path().join(&name), old.path().join("between.safetensors")).unwrap();
    }
    let output = search_in(old.path(), &spec).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(!text(&output).contains("\"resumed\",\"epoch\":0"), "{}", text(&output));
    assert_eq!(fs::read_to_string(old.path().join("events.jsonl")).unwrap(), journal);
    assert!(!old.path().join("between.safetensors").exists());
}

#[test]
fn a_torn_journal_and_a_half_written_checkpoint_do_no_harm() {
    let (whole, torn) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let journal = complete(whole.path(), &small_spec());
    interrupted_at("\"checkpoint\",\"epoch\":2", torn.path(), &small_spec());
    let kept = fs::read_to_string(torn.path().join("events.jsonl")).unwrap();
    fs::write(torn.path().join("events.jsonl"), kept + "{\"event\":\"sco").unwrap();
    fs::write(torn.path().join("checkpoint-000006.safetensors.partial"), "half").unwrap();
    assert_eq!(complete(torn.path(), &small_spec()), journal);
}

#[test]
fn sigterm_ends_it_between_two_steps() {
    let folder = TempDir::new().unwrap();
    let mut spec = small_spec();
    spec["epochs"] = 100_000.into();
    let mut child = search_in(folder.path(), &spec);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let saved = lines.by_ref().map(Result::unwrap).find(|line| line.contains("\"saved\",\"epoch\":2"));
    assert!(saved.is_some());
    Command::new("sh").args(["-c", &format!("kill {}", child.id())]).status().unwrap();
    assert_eq!(lines.last().unwrap().unwrap(), "{\"event\":\"interrupted\"}");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    // It goes on from there, and says so first.
    let mut child = search_in(folder.path(), &spec);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let resumed: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(resumed["event"], "resumed");
    assert!(resumed["epoch"].as_u64().unwrap() >= 2, "{resumed}");
    // Two trainers never share a folder.
    let output = search_in(folder.path(), &spec).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("another trainer works in"), "{}", text(&output));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn it_dies_with_its_parent() {
    let folder = TempDir::new().unwrap();
    let mut spec = small_spec();
    spec["epochs"] = 100_000.into();
    fs::write(folder.path().join("spec.json"), spec.to_string()).unwrap();
    // A shell that starts the trainer, tells its id, and waits to be killed.
    let script = "\"$0\" search --spec \"$1/spec.json\" --dataset shapes --cache \"$2\" --dir \"$1\" > /dev/null & \
                  echo $!; wait";
    let mut shell = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_pba-trainer")])
        .arg(folder.path())
        .arg(&*CACHE)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut id = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut id).unwrap();
    let process = PathBuf::from(format!("/proc/{}/stat", id.trim()));
    let until = |what: &dyn Fn() -> bool| {
        for _ in 0..600 {
            if what() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        false
    };
    assert!(until(
        &|| fs::read_to_string(folder.path().join("events.jsonl")).is_ok_and(|text| !text.is_empty())
    ));
    shell.kill().unwrap();
    shell.wait().unwrap();
    // Gone, or waiting for someone to read its exit status.
    assert!(
        until(&|| fs::read_to_string(&process).map_or(true, |stat| stat.contains(") Z "))),
        "it lives on"
    );
}

/// A trainer that has the folder of a search locked by another one, and waits for it.
fn waiting_in(folder: &Path) -> (Child, fs::File) {
    let lock = fs::File::create(folder.join("lock")).unwrap();
    lock.try_lock().unwrap();
    let parent = std::process::id().to_string();
    let arguments = ["search", "--dir", folder.to_str().unwrap(), "--parent", &parent];
    let mut child = spawn(command(&arguments, &CACHE), &small_spec());
    let open = PathBuf::from(format!("/proc/{}/fd", child.id()));
    let opened =
        |link: fs::DirEntry| fs::read_link(link.path()).is_ok_and(|path| path == folder.join("lock"));
    for _ in 0..600 {
        if fs::read_dir(&open).is_ok_and(|mut links| links.any(|link| link.is_ok_and(opened))) {
            return (child, lock);
        }
        assert_eq!(child.try_wait().unwrap(), None, "it does not wait");
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().unwrap();
    panic!("it does not open the lock");
}

/// As after a server was killed and started again while its first trainer still ends.
#[test]
fn a_trainer_of_a_server_waits_for_the_folder() {
    let folder = TempDir::new().unwrap();
    let (mut child, lock) = waiting_in(folder.path());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(child.try_wait().unwrap(), None, "it does not wait");
    assert!(!folder.path().join("events.jsonl").exists(), "it works in a folder that is not its own");
    drop(lock);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));

    let folder = TempDir::new().unwrap();
    let (child, _lock) = waiting_in(folder.path());
    Command::new("sh").args(["-c", &format!("kill {}", child.id())]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
}

#[test]
fn it_outlives_the_thread_that_started_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_owned();
    // Whatever starts children on a pool of threads cannot promise that the thread stays.
    let child = std::thread::spawn(move || search_in(&path, &small_spec())).join().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_full_disk_loses_no_finished_generation() {
    let folder = TempDir::new().unwrap();
    // Files may not grow beyond 600 blocks of 512 bytes: less than a checkpoint of four members.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$0\" search --spec - --dataset shapes --cache \"$1\" --dir \"$2\""]);
    command.arg(env!("CARGO_BIN_EXE_pba-trainer")).arg(&*CACHE).arg(folder.path());
    command.env("PBA_TRAINER_SAVE_SECONDS", "0");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn(command, &small_spec()).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let failed = text(&output);
    assert!(
        failed.contains("\"event\":\"failed\"") && failed.contains("cannot save the checkpoint of epoch 1;"),
        "{failed}"
    );
    assert_eq!(checkpoints(folder.path()), Vec::<String>::new());
    assert!(!folder.path().join("checkpoint-000001.safetensors.partial").exists(), "its room is given back");
    // With room, it ends as if nothing had happened.
    let whole = TempDir::new().unwrap();
    assert_eq!(complete(folder.path(), &small_spec()), complete(whole.path(), &small_spec()));
}

#[track_caller]
fn refuse(command: &str, change: Value, field: &str, says: &str) {
    let mut spec = small_spec();
    if command == "evaluate" {
        spec = json!({ "model": "tiny", "epochs": 1, "train_size": 96, "device": "cpu" });
    }
    for (key, value) in change.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let arguments: &[&str] = if command == "search" {
        &["search", "--check"]
    } else {
        &["evaluate", "--schedule", "none", "--check"]
    };
    let output = trainer(arguments, &spec, &CACHE);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["error"]["field"], field);
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains(says), "{message:?} does not say {says:?}");
}

#[test]
fn wrong_specs_are_refused_before_anything_starts() {
    refuse("search", json!({ "model": "vgg" }), "model", "wrn-D-K");
    refuse("search", json!({ "model": "shake-shake-26-2x97d" }), "model", "shake-shake-D-2xWd");
    refuse("search", json!({ "ops": ["Blur"] }), "ops", "\"Blur\" is not");
    refuse("search", json!({ "population": 1 }), "population", "2..=256");
    refuse("search", json!({ "perturbation_interval": 0 }), "perturbation_interval", "1..=");
    refuse("search", json!({ "lr": -0.1 }), "lr", "above 0");
    refuse("search", json!({ "train_size": 10_001 }), "train_size", "of the 10000 images of the split");
    refuse("search", json!({ "train_size": 9_000, "val_size": 2_000 }), "val_size", "1..=1000");
    refuse("search", json!({ "batch_size": 97 }), "batch_size", "1..=96");
    refuse("search", json!({ "base": "pad_crop" }), "base", "pad_crop needs a number");
    refuse("search", json!({ "strategy": "graphs" }), "strategy", "graphs needs CUDA");
    refuse("evaluate", json!({ "ablation": "all" }), "ablation", "flatten");
    refuse("evaluate", json!({ "population": 4 }), "population", "no such field");
}

/// Nobody who has a GPU gets days on a CPU without being told.
#[test]
fn what_takes_days_on_a_cpu_is_done_there_only_when_asked() {
    let spec = |device: &str, model: &str| json!({ "model": model, "train_size": 4_000, "device": device });
    let checked = |spec: &Value| trainer(&["search", "--check"], spec, &CACHE);
    assert!(checked(&spec("cpu", "wrn-28-10")).status.success());
    assert!(checked(&spec("auto", "tiny")).status.success());
    let devices = Command::new(env!("CARGO_BIN_EXE_pba-trainer")).arg("devices").output().unwrap();
    let devices: Value = serde_json::from_slice(&devices.stdout).unwrap();
    if devices["cuda_error"].is_null() {
        return;
    }
    let output = checked(&spec("auto", "wrn-28-10"));
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    let message = error["error"]["message"].as_str().unwrap();
    for says in ["device is \"auto\"; allowed: cpu, to insist", "CPU cores take about", "hours"] {
        assert!(message.contains(says), "{message:?} does not say {says:?}");
    }
}

/// A binary that was built here runs where it is carried to, beside its libraries.
#[test]
fn the_run_path_holds_no_folder_of_the_machine_that_built_it() {
    let output = Command::new("readelf").args(["-d", env!("CARGO_BIN_EXE_pba-trainer")]).output();
    let Ok(output) = output else {
        println!("skipped: there is no readelf");
        return;
    };
    let listed = String::from_utf8(output.stdout).unwrap();
    let path = listed.lines().find_map(|line| line.split_once("runpath: [")).expect("there is a run path").1;
    let folders: Vec<&str> = path.trim_end_matches(']').split(':').collect();
    assert_eq!(folders[0], "$ORIGIN/../lib");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    for folder in folders {
        // A libtorch outside of the repository is where whoever set LIBTORCH has it.
        assert!(folder.starts_with("$ORIGIN/") || !Path::new(folder).starts_with(target), "{path}");
        assert!(folder.starts_with("$ORIGIN/") || std::env::var_os("LIBTORCH").is_some(), "{path}");
    }
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    // True with and without a GPU.
    refuse("search", json!({ "device": "cuda:99" }), "device", "cuda:99");
}

#[test]
fn an_evaluation_tells_a_test_error() {
    let spec = json!({ "model": "tiny", "epochs": 2, "train_size": 320, "device": "cpu", "seed": 3 });
    let evaluated = |schedule: &str| -> Value {
        let output = trainer(&["evaluate", "--schedule", schedule], &spec, &CACHE);
        assert!(output.status.success(), "{}", text(&output));
        let last = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
        serde_json::from_str(&last).unwrap()
    };
    let none = evaluated("none");
    assert_eq!((&none["event"], &none["images"]), (&json!("evaluated"), &json!(2000)));
    assert!(none["test_error"].as_f64().unwrap() < 0.95, "{none}");
    assert_eq!(evaluated("none"), none, "the same seed, the same error");
    assert_ne!(evaluated("cifar10-pba"), none);
}

/// The built-in dataset as a packed folder, with its `test` split as the split that is named.
fn packed_with(split: &str) -> TempDir {
    let mut packed = fs::read_dir(&*CACHE).unwrap().map(|entry| entry.unwrap().path());
    let packed = packed.find(|path| path.join("train.arrow").exists()).unwrap();
    let folder = TempDir::new().unwrap();
    fs::copy(packed.join("train.arrow"), folder.path().join("train.arrow")).unwrap();
    fs::copy(packed.join("test.arrow"), folder.path().join(format!("{split}.arrow"))).unwrap();
    folder
}

#[test]
fn members_are_scored_with_the_datasets_own_val_split() {
    let [with_val, without] = ["val", "test"].map(packed_with);
    let run = |dataset: &TempDir, arguments: &[&str], spec: &Value| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pba-trainer"));
        command.args(arguments).args(["--spec", "-", "--dataset"]).arg(dataset.path());
        command.arg("--cache").arg(&*CACHE);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        spawn(command, spec).wait_with_output().unwrap()
    };
    let mut spec = small_spec();
    spec["val_split"] = "val".into();
    // All of the 10,000 images of train, and none of them to score with.
    spec["train_size"] = 10_000.into();
    spec["val_size"] = 2_000.into();
    assert!(run(&with_val, &["search", "--check"], &spec).status.success());
    for (field, value, allowed) in [
        ("train_size", 10_001, "1..=10000, the images of the train"),
        ("val_size", 2_001, "1..=2000, the images"),
    ] {
        let mut wrong = spec.clone();
        wrong[field] = value.into();
        let output = run(&with_val, &["search", "--check"], &wrong);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(allowed), "{}", text(&output));
    }
    let output = run(&without, &["search", "--check"], &spec);
    assert!(
        text(&output).contains("val_split is \\\"val\\\"; allowed: train, as the dataset has no"),
        "{}",
        text(&output)
    );

    let scores = |split: &str| {
        let mut spec = small_spec();
        spec["epochs"] = 2.into();
        spec["val_split"] = split.into();
        let folder = TempDir::new().unwrap();
        let output = run(&with_val, &["search", "--dir", folder.path().to_str().unwrap()], &spec);
        assert!(output.status.success(), "{}", text(&output));
        let journal = fs::read_to_string(folder.path().join("events.jsonl")).unwrap();
        let scored: Value = serde_json::from_str(journal.lines().nth(1).unwrap()).unwrap();
        assert_eq!(scored["event"], "scored");
        scored["scores"].clone()
    };
    assert_ne!(scores("val"), scores("train"), "the same members, other images");
}

#[test]
fn auto_is_the_device_that_the_server_says() {
    let mut spec = small_spec();
    spec["device"] = "auto".into();
    let output = trainer(&["search", "--check", "--auto", "cuda:99"], &spec, &CACHE);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("device is \\\"cuda:99\\\""), "{}", text(&output));
    assert!(trainer(&["search", "--check", "--auto", "cpu"], &spec, &CACHE).status.success());
    spec["device"] = "cpu".into();
    assert!(trainer(&["search", "--check", "--auto", "cuda:99"], &spec, &CACHE).status.success());
    let output = trainer(&["search", "--check", "--auto", "tpu"], &spec, &CACHE);
    assert!(text(&output).contains("auto, cpu, cuda, cuda:N"), "{}", text(&output));
}

#[test]
fn a_seed_of_its_own_chooses_the_images() {
    let evaluated = |seeds: Value| -> Value {
        let mut spec = json!({ "model": "tiny", "epochs": 1, "train_size": 64, "device": "cpu" });
        spec.as_object_mut().unwrap().extend(seeds.as_object().unwrap().clone());
        let output = trainer(&["evaluate"], &spec, &CACHE);
        assert!(output.status.success(), "{}", text(&output));
        let last = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
        serde_json::from_str(&last).unwrap()
    };
    let default = evaluated(json!({ "seed": 3 }));
    assert_eq!(evaluated(json!({ "seed": 3, "split_seed": 3 })), default);
    let other_images = evaluated(json!({ "seed": 3, "split_seed": 4 }));
    assert_ne!(other_images, default, "other images");
    assert_ne!(evaluated(json!({ "seed": 4 })), other_images, "the same images, in another order");
}

/// What a run ends with: its journal and its members, bit by bit.
fn ending(folder: &Path) -> (String, BTreeMap<String, Vec<u8>>) {
    let last = fs::read(folder.join(checkpoints(folder).pop().unwrap())).unwrap();
    let members = SafeTensors::deserialize(&last).unwrap();
    let numbers = members.iter().map(|(name, tensor)| (name.to_owned(), tensor.data().to_vec()));
    (fs::read_to_string(folder.join("events.jsonl")).unwrap(), numbers.collect())
}

#[test]
fn networks_that_are_random_themselves_repeat_themselves() {
    for model in ["shake-shake-8-2x16d", "pyramidnet-11-a48-shakedrop"] {
        let spec = json!({
            "model": model, "population": 2, "epochs": 4, "perturbation_interval": 2, "batch_size": 4,
            "train_size": 8, "val_size": 10, "seed": 11, "device": "cpu",
        });
        let [undisturbed, killed, on_one_core] = [(); 3].map(|()| TempDir::new().unwrap());
        complete(undisturbed.path(), &spec);
        let expected = ending(undisturbed.path());
        let mut child = search_in(killed.path(), &spec);
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        told.by_ref().find(|line| line.contains("\"scored\"")).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        complete(killed.path(), &spec);
        assert!(ending(killed.path()) == expected, "{model}: resumed, it ends otherwise");
        let output = spawn(on_a_core(on_one_core.path()), &spec).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert!(ending(on_one_core.path()) == expected, "{model}: on one core it ends otherwise");
    }
}

/// Runs an evaluation with a published schedule in a folder.
fn evaluation_in(folder: &Path, spec: &Value) -> Child {
    spawn(command(&["evaluate", "--dir", folder.to_str().unwrap()], &CACHE), spec)
}

#[test]
fn an_evaluation_that_is_killed_ends_as_if_nothing_had_happened() {
    let (whole, killed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let spec = json!({
        "model": "tiny", "epochs": 12, "train_size": 320, "device": "cpu", "seed": 3, "schedule": "cifar10-pba",
        "ablation": "flatten",
    });
    let journal = |folder: &Path| fs::read_to_string(folder.join("events.jsonl")).unwrap_or_default();
    let output = evaluation_in(whole.path(), &spec).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let expected = journal(whole.path());
    assert_eq!(expected.lines().count(), 14, "{expected}");
    assert_eq!(checkpoints(whole.path()).last().unwrap(), "checkpoint-000012.safetensors");
    for lines in [1, 5, 12] {
        let mut child = evaluation_in(killed.path(), &spec);
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let seen = journal(killed.path()).lines().count();
        told.by_ref().filter(|line| line.contains("\"trained\"")).nth(lines - seen.clamp(1, lines));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            expected.starts_with(&journal(killed.path())),
            "what happened twice happened in the same way"
        );
    }
    let output = evaluation_in(killed.path(), &spec).wait_with_output().unwrap();
    assert!(text(&output).starts_with("{\"event\":\"resumed\",\"epoch\":"), "{}", text(&output));
    assert_eq!(journal(killed.path()), expected);
    assert_eq!(checkpoints(killed.path()).last(), checkpoints(whole.path()).last());

    let mut other = spec;
    other["seed"] = 4.into();
    let output = evaluation_in(killed.path(), &other).wait_with_output().unwrap();
    assert!(text(&output).contains("the run folder holds another evaluation"), "{}", text(&output));
}

#[test]
fn bench_and_devices_print_what_there_is() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_pba-trainer")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let devices: Value = serde_json::from_str(&run(&["devices"])).unwrap();
    assert_eq!(devices["devices"][0]["device"], "cpu");
    let table = run(&[
        "bench",
        "--model",
        "tiny",
        "--population",
        "2",
        "--steps",
        "2",
        "--val-size",
        "10",
        "--device",
        "cpu",
    ]);
    for strategy in ["| sequential |", "| stacked |", "| graphs | not here"] {
        assert!(table.contains(strategy), "{table}");
    }
}
