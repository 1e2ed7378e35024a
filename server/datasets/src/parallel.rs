//! Work on several threads, with results in order.

/// Applies `work` to `0..count` on as many threads as there are processors, and gives the results in
/// order.
pub(crate) fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    on_threads(count, std::thread::available_parallelism().map_or(1, usize::from), work)
}

fn on_threads<T: Send>(count: usize, threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let share = count.div_ceil(threads.max(1)).max(1);
    let work = &work;
    std::thread::scope(|scope| {
        let range = |start: usize| start..(start + share).min(count);
        // The calling thread takes the first share.
        let others: Vec<_> = (share..count)
            .step_by(share)
            .map(|start| scope.spawn(move || range(start).map(work).collect::<Vec<T>>()))
            .collect();
        let mut results: Vec<T> = range(0).map(work).collect();
        for other in others {
            results.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_does_not_depend_on_the_number_of_threads() {
        for count in [0, 1, 2, 7, 64, 65] {
            let expected: Vec<usize> = (0..count).map(|i| i * i).collect();
            for threads in [1, 2, 3, 8, 100] {
                assert_eq!(on_threads(count, threads, |i| i * i), expected, "{count} on {threads}");
            }
        }
    }
}
