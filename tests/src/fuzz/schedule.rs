//! Documents of schedules: what is read and written is read as the same, with the same digest, in either version
//! of the format; a document that says its digest is not read as another schedule.

use pba_schedules::formats::{self, json};
use pba_schedules::{Schedule, library, random_schedule};
use pba_types::limits::{EPOCHS_MAX, NAME_BYTES_MAX};

use crate::fuzz::{Target, as_it_is, damaged, dice};

pub(super) const TARGET: Target = Target {
    name: "schedule",
    check,
    mend: as_it_is,
    seeds,
    words: &[
        b"pba-schedule/1",
        b"pba-schedule/2",
        b"\"format\"",
        b"\"name\"",
        b"\"epochs\"",
        b"\"digest\"",
        b"\"ops\"",
        b"\"segments\"",
        b"\"policy\"",
        b"\"provenance\"",
        b"\"family\"",
        b"\"pairs\"",
        b"\"levels\"",
        b"\"sub-policies\"",
        b"\"sub_policies\"",
        b"\"rand-augment\"",
        b"\"num_ops\"",
        b"\"magnitude\"",
        b"\"trivial-augment-wide\"",
        b"\"score\"",
        b"\"seed\"",
        b"null",
        b"18446744073709551616",
        b"-1",
        b"1e308",
        b"0.1",
        b"\\u0000",
        b"\"Rotate\"",
    ],
    bytes_max: BYTES_MAX,
    mutations: 1200,
};

/// The library's documents are longer where they have many segments; one segment is read as another.
const BYTES_MAX: usize = 16 << 10;

fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(schedule) = formats::read(text, None, None, None) {
        round_trip(&schedule);
        let mut dice = dice(bytes);
        let kept = json::write_with_digest(&schedule);
        for _ in 0..4 {
            let damaged = damaged(kept.as_bytes(), &mut dice);
            if let Some(found) = std::str::from_utf8(&damaged).ok().and_then(|text| json::read(text).ok()) {
                // The name and where it comes from are not in the digest; a damaged key is the end of it.
                let is_same = found.segments() == schedule.segments();
                assert!(is_same || !damaged.windows(8).any(|key| key == b"\"digest\""), "another schedule");
            }
        }
    }
    if let Ok(renamed) = formats::read(text, Some("mine"), Some(7), None) {
        assert_eq!(renamed.name(), "mine");
        round_trip(&renamed);
    }
}

/// Checks that a schedule is written and read as the same, and keeps to the bounds.
#[track_caller]
pub(super) fn round_trip(schedule: &Schedule) {
    for text in [json::write(schedule), json::write_with_digest(schedule)] {
        let again = json::read(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(again, *schedule, "{text}");
        assert_eq!(again.digest(), schedule.digest());
    }
    assert!((1..=EPOCHS_MAX).contains(&schedule.epochs()) && schedule.name().len() <= NAME_BYTES_MAX);
    let mut epoch = 0;
    for segment in schedule.segments() {
        for at in [epoch, epoch + segment.epochs - 1] {
            assert_eq!(schedule.at_search_epoch(at), &segment.policy);
        }
        epoch += segment.epochs;
    }
    assert_eq!(epoch, schedule.epochs());
}

fn seeds() -> Vec<Vec<u8>> {
    let all = library::all();
    let mut seeds: Vec<String> =
        all.iter().map(json::write).chain([json::write_with_digest(&random_schedule(1))]).collect();
    seeds.retain(|text| text.len() <= BYTES_MAX);
    seeds.push(
        r#"{"format":"pba-schedule/2","name":"mixed","epochs":9,"segments":[
            {"epochs":2,"policy":{"family":"sub-policies","sub_policies":[[["Invert",1,null],["Contrast",2,6]]]}},
            {"epochs":3,"policy":{"family":"rand-augment","num_ops":2,"magnitude":9}},
            {"epochs":1,"policy":{"family":"pairs","ops":["Rotate"],"levels":[[3,4],[5,6]]}},
            {"epochs":3,"policy":{"family":"trivial-augment-wide"}}],
            "provenance":{"score":0.8125,"seed":7,"population":16,"source":"a seed","mine":{"a":[1,2.5]}}}"#
            .to_owned(),
    );
    seeds.push(
        r#"{"format":"pba-schedule/1","name":"short","epochs":3,"ops":["Rotate","Cutout"],
            "segments":[{"epochs":3,"policy":[[0,0],[10,9],[1,2],[3,4]]}],"provenance":{}}"#
            .to_owned(),
    );
    seeds.into_iter().map(String::into_bytes).collect()
}
