//! What it says of the machine, and what the binary holds of the one that built it.

use super::*;

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
