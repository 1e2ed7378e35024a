//! Injects the faults of a kind, one after another or side by side.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::chaos::fault::{Fault, Inject, Kind};
use crate::chaos::harm::{Column, Harm, Outcome, Survived};
use crate::chaos::readers;
use crate::chaos::table::Row;

/// A fault waits for several things, each shorter than [`HANG`](crate::chaos::fault::HANG).
const FAULT_MAX: Duration = Duration::from_secs(240);

/// Which faults to inject.
pub struct Plan<'a> {
    /// The seed.
    pub seed: u64,
    /// How many have to take effect.
    pub times: u32,
    /// Only the one with this index.
    pub only: Option<u32>,
    /// Set from outside to end after the faults that are being injected.
    pub stop: &'a AtomicBool,
}

/// Injects faults of a kind until so many have taken effect, and tells each as it ends. Gives up when twice as
/// many, and some more, were tried.
///
/// # Errors
/// When what they break does not start.
pub fn run(kind: &Kind, plan: &Plan<'_>, tell: &(dyn Fn(u32, &Outcome) + Sync)) -> Result<Row, Harm> {
    let opened = catch_unwind(AssertUnwindSafe(kind.open));
    let stage: Arc<dyn Inject> = opened.unwrap_or_else(|panic| Err(of_panic(&*panic)))?.into();
    let (first, end) = match plan.only {
        Some(only) => (only, only + 1),
        None => (0, plan.times * 2 + 5),
    };
    let (next, injected) = (AtomicU32::new(first), AtomicU32::new(0));
    let row = Mutex::new(Row::new(kind.name, kind.title));
    std::thread::scope(|scope| {
        for _ in 0..kind.at_once {
            scope.spawn(|| {
                loop {
                    // Those under way are counted as if they took effect; those that do not, free a place.
                    let one_more = |count| (count < plan.times || plan.only.is_some()).then_some(count + 1);
                    let begun = injected.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
                    if begun.is_err() || plan.stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    if index >= end {
                        return;
                    }
                    let fault = Fault { seed: plan.seed, kind: kind.name, index };
                    let outcome = inject(&stage, fault);
                    if matches!(outcome.result, Ok(Survived::NotInjected(_))) {
                        injected.fetch_sub(1, Ordering::SeqCst);
                    }
                    tell(index, &outcome);
                    row.lock().unwrap().add(index, &outcome);
                }
            });
        }
    });
    drop(stage);
    readers::dismiss();
    Ok(row.into_inner().unwrap())
}

/// Injects a fault on a thread of its own: one that never ends hangs, and a panic is told.
fn inject(stage: &Arc<dyn Inject>, fault: Fault) -> Outcome {
    let (send, receive) = channel();
    let stage = Arc::clone(stage);
    let name = format!("{} {}", fault.kind, fault.index);
    let body = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| stage.inject(fault)));
        let outcome = outcome.unwrap_or_else(|panic| Outcome {
            fault: "the harness".to_owned(),
            result: Err(of_panic(&*panic)),
        });
        // Before it is told: what it holds ends with the last of them.
        drop(stage);
        // It is no longer waited for when it took too long.
        let _ = send.send(outcome);
    };
    std::thread::Builder::new().name(name).spawn(body).expect("a thread can be started");
    receive.recv_timeout(FAULT_MAX).unwrap_or_else(|error| Outcome {
        fault: "the whole fault".to_owned(),
        result: Err(match error {
            RecvTimeoutError::Timeout => Harm::new(Column::Hung, format!("not over after {FAULT_MAX:?}")),
            RecvTimeoutError::Disconnected => Harm::new(Column::Other, "its thread ended"),
        }),
    })
}

fn of_panic(panic: &(dyn Any + Send)) -> Harm {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
    let hung = text.contains("in vain") || text.starts_with("no line within");
    Harm::new(if hung { Column::Hung } else { Column::Other }, text)
}
