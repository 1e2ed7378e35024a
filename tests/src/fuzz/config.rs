//! The configuration of a server: what is read of a file and of flags keeps to its bounds, and written as a file
//! it is read as the same.
//!
//! An input is a file, and perhaps a line `---` with the flags after it, one a line.

use pba_server::untrusted;
use serde_json::{Map, Value};

use crate::fuzz::{Target, as_it_is};

pub(super) const TARGET: Target = Target {
    name: "config",
    check,
    mend: as_it_is,
    seeds,
    words: &[
        b"listen = ",
        b"socket = ",
        b"socket_mode = ",
        b"socket_role = ",
        b"[[tokens]]",
        b"sha256 = ",
        b"hosts = [",
        b"data_dir = ",
        b"insecure = true",
        b"threads = ",
        b"streams_max = ",
        b"memory_bytes_max = ",
        b"[datasets.",
        b"path = ",
        b"base = ",
        b"\n---\n",
        b"--threads=",
        b"--dataset=",
        b"--insecure",
        b"--listen=",
        b"0.0.0.0:0",
        b"[::1]:80",
        b"\"660\"",
        b"9223372036854775807",
        b"-1",
        b"0x10",
        b"1_000",
        b"\"\"\"",
        b"'''",
        b"{ path = \"x\" }",
        b"save_seconds = 0",
        b"nan",
        b".example.org",
    ],
    bytes_max: 8192,
    mutations: 750,
};

fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (file, flags) = text.split_once("\n---\n").unwrap_or((&text, ""));
    let flags: Vec<&str> = flags.lines().collect();
    let Ok(found) = untrusted::configuration(file, &flags) else { return };
    let mut settings = settings_in(&found);
    let number = |name: &str| settings[name].as_u64().expect("a number");
    assert!((1..=1024).contains(&number("threads")) && (1..=64).contains(&number("batches_ahead")));
    assert!(number("memory_bytes_max") >= 16 << 20 && number("body_bytes_max") <= 1 << 32);
    let listen: std::net::SocketAddr =
        settings["listen"].as_str().expect("an address").parse().expect("an address");
    // With which tokens strangers may come is not told, so that they come without any.
    if !listen.ip().is_loopback() {
        settings.insert("insecure".to_owned(), true.into());
    }
    let lines = settings.iter().filter(|(_, value)| !value.is_null());
    // TOML's texts and lists of texts are JSON's, but for a slash before a slash and DEL.
    let lines =
        lines.map(|(name, value)| format!("{name} = {}\n", value.to_string().replace('\u{7f}', "\\u007f")));
    let written = lines.collect::<String>();
    match untrusted::configuration(&written, &[]) {
        Ok(again) => assert_eq!(settings_in(&again), settings, "{written}"),
        Err(error) => panic!("{error}: {written}"),
    }
}

/// The settings, but for the tokens: of those, what the file holds is not told.
fn settings_in(found: &str) -> Map<String, Value> {
    let mut settings: Map<String, Value> = serde_json::from_str(found).expect("settings by name");
    settings.remove("tokens");
    settings
}

fn seeds() -> Vec<Vec<u8>> {
    let sample = include_str!("../../../deploy/pba.toml");
    let uncommented: String = sample
        .lines()
        .filter_map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.contains(" = ") => Some(format!("{setting}\n")),
            Some(_) => None,
            None => Some(format!("{line}\n")),
        })
        .collect();
    [
        sample.to_owned(),
        uncommented,
        "threads = 2\nstreams_max = 9\nlisten = \"0.0.0.0:0\"\ninsecure = true\n".to_owned(),
        "[datasets.b]\npath = \"/data/b\"\nbase = \"cutout:20\"\n\n---\n--threads=3\n--dataset=a=/data/a"
            .to_owned(),
        "hosts = [\"pba.example.org\", \".example.org\"]\nsocket = \"/tmp/x\"\nsocket_mode = \"660\"\n"
            .to_owned(),
    ]
    .map(String::into_bytes)
    .into()
}
