//! Golden digests: what an epoch holds, pinned for ever.
//!
//! `PBA_GOLDEN=print cargo test -p pba-tests --test golden -- --nocapture` prints the table anew.

use pba_tests::Server;

/// Request, relative to `/v1/datasets/`, and SHA-256 of the epoch ([`pba_tests::Epoch::digest`]).
const GOLDEN: &[(&str, &str)] = &[
    (
        "shapes/epochs/0/batches",
        "",
    ),
    (
        "shapes/epochs/7/batches?seed=18446744073709551615",
        "",
    ),
    (
        "shapes/epochs/0/batches?schedule=identity",
        "",
    ),
    (
        "shapes/epochs/3/batches?schedule=identity&seed=1",
        "",
    ),
    (
        "shapes/epochs/0/batches?split=test",
        "",
    ),
    (
        "shapes/epochs/0/batches?schedule=cifar10-pba",
        "",
    ),
    (
        "shapes/epochs/20/batches?schedule=cifar10-pba",
        "",
    ),
    (
        "shapes/epochs/100/batches?schedule=cifar10-pba",
        "",
    ),
    (
        "shapes/epochs/150/batches?schedule=cifar10-pba",
        "",
    ),
    (
        "shapes/epochs/199/batches?schedule=cifar10-pba",
        "",
    ),
    (
        "shapes/epochs/0/batches?schedule=svhn-pba",
        "",
    ),
    (
        "shapes/epochs/40/batches?schedule=svhn-pba",
        "",
    ),
    (
        "shapes/epochs/80/batches?schedule=svhn-pba",
        "",
    ),
    (
        "shapes/epochs/159/batches?schedule=svhn-pba",
        "",
    ),
    (
        "shapes/epochs/100/batches?schedule=cifar10-pba&ablation=flatten",
        "",
    ),
    (
        "shapes/epochs/7/batches?schedule=svhn-pba&ablation=flatten&seed=3",
        "",
    ),
    (
        "shapes/epochs/100/batches?schedule=cifar10-pba&ablation=shuffled",
        "",
    ),
    (
        "shapes/epochs/7/batches?schedule=svhn-pba&ablation=shuffled&seed=3",
        "",
    ),
    (
        "shapes/epochs/100/batches?schedule=cifar10-pba&ablation=final",
        "",
    ),
    (
        "shapes/epochs/7/batches?schedule=svhn-pba&ablation=final&seed=3",
        "",
    ),
    (
        "shapes/epochs/1234/batches?schedule=cifar10-pba&epochs=1800&seed=42",
        "",
    ),
    (
        "shapes/epochs/5/batches?split=test&shuffle=true&shard=1/3&batch_size=7&policy=10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9",
        "",
    ),
    (
        "shapes/epochs/5/batches?base=cutout:9&schedule=cifar10-pba",
        "",
    ),
];

const CHANGED: &str = "\
Epochs hold other images than before. Every training run that is under way, or that somebody wants
to repeat, breaks with it. If a change of the draws, the ops, the order or the built-in pictures is
truly wanted, say so in CHANGELOG.md, and put the new table into this test:
    PBA_GOLDEN=print cargo test -p pba-tests --test golden -- --nocapture";

#[test]
fn epochs_are_what_they_always_were() {
    let server = Server::start(&[]);
    let print = std::env::var("PBA_GOLDEN").is_ok_and(|value| value == "print");
    let mut changed = Vec::new();
    for (request, expected) in GOLDEN {
        let digest = server.epoch(request).digest();
        if print {
            println!("    (\n        \"{request}\",\n        \"{digest}\",\n    ),");
        } else if digest != *expected {
            changed.push(format!("{request}\n    expected {expected}\n    found    {digest}"));
        }
    }
    assert!(changed.is_empty(), "{CHANGED}\n{}", changed.join("\n"));
}

#[test]
fn schedules_and_datasets_are_what_they_always_were() {
    let server = Server::start(&[]);
    for (path, pointer, expected) in DIGESTS {
        let found = server.get(path).json();
        assert_eq!(found.pointer(pointer).and_then(|digest| digest.as_str()), Some(*expected), "{path}");
    }
}

/// Page, place in it, digest.
const DIGESTS: &[(&str, &str, &str)] = &[
    ("/v1/schedules", "/schedules/0/digest", ""),
    ("/v1/schedules", "/schedules/1/digest", ""),
    ("/v1/datasets/shapes", "/splits/train/digest", ""),
    ("/v1/datasets/shapes", "/splits/test/digest", ""),
];
