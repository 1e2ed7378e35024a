//! Logs of the reference and of Ray Tune, of one lineage and of a population, and policies in all forms: what is
//! imported has the epochs that were asked for, ends with the policy of the last line of its trial, and is written and read
//! as the same, also by way of a log for Ray's replay.
//!
//! An input is the number of epochs in two bytes, then the text.

use std::collections::HashMap;

use pba_schedules::formats::{population, ray_tune, reference};
use pba_schedules::{Op, Pairs, Policy, Schedule};
use pba_types::limits::EPOCHS_MAX;
use serde_json::value::RawValue;

use crate::fuzz::schedule::round_trip;
use crate::fuzz::{Target, as_it_is};

pub(super) const TARGET: Target = Target {
    name: "log",
    check,
    mend: as_it_is,
    seeds,
    words: &[
        b"['",
        b"', '",
        b"hp_policy",
        b"\"hp_policy\": [",
        b"\"policy\": {",
        b"{\"train_loop_config\": ",
        b"\"Rotate\": [1, 2, 3, 4]",
        b"_00002",
        b"1, 2, ",
        b"]\n[",
        b"{\"lr\": 0.1, ",
        b"4294967295",
        b"1e9",
        b"-0.0",
        b"3.0",
        b"null",
        b"NaN",
        b"-Infinity",
        b"\xef\xbb\xbf",
    ],
    bytes_max: 8192,
    mutations: 1500,
};

fn check(bytes: &[u8]) {
    let Some((epochs, text)) = bytes.split_first_chunk::<2>() else { return };
    let epochs = u32::from(u16::from_le_bytes(*epochs)).min(EPOCHS_MAX);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let lines: Vec<&str> = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    if let Ok(schedule) = reference::read(text, "log", epochs) {
        check_schedule(&schedule, epochs, lines.last().expect("it has an exploit"));
    }
    // Every trial that copied another, by its tag, as many as there are in a log of this length.
    for line in &lines {
        let Some([target, ..]) = entries(line) else { return };
        let target = tag(&target);
        let Ok(schedule) = population::read(text, &target, "log", epochs) else { continue };
        let is_its = |line: &&&str| entries(line).is_some_and(|[first, ..]| tag(&first) == target);
        check_schedule(
            &schedule,
            epochs,
            lines.iter().rfind(is_its).expect("the trial was read from a line"),
        );
    }
    // By number or id the same trial is found, or none.
    for trial in ["2", "a1b2c_00002"] {
        if let Ok(schedule) = population::read(text, trial, "log", epochs) {
            round_trip(&schedule);
        }
    }
}

fn check_schedule(schedule: &Schedule, epochs: u32, last: &str) {
    round_trip(schedule);
    assert_eq!((schedule.epochs(), schedule.name()), (epochs, "log"));
    let [.., after] = entries(last).expect("it was read");
    let policy = Policy::Pairs(Pairs::from_csv(&levels(&after).join(",")).expect("it was read"));
    assert_eq!(*schedule.at_search_epoch(epochs - 1), policy, "the last policy holds to the end");
    let log = ray_tune::write(schedule).expect("60 integers are what logs have");
    let again = reference::read(&log, "log", epochs).expect("it is a log");
    assert_eq!(again.digest(), schedule.digest(), "{log}");
}

/// What a line lists. What is passed over may be a number that no `f64` holds, so it stays text.
fn entries(line: &str) -> Option<[Box<RawValue>; 6]> {
    let is_python = !line.contains('"');
    let json = if is_python { line.replace('\'', "\"") } else { line.to_owned() };
    let read = |json: &str| serde_json::from_str(json).ok();
    // What Python writes for numbers that JSON does not know, where it does not matter.
    read(&json).or_else(|| read(&json.replace("-Infinity", "0").replace("Infinity", "0").replace("NaN", "0")))
}

