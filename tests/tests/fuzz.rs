//! Each target of fuzzing over its seeds, what once found something, and some random mutations; `make fuzz` runs
//! them for half an hour each.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pba_tests::fuzz::{TARGETS, Target};

/// Reports the input that a check fails for, as it cannot be seen otherwise.
fn check(target: &Target, what: &str, bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.check)(bytes))).is_err() {
        let file = std::env::temp_dir().join(format!("pba-fuzz-{}", target.name));
        std::fs::write(&file, bytes).expect("a file can be written");
        panic!("{}, {what}: the input is in {}", target.name, file.display());
    }
}

fn run(name: &str) {
    let target = pba_tests::fuzz::named(name).expect("a target");
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{name} has seeds");
    for (number, seed) in seeds.iter().enumerate() {
        assert!(seed.len() <= target.bytes_max, "seed {number} of {name} is too long: {}", seed.len());
        check(target, &format!("seed {number}"), seed);
    }
    for (path, input) in target.regressions() {
        check(target, &path.display().to_string(), &input);
    }
    for number in 0..u64::from(target.mutations) {
        let seed = &seeds[(number % seeds.len() as u64) as usize];
        check(target, &format!("mutation {number}"), &target.mutated(seed, number));
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn every_target_is_run() {
            assert_eq!(TARGETS.map(|target| target.name), [$(stringify!($name)),*]);
        }
    };
}

targets! { jpeg packed parquet png folders stream apply query schedule log journal config spec }
