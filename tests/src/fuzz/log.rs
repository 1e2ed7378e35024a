//! Lineage logs of the reference and of Ray Tune, and policies as lists of numbers: what is imported has the
//! epochs that were asked for, ends with the policy of the last line, and is written and read as the same.
//!
//! An input is the number of epochs in two bytes, then the text.

use std::collections::HashMap;

use pba_schedules::formats::reference;
use pba_schedules::{Pairs, Policy};
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
        b"1, 2, ",
        b"]\n[",
        b"{\"lr\": 0.1, ",
        b"4294967295",
        b"1e9",
        b"-0.0",
        b"3.0",
        b"null",
    ],
    bytes_max: 4096,
    mutations: 1500,
};

fn check(bytes: &[u8]) {
    let Some((epochs, text)) = bytes.split_first_chunk::<2>() else { return };
    let epochs = u32::from(u16::from_le_bytes(*epochs)).min(EPOCHS_MAX);
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Ok(schedule) = reference::read(text, "log", epochs) {
        round_trip(&schedule);
        assert_eq!((schedule.epochs(), schedule.name()), (epochs, "log"));
        let last = text.lines().rfind(|line| !line.trim().is_empty()).expect("it has an exploit");
        // What is passed over may be a number that no `f64` holds, so it stays text.
        let entries: Vec<Box<RawValue>> =
            serde_json::from_str(&last.replace('\'', "\"")).expect("it was read");
        let mut after = &entries[5];
        let configuration: HashMap<String, Box<RawValue>>;
        if after.get().starts_with('{') {
            configuration = serde_json::from_str(after.get()).expect("it was read");
            after = &configuration["hp_policy"];
        }
        let levels: Vec<u8> = serde_json::from_str(after.get()).expect("it was read");
        let levels: Vec<String> = levels.iter().map(u8::to_string).collect();
        let policy = Policy::Pairs(Pairs::from_csv(&levels.join(",")).expect("it was read"));
        assert_eq!(*schedule.at_search_epoch(epochs - 1), policy, "the last policy holds to the end");
    }
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
    let logs = [
        line("5", "6", 1, 9, 9) + &line("2", "7", 2, 1, 2) + &line("1", "2", 5, 2, 3),
        line("2", "7", 3, 1, 2) + &line("1", "2", 3, 2, 3),
        ray,
    ];
    logs.map(|log| [&8u16.to_le_bytes(), log.as_bytes()].concat()).into()
}
