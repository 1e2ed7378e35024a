//! Specs of searches, evaluations and comparisons: what is read is written and read as the same, and all sums of
//! it stay within their types.

use pba_search::{ComparisonSpec, EvaluationSpec, SearchSpec, Spec};
use pba_types::limits::{BATCH_SIZE_MAX, EPOCHS_MAX};

use crate::fuzz::{Target, as_it_is};

pub(super) const TARGET: Target = Target {
    name: "spec",
    check,
    mend: as_it_is,
    seeds,
    words: &[
        b"\"dataset\":",
        b"\"model\":",
        b"\"epochs\":",
        b"\"batch_size\":",
        b"\"lr\":",
        b"\"weight_decay\":",
        b"\"seed\":",
        b"\"population\":",
        b"\"perturbation_interval\":",
        b"\"ops\":[",
        b"\"Rotate\"",
        b"\"preset\":",
        b"\"cifar10\"",
        b"\"rsvhn\"",
        b"\"wrn-40-2\"",
        b"\"shake-shake-26-2x96d\"",
        b"\"tiny\"",
        b"\"train_size\":",
        b"\"val_size\":",
        b"\"arms\":[",
        b"\"none\"",
        b"\"cutout:8\"",
        b"\"randaugment:tuned\"",
        b"\"random:3\"",
        b"@shuffled",
        b"\"seeds\":",
        b"\"schedule\":",
        b"\"device\":\"cuda:1\"",
        b"\"strategy\":",
        b"\"precision\":",
        b"\"lr_schedule\":",
        b"\"steps\":[",
        b"\"factor\":",
        b"\"groups\":",
        b"\"margin\":",
        b"\"compare\":",
        b"null",
        b"1e308",
        b"-0.0",
        b"18446744073709551615",
    ],
    bytes_max: 2048,
    mutations: 2400,
};

fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    one::<SearchSpec>(text);
    one::<EvaluationSpec>(text);
    one::<ComparisonSpec>(text);
}

fn one<S: Spec + std::fmt::Debug>(text: &str) {
    let Ok(spec) = S::from_json(text) else { return };
    let written = serde_json::to_string(&spec).expect("a spec is JSON");
    let again = S::from_json(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(again, spec, "{written}");
    let stored: S = serde_json::from_str(&written).expect("as it is stored");
    assert_eq!(stored, spec);
    let training = spec.training();
    assert!((1..=EPOCHS_MAX).contains(&training.epochs));
    assert!((1..=BATCH_SIZE_MAX as usize).contains(&training.batch_size));
    assert!(training.lr > 0.0 && training.lr.is_finite() && training.weight_decay.is_finite());
    assert!(spec.models() >= 1 && spec.models_at_once() <= spec.models());
    let _ = spec.images();
}

fn seeds() -> Vec<Vec<u8>> {
    [
        r#"{}"#,
        r#"{"ops": ["Rotate"], "population": 8, "epochs": 30, "seed": 1, "dataset": "shapes", "model": "tiny"}"#,
        r#"{"preset": "rcifar10"}"#,
        r#"{"preset": "cifar10", "model": "wrn-28-10", "schedule": "none"}"#,
        r#"{"arms": ["none", "trivial-augment-wide", "randaugment:tuned", "cifar10-pba@shuffled"], "seeds": 5, "epochs": 24}"#,
        r#"{"epochs": 3, "lr": 0.1, "lr_schedule": {"steps": [1, 2], "factor": 0.1}, "train_size": 100, "device": "cpu"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
