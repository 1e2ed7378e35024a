//! Where the settings of a server come from, as `pba serve --check` says.

use std::path::Path;

use pba_tests::{Pba, binary};
use serde_json::{Value, json};

fn check(folder: &Path, environment: &[(&str, &str)], flags: &[&str]) -> Value {
    let mut command = binary::command(folder, &[&["serve", "--check"], flags].concat());
    command.env_remove("PBA_SAVE_SECONDS");
    Pba::from(command.envs(environment.iter().copied()).output().unwrap()).json()
}

#[test]
fn each_setting_names_its_source() {
    let folder = tempfile::tempdir().unwrap();
    for dataset in ["here", "there"] {
        let class = folder.path().join(dataset).join("class");
        std::fs::create_dir_all(&class).unwrap();
        std::fs::write(class.join("image.png"), "").unwrap();
    }
    let text = "threads = 2\nstreams_max = 20\nbatches_ahead = 5\ndrain_seconds = 7\n[datasets.mine]\npath = \"here\"\n\
                [datasets.other]\npath = \"here\"\n";
    std::fs::write(folder.path().join("pba.toml"), text).unwrap();
    let environment = [
        ("PBA_STREAMS_MAX", "30"),
        ("PBA_BATCHES_AHEAD", "6"),
        ("PBA_JOBS_MAX", ""),
        ("PBA_LISTEN", "127.0.0.1:9"),
    ];
    let checked = check(folder.path(), &environment, &["--batches-ahead", "9", "--dataset", "other=there"]);
    let sources = &checked["sources"];
    for (setting, source) in [
        ("batches_ahead", json!({ "from": "flag", "name": "--batches-ahead" })),
        ("streams_max", json!({ "from": "variable", "name": "PBA_STREAMS_MAX" })),
        ("listen", json!({ "from": "variable", "name": "PBA_LISTEN" })),
        ("threads", json!({ "from": "file", "name": "pba.toml" })),
        ("drain_seconds", json!({ "from": "file", "name": "pba.toml" })),
        ("body_bytes_max", json!({ "from": "default" })),
        // Empty is as if it were not set.
        ("jobs_max", json!({ "from": "default" })),
        ("trainer", json!({ "from": "default" })),
    ] {
        assert_eq!(sources[setting], source, "{setting}");
    }
    // All that it prints, and all that it does not print as it is not set.
    for setting in checked.as_object().unwrap().keys() {
        let is_known = ["certificate", "datasets", "sources"].contains(&setting.as_str())
            || sources[setting].is_object();
        assert!(is_known, "{setting} has no source");
    }
    // And the other way round; without a value there is null.
    assert_eq!((&checked["insecure"], &sources["insecure"]), (&json!(false), &json!({ "from": "default" })));
    let of_dataset = |name: &str| checked["datasets"][name]["source"].clone();
    assert_eq!(of_dataset("mine"), json!({ "from": "file", "name": "pba.toml" }));
    assert_eq!(of_dataset("other"), json!({ "from": "flag", "name": "--dataset" }));
    assert_eq!(of_dataset("shapes"), json!({ "from": "default" }));

    // Tokens come from a file of their own.
    let hash = "0".repeat(64);
    let table = format!("[[tokens]]\nname = \"ops\"\nrole = \"admin\"\nsha256 = \"{hash}\"\n");
    std::fs::write(folder.path().join("tokens.toml"), table).unwrap();
    let checked = check(folder.path(), &[], &["--tokens-file", "tokens.toml"]);
    assert_eq!(checked["tokens"], json!([{ "name": "ops", "role": "admin" }]));
    assert_eq!(checked["sources"]["tokens"], json!({ "from": "file", "name": "tokens.toml" }));
    assert_eq!(checked["sources"]["tokens_file"], json!({ "from": "flag", "name": "--tokens-file" }));

    // A file that is named, by a flag or a variable, and none.
    std::fs::rename(folder.path().join("pba.toml"), folder.path().join("mine.toml")).unwrap();
    let named = json!({ "from": "file", "name": "mine.toml" });
    assert_eq!(check(folder.path(), &[], &["--config", "mine.toml"])["sources"]["threads"], named);
    assert_eq!(check(folder.path(), &[("PBA_CONFIG", "mine.toml")], &[])["sources"]["threads"], named);
    assert_eq!(check(folder.path(), &[], &[])["sources"]["threads"], json!({ "from": "default" }));
}
