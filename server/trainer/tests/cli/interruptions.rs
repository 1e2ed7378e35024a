//! Whatever ends it, it goes on as if nothing had happened.

use super::*;

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
    let arguments = ["search", "--dir", folder.to_str().unwrap(), "--save-seconds", "3600"];
    let command = command(&arguments, &CACHE);
    let mut child = spawn(command, spec);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.by_ref().any(|said| said.contains(line)));
    assert_eq!(checkpoints(folder), Vec::<String>::new());
    Command::new("sh").args(["-c", &format!("kill {}", child.id())]).status().unwrap();
    assert_eq!(lines.last().unwrap(), "{\"event\":\"interrupted\"}");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn an_interruption_costs_no_epoch_but_the_last() {
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
        "\"checkpoint\",\"epoch\":{},",
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

/// A trainer that has the folder of a search locked by another one, and says that it waits for it; and what else it
/// says.
fn waiting_in(folder: &Path) -> (Child, fs::File, BufReader<ChildStdout>) {
    let lock = fs::File::create(folder.join("lock")).unwrap();
    lock.try_lock().unwrap();
    let parent = std::process::id().to_string();
    let arguments = ["search", "--dir", folder.to_str().unwrap(), "--parent", &parent];
    let mut child = spawn(command(&arguments, &CACHE), &small_spec());
    let mut told = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(
        line.starts_with(r#"{"event":"waits","reason":"another trainer still works in the folder"#),
        "{line}"
    );
    (child, lock, told)
}

/// As after a server was killed and started again while its first trainer still ends.
#[test]
fn a_trainer_of_a_server_waits_for_the_folder() {
    let folder = TempDir::new().unwrap();
    let (mut child, lock, told) = waiting_in(folder.path());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(child.try_wait().unwrap(), None, "it does not wait");
    assert!(!folder.path().join("events.jsonl").exists(), "it works in a folder that is not its own");
    drop(lock);
    let told = told.lines().map(Result::unwrap).last().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && told.contains("\"progress\""), "{told} {}", text(&output));

    let folder = TempDir::new().unwrap();
    let (child, _lock, _told) = waiting_in(folder.path());
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
    command.args(["-c", "ulimit -f 600; exec \"$0\" search --spec - --dataset shapes --save-seconds 0 --cache \"$1\" --dir \"$2\""]);
    command.arg(env!("CARGO_BIN_EXE_pba-trainer")).arg(&*CACHE).arg(folder.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn(command, &small_spec()).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(exit::DISK_FULL.into()), "{}", text(&output));
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
