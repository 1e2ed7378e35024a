//! Work spread over the cores of a CPU.

use std::sync::Mutex;
use std::thread;

use crate::torch;

/// CPU threads to work with.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Does all the work, each item on one core, and returns the results in the order of the items.
pub(super) fn over_cores<W: Send, R: Send>(
    work: Vec<W>,
    body: impl Fn(W) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let threads = threads().min(work.len());
    let queue = Mutex::new(work.into_iter().enumerate());
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let worker = || -> anyhow::Result<Vec<(usize, R)>> {
            tch::set_num_threads(1);
            torch::backward_on_caller()?;
            let mut results = Vec::new();
            loop {
                let next = queue.lock().expect("no worker panics while it takes work").next();
                let Some((position, item)) = next else { return Ok(results) };
                results.push((position, body(item)?));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().map(|worker| worker.join().expect("a worker does not panic"));
        joined.collect::<Vec<_>>().into_iter().collect::<anyhow::Result<Vec<_>>>()
    })?
    .into_iter()
    .flatten()
    .collect();
    results.sort_by_key(|(position, _)| *position);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}