fn tag(entry: &RawValue) -> String {
    serde_json::from_str(entry.get()).unwrap_or_else(|_| entry.get().to_owned())
}

/// The 60 integers of a configuration that was read.
fn levels(config: &RawValue) -> Vec<String> {
    let object = |value: &RawValue| -> HashMap<String, Box<RawValue>> {
        serde_json::from_str(value.get()).expect("it was read")
    };
    let mut policy = config.to_owned();
    if policy.get().starts_with('{') {
        let mut keys = object(&policy);
        if !["hp_policy", "policy"].iter().any(|key| keys.contains_key(*key)) {
            keys = object(&keys["train_loop_config"]);
        }
        policy = keys.remove("hp_policy").or_else(|| keys.remove("policy")).expect("it was read");
    }
    let digits = |text: &str| {
        let levels = text.split(|c: char| !c.is_ascii_digit()).filter(|level| !level.is_empty());
        levels.map(str::to_owned).collect::<Vec<_>>()
    };
    if !policy.get().starts_with('{') {
        let text: String = serde_json::from_str(policy.get()).unwrap_or_else(|_| policy.get().to_owned());
        return digits(&text);
    }
    let ops = object(&policy);
    let slots: Vec<_> = Op::PAPER.iter().map(|op| digits(ops[op.name()].get())).collect();
    [0, 2]
        .into_iter()
        .flat_map(|first| slots.iter().flat_map(move |slots| slots[first..first + 2].to_vec()))
        .collect()
}

fn seeds() -> Vec<Vec<u8>> {
    let levels = |first: u32| {
        let rest = (1..60).map(|place| if place % 2 == 1 { place % 10 } else { place % 11 });
        std::iter::once(first).chain(rest).map(|level| level.to_string()).collect::<Vec<_>>().join(", ")
    };
    let line = |target: &str, clone: &str, epoch: u32, before, after| {
        format!("['{target}', '{clone}', {epoch}, {epoch}, [{}], [{}]]\n", levels(before), levels(after))
    };
    let ray = format!(
        "[1, 2, 3, 3.0, {{\"lr\": 0.1, \"hp_policy\": [{}]}}, {{\"hp_policy\": [{}]}}]\n",
        levels(1),
        levels(2)
    );
    let by_op = |first: u32| {
        let slots = Op::PAPER
            .iter()
            .enumerate()
            .map(|(at, op)| format!("\"{op}\": [{}, 0, 1, 2]", at as u32 % first));
        let slots = slots.collect::<Vec<_>>();
        format!("{{\"train_loop_config\": {{\"policy\": {{{}}}}}, \"lr\": 1e-3}}", slots.join(", "))
    };
    let tune = |target: &str, clone: &str, epoch: u32, before: &str, after: &str| {
        format!("[\"{target}_lr=0.1\", \"{clone}_lr=0.1\", {epoch}, {epoch}, {before}, {after}]\n")
    };
    let text = |first| format!("{{\"policy\": \"{}\"}}", levels(first));
    let global = tune("0", "3", 1, &by_op(1), &text(2))
        + &tune("2", "0", 3, &text(2), &by_op(5))
        + &tune("1", "3", 4, &by_op(1), &by_op(3))
        + &tune("0", "2", 6, &by_op(5), &by_op(4));
    let no_number = format!("[3, 2, 4, 4, {{\"loss\": NaN, \"policy\": {:?}}}, {}]\n", [0; 60], text(1));
    let logs = [
        no_number,
        line("5", "6", 1, 9, 9) + &line("2", "7", 2, 1, 2) + &line("1", "2", 5, 2, 3),
        line("2", "7", 3, 1, 2) + &line("1", "2", 3, 2, 3),
        ray,
        line("5", "6", 1, 9, 9) + &line("2", "7", 2, 1, 2) + &line("5", "2", 5, 2, 3),
        global,
    ];
    logs.map(|log| [&8u16.to_le_bytes(), log.as_bytes()].concat()).into()
}
