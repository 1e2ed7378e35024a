//! A few faults of each kind; `make chaos` injects more than a thousand.

use std::sync::atomic::AtomicBool;

use pba_tests::chaos::{Plan, Survived, kinds, run};

/// Injects a few faults of a kind.
#[track_caller]
fn few(name: &str) {
    let kind = kinds().into_iter().find(|kind| kind.name == name).expect("there is this kind");
    let (seed, stop) = (7, AtomicBool::new(false));
    let plan = Plan { seed, times: kind.few, only: None, stop: &stop };
    let row = run(&kind, &plan, &|index, outcome| match &outcome.result {
        Ok(Survived::NotInjected(why)) => eprintln!("{index}: {}: not injected: {why}", outcome.fault),
        Ok(_) => {}
        Err(harm) => eprintln!("{index}: {}: {harm}", outcome.fault),
    });
    let row = row.unwrap_or_else(|harm| panic!("nothing could be injected: {harm}"));
    assert!(
        row.is_clean(),
        "harm was done; `make chaos KIND={name} SEED={seed} ONLY=...` repeats it: {row:#?}"
    );
    if row.times < kind.few {
        eprintln!("left out: {} of {} faults took effect: {:?}", row.times, kind.few, row.not_injected);
    }
}

macro_rules! kinds {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            few(stringify!($name));
        })*

        #[test]
        fn every_kind_is_here() {
            let names: Vec<&str> = kinds().iter().map(|kind| kind.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

kinds!(kill connection flip mapped disk power hostile exhaustion leavers replicas stopped);
