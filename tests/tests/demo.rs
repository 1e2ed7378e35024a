//! `pba demo`, beside which `make run` builds the trainer.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use pba_tests::binary;
use pba_tests::search::{Script, signal};
use pba_tests::server::data_folder;

/// The lines up to the first one that begins like this.
fn read_to(lines: &mut impl Iterator<Item = std::io::Result<String>>, beginning: &str) -> Vec<String> {
    let mut read = Vec::new();
    loop {
        let line = lines.next().unwrap_or_else(|| panic!("no {beginning:?} in {read:?}")).unwrap();
        let found = line.starts_with(beginning);
        read.push(line);
        if found {
            return read;
        }
    }
}

#[test]
fn the_demo_says_when_searches_are_ready_and_where_the_dashboard_is() {
    let data = data_folder();
    let trainer = Script::idles();
    let later = trainer.file("built-later");
    let mut demo = binary::command(data.path(), &["demo", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data.path())
        .arg("--trainer")
        .arg(&later)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let first = read_to(&mut lines, "dashboard: ");
    assert!(!first.iter().any(|line| line.contains("searches are ready")), "{first:?}");
    let dashboard = first.last().unwrap();

    std::fs::rename(trainer.path(), &later).unwrap();
    let then = read_to(&mut lines, "dashboard: ");
    let url = dashboard.strip_prefix("dashboard: ").unwrap().trim_end_matches('/');
    let [ready, again] = &then[..] else { panic!("{then:?}") };
    assert!(ready.contains("searches are ready") && ready.contains(&format!("--server {url}")), "{ready}");
    assert_eq!(again, dashboard);
    signal(demo.id(), "TERM");
    assert_eq!(demo.wait().unwrap().code(), Some(0));
}
