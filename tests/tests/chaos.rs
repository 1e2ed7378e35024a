//! A few faults of each kind; `make chaos` injects more than a thousand.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pba_tests::chaos::{Crowding, Plan, Soaking, Survived, crowd, kinds, run, soak};
use pba_tests::skipped::skip;

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
        skip(&format!("in part: {} of {} faults took effect: {:?}", row.times, kind.few, row.not_injected));
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

kinds!(kill connection flip exchange mapped disk power hostile exhaustion leavers replicas stopped clock);

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let stop = AtomicBool::new(false);
    // So few epochs do not warm the allocator up: it may keep a few batches for each of its threads yet.
    let growth_bytes_max = 64 << 20;
    let soaking =
        Soaking { seed: 7, epochs: 40, time: Duration::ZERO, searches: 2, growth_bytes_max, stop: &stop };
    let soaked = soak(&soaking, &|_| ()).unwrap_or_else(|harm| panic!("nothing could be read: {harm}"));
    assert!(soaked.is_clean(), "{}", soaked.markdown());
    assert_eq!((soaked.epochs, soaked.points.len()), (40, 3));
}

#[test]
fn others_go_on_in_a_crowd() {
    let (slow, idle, stop) = (24, 120, AtomicBool::new(false));
    let time = Duration::from_secs(2);
    let crowding = Crowding { slow, idle, time, rounds: 1, seed: 7, stop: &stop };
    let crowded = crowd(&crowding, &|| ()).unwrap_or_else(|harm| panic!("nothing could be read: {harm}"));
    assert!(crowded.harm.is_empty(), "{}", crowded.markdown());
    let [alone, among] = &crowded.phases[..] else { panic!("{crowded:?}") };
    assert!(!alone.crowded && among.crowded);
    assert!(among.open[0] as usize >= (slow + idle) * 9 / 10 && alone.open[0] < 10, "{}", crowded.markdown());
    assert_eq!(crowded.closed[1], 0, "none is refused for want of room");
    assert!(alone.epochs > 0 && among.epochs > 0 && !among.livez.is_empty(), "{}", crowded.markdown());
}
