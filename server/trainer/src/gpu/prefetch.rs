//! Items made ahead of their consumer, and taken in order.

use std::thread;

use crossbeam::channel::bounded;

/// Items that a thread has ready before it waits: enough to bridge a short delay, few enough to
/// keep memory small.
const AHEAD_PER_THREAD: usize = 2;

/// Makes the items `0..count` on `threads` threads and gives them to `take` in order, on the
/// calling thread. Ends early when `take` fails.
///
/// Thread t makes the items t, t + threads, t + 2 threads ..., so no item waits for another
/// thread's.
///
/// # Errors
/// The first of `take`.
pub(crate) fn in_order<T: Send, S, E>(
    count: usize,
    threads: usize,
    state: impl Fn() -> S + Sync,
    make: impl Fn(&mut S, usize) -> T + Sync,
    mut take: impl FnMut(usize, T) -> Result<(), E>,
) -> Result<(), E> {
    thread::scope(|scope| {
        let receivers: Vec<_> = (0..threads.max(1))
            .map(|first| {
                let (sender, receiver) = bounded(AHEAD_PER_THREAD);
                let (state, make) = (&state, &make);
                scope.spawn(move || {
                    let mut state = state();
                    for item in (first..count).step_by(threads.max(1)) {
                        // The receiver is gone: nobody needs the rest.
                        if sender.send(make(&mut state, item)).is_err() {
                            return;
                        }
                    }
                });
                receiver
            })
            .collect();
        for item in 0..count {
            let made = receivers[item % receivers.len()].recv().expect("the thread makes all its items");
            take(item, made)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_for_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            for count in [0, 1, 7, 64] {
                let mut taken = Vec::new();
                let result: Result<(), ()> = in_order(
                    count,
                    threads,
                    || (),
                    |(), item| item * item,
                    |item, square| {
                        taken.push((item, square));
                        Ok(())
                    },
                );
                assert_eq!(result, Ok(()));
                assert!(taken.into_iter().eq((0..count).map(|item| (item, item * item))));
            }
        }
    }

    #[test]
    fn a_failure_ends_it() {
        let take = |item, _| if item == 3 { Err(item) } else { Ok(()) };
        assert_eq!(in_order(1000, 2, || (), |(), _| (), take), Err(3));
    }
}
