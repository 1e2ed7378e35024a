//! The query of a stream and of other routes: what is read is within its bounds, and written, it is read as the
//! same; so is each part that has a form of its own.

use pba_augment::Base;
use pba_schedules::{Pairs, library};
use pba_types::limits::{BATCH_SIZE_MAX, EPOCHS_MAX};
use pba_wire::{Apply, EpochRequest, Preview, Query, checksum};

use crate::fuzz::{Target, as_it_is};

pub(super) const TARGET: Target = Target {
    name: "query",
    check,
    mend: as_it_is,
    seeds,
    words: &[
        b"split=",
        b"schedule=",
        b"epochs=",
        b"policy=",
        b"ablation=",
        b"batch_size=",
        b"seed=",
        b"shuffle=",
        b"shard=",
        b"skip=",
        b"start=",
        b"step=",
        b"drop_last=",
        b"base=",
        b"&",
        b"=",
        b"%2C",
        b"%2F",
        b"true",
        b"18446744073709551615",
        b"4294967295",
        b"65536",
        b"65537",
        b"1000000",
        b"random_resized_crop:",
        b"resize:",
        b"center_crop:",
        b"pad_crop:",
        b"flip",
        b"cutout:",
        b"identity",
        b"randaugment:",
        b"+",
        b"\xef\xbf\xbd",
    ],
    bytes_max: 1024,
    mutations: 6000,
};

fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(request) = EpochRequest::from_query(&text) {
        round_trip(&request);
        let EpochRequest { batch_size, shard, step, epochs, .. } = request;
        assert!((1..=BATCH_SIZE_MAX).contains(&batch_size) && shard.0 < shard.1 && step > 0);
        assert!(epochs.is_none_or(|epochs| (1..=EPOCHS_MAX).contains(&epochs)));
        // A client that writes it otherwise asks for the same, and the checksum is of what was asked.
        let canonical = request.to_query();
        let escaped = |part: &str| part.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let pairs = pba_wire::query::pairs(&canonical).expect("it was read").into_iter();
        let again: Vec<_> =
            pairs.map(|(name, value)| format!("{}={}", escaped(&name), escaped(&value))).collect();
        let sum = |query: &str| checksum::of_request("GET", &format!("/d?{query}"));
        assert_eq!(sum(&canonical), sum(&again.join("&")));
        for text in [&request.base, &request.policy, &request.schedule].into_iter().flatten() {
            parts(text);
        }
    }
    if let Ok(preview) = <(EpochRequest, Preview)>::from_query(&text) {
        round_trip(&preview);
    }
    if let Ok(apply) = Apply::from_query(&text) {
        round_trip(&apply);
    }
    parts(&text);
}

#[track_caller]
fn round_trip<Q: Query + PartialEq + std::fmt::Debug>(query: &Q) {
    let text = query.to_query();
    let again = Q::from_query(&text);
    assert_eq!(again.as_ref().ok(), Some(query), "{text:?}: {again:?}");
    assert_eq!(again.map(|again| again.to_query()), Ok(text));
}

fn parts(text: &str) {
    if let Ok(base) = text.parse::<Base>() {
        assert_eq!(base.to_string().parse(), Ok(base), "{text:?}");
    }
    if let Ok(policy) = Pairs::from_csv(text) {
        let values = policy.hyperparameters();
        assert_eq!(values.len(), 60);
        let written = values.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        assert_eq!(Pairs::from_csv(&written), Ok(policy));
    }
    // The library's own are documents, which are read each time.
    if text.starts_with("randaugment")
        && let Ok(Some(schedule)) = library::named(text)
    {
        assert_eq!(schedule.name(), text, "a policy by name has that name");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let policy = vec!["3,4"; 30].join(",");
    [
        "split=test&schedule=cifar10-pba&epochs=1800&ablation=flatten&batch_size=7&seed=18446744073709551615\
         &shuffle=false&shard=2%2F3&skip=30&start=4&step=5&drop_last=true&base=pad_crop%3A4%2Cflip",
        &format!("policy={policy}&split=val"),
        "base=random_resized_crop:224,flip,cutout:16&n=64&schedule=randaugment:2:9",
        "resize:256,center_crop:224,pad_crop:4",
        "op=Rotate&magnitude=5&sign=-1&x=3&y=4",
        "randaugment:3:12",
        &policy,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
