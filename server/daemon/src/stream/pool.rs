//! The bridge between the asynchronous side and the CPU: a fixed pool of threads.
//!
//! A [`Work`] is done in parts, each of which takes a worker for a bounded time. A worker takes one part of one
//! stream of one client, then one of the next client, and so on in turn (`queue.rs`). So a client gets no more than
//! its share of the workers, however many streams it opens and however large their batches are. Each stream keeps
//! only a few works here (`batches_ahead`), and a stream whose client does not read adds none.

use std::sync::Arc;

use crate::metrics::Metrics;
use crate::stream::queue::{Owner, Queue};
use crate::stream::work::{Answer, Cancellation, Task, Work};
use crate::stream::workspace::Workspace;

/// A fixed pool of worker threads, which end when it is dropped.
pub(crate) struct Pool {
    queue: Arc<Queue<Task>>,
    metrics: Metrics,
}

impl Pool {
    /// Starts `threads` workers.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(threads: usize, metrics: Metrics) -> std::io::Result<Pool> {
        // Ends those that were started, should one be refused.
        let pool = Pool { queue: Arc::default(), metrics };
        for number in 0..threads {
            let queue = Arc::clone(&pool.queue);
            std::thread::Builder::new().name(format!("augment-{number}")).spawn(move || {
                let mut workspace = Workspace::default();
                while let Some((task, part)) = queue.next() {
                    task.run(part, &mut workspace);
                }
            })?;
        }
        Ok(pool)
    }

    /// Queues work.
    pub(crate) fn start_work<W: Work>(&self, owner: Owner, work: W) -> Answer<W::Output> {
        self.queue(owner, Task::of(work, self.metrics.clone()))
    }

    /// Queues a task of one part, which is told whether it is cancelled.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        owner: Owner,
        task: impl FnOnce(&mut Workspace, &Cancellation) -> T + Send + 'static,
    ) -> Answer<T> {
        self.queue(owner, Task::once(task, self.metrics.clone()))
    }

    fn queue<T>(&self, owner: Owner, (task, answer): (Task, Answer<T>)) -> Answer<T> {
        let parts = task.parts();
        assert!(parts > 0, "work has at least one part");
        self.queue.add(owner, task, parts);
        answer
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::ops::ControlFlow;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::stream::client::Client;

    fn pool(threads: usize) -> Pool {
        Pool::start(threads, Metrics::new().unwrap()).unwrap()
    }

    fn owner(client: u8, stream: u64) -> Owner {
        Owner { client: Client::at(Ipv4Addr::new(192, 0, 2, client).into()), stream }
    }

    /// Keeps a worker of a pool busy until told, and says when it has begun.
    fn hold(pool: &Pool) -> (Sender<()>, Answer<bool>) {
        let (release, held) = channel::<()>();
        let (begin, begun) = channel();
        let answer = pool.run(owner(0, 0), move |_, _| {
            begin.send(()).unwrap();
            held.recv().is_ok()
        });
        begun.recv().unwrap();
        (release, answer)
    }

    /// Writes down the order in which its parts are done.
    struct Noted {
        name: &'static str,
        parts: usize,
        notes: Sender<(&'static str, usize)>,
    }

    impl Work for Noted {
        type Output = usize;

        fn parts(&self) -> usize {
            self.parts
        }

        fn run(&self, part: usize, _: &mut Workspace) -> ControlFlow<usize> {
            self.notes.send((self.name, part)).unwrap();
            ControlFlow::Continue(())
        }

        fn finish(&self, _: &mut Workspace) -> usize {
            self.parts
        }
    }

    fn notes() -> (impl Fn(&'static str, usize) -> Noted, Receiver<(&'static str, usize)>) {
        let (send, notes) = channel();
        (move |name, parts| Noted { name, parts, notes: send.clone() }, notes)
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_the_pool_does_not_shrink() {
        let pool = pool(1);
        for _ in 0..3 {
            assert!(pool.run(owner(1, 1), |_, _| -> () { panic!("on purpose") }).await.is_err());
        }
        assert_eq!(pool.run(owner(1, 1), |_, _| 7).await.unwrap(), 7);
        assert_eq!(pool.metrics.queue_depth.get(), 0);
    }

    #[tokio::test]
    async fn a_job_nobody_waits_for_is_skipped() {
        let pool = pool(1);
        let (release, first) = hold(&pool);
        let (noted, notes) = notes();
        let (client, stream) = (owner(1, 1), owner(2, 2));
        drop(pool.start_work(client, noted("left", 3)));
        let stays = pool.start_work(client, noted("stays", 2));
        drop(pool.start_work(stream, noted("left, too", 1)));
        assert_eq!(pool.metrics.queue_depth.get(), 3);
        release.send(()).unwrap();
        assert!(first.await.unwrap());
        assert_eq!(stays.await.unwrap(), 2);
        pool.run(stream, |_, _| ()).await.unwrap();
        drop(pool);
        drop(noted);
        assert_eq!(notes.iter().collect::<Vec<_>>(), [("stays", 0), ("stays", 1)]);
    }

    #[tokio::test]
    async fn clients_take_turns_and_so_do_the_streams_of_each() {
        let pool = pool(1);
        let (release, first) = hold(&pool);
        let (noted, notes) = notes();
        let works = [
            (owner(1, 1), noted("greedy a", 3)),
            (owner(1, 1), noted("greedy a, then", 1)),
            (owner(1, 2), noted("greedy b", 2)),
            (owner(2, 3), noted("modest", 2)),
        ];
        let answers = works.map(|(owner, work)| pool.start_work(owner, work));
        release.send(()).unwrap();
        assert!(first.await.unwrap());
        for (answer, parts) in answers.into_iter().zip([3, 1, 2, 2]) {
            assert_eq!(answer.await.unwrap(), parts);
        }
        drop(noted);
        let expected = [
            ("greedy a", 0),
            ("modest", 0),
            ("greedy b", 0),
            ("modest", 1),
            ("greedy a", 1),
            ("greedy b", 1),
            ("greedy a", 2),
            ("greedy a, then", 0),
        ];
        assert_eq!(notes.iter().collect::<Vec<_>>(), expected);
        assert_eq!(pool.metrics.queue_depth.get(), 0);
    }

    #[tokio::test]
    async fn a_task_is_told_that_nobody_waits_for_it() {
        let pool = pool(1);
        let (begin, begun) = channel();
        let (end, ended) = channel();
        let answer = pool.run(owner(1, 1), move |_, cancellation| {
            begin.send(()).unwrap();
            while !cancellation.is_cancelled() {
                std::thread::yield_now();
            }
            end.send(()).unwrap();
        });
        begun.recv().unwrap();
        drop(answer);
        ended.recv().unwrap();
    }

    /// Fails in a part, or panics there.
    struct Failing {
        panics: bool,
        notes: Sender<usize>,
    }

    impl Work for Failing {
        type Output = Result<(), usize>;

        fn parts(&self) -> usize {
            10
        }

        fn run(&self, part: usize, _: &mut Workspace) -> ControlFlow<Result<(), usize>> {
            self.notes.send(part).unwrap();
            match part {
                3 if self.panics => panic!("on purpose"),
                3 => ControlFlow::Break(Err(part)),
                _ => ControlFlow::Continue(()),
            }
        }

        fn finish(&self, _: &mut Workspace) -> Result<(), usize> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_is_left_of_a_work_that_failed_is_not_done() {
        for panics in [false, true] {
            let pool = pool(1);
            let (notes, noted) = channel();
            let answer = pool.start_work(owner(1, 1), Failing { panics, notes }).await;
            assert_eq!(answer.ok(), (!panics).then_some(Err(3)));
            pool.run(owner(1, 1), |_, _| ()).await.unwrap();
            assert_eq!(noted.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        }
    }

    #[tokio::test]
    async fn every_part_is_done_once_by_whatever_number_of_workers() {
        for threads in [1, 2, 8] {
            let pool = pool(threads);
            let (noted, notes) = notes();
            let works =
                (0..50).map(|number| pool.start_work(owner(number % 3, number.into()), noted("", 20)));
            for answer in works.collect::<Vec<_>>() {
                assert_eq!(answer.await.unwrap(), 20);
            }
            drop(noted);
            let mut parts: Vec<usize> = notes.try_iter().map(|(_, part)| part).collect();
            parts.sort_unstable();
            let expected: Vec<usize> = (0..20).flat_map(|part| [part; 50]).collect();
            assert_eq!(parts, expected);
            assert_eq!(pool.metrics.queue_depth.get(), 0);
        }
    }
}
