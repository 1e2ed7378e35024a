//! The `sync.rs` of daemon and datasets, of loom's types.
//!
//! What tokio gives is made of them, too, after its contract: [`oneshot`] and [`Notify`] as they are documented,
//! for as many waiters as there are here. That tokio keeps its contract is tokio's to show, which does so with loom.
//! `Arc` is std's: that it is right is taken for granted.

pub(crate) use std::sync::Arc;

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence};
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};

use std::collections::hash_map::DefaultHasher;
use std::future::poll_fn;
use std::hash::BuildHasherDefault;
use std::sync::PoisonError;
use std::task::{Poll, Waker};

/// One that is the same in each run, as loom asks.
pub(crate) type RandomState = BuildHasherDefault<DefaultHasher>;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn wait<'a, T>(signal: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    signal.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Spinning only delays what comes after it, which loom does anyway.
pub(crate) struct Backoff;

impl Backoff {
    pub(crate) fn new() -> Backoff {
        Backoff
    }

    pub(crate) fn snooze(&self) {
        loom::thread::yield_now();
    }

    pub(crate) fn is_completed(&self) -> bool {
        true
    }
}

/// For one waiter.
#[derive(Default)]
pub(crate) struct Notify(Mutex<(bool, Option<Waker>)>);

impl Notify {
    pub(crate) fn notify_one(&self) {
        let waker = {
            let mut state = lock(&self.0);
            state.0 = true;
            state.1.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    pub(crate) async fn notified(&self) {
        poll_fn(|context| {
            let mut state = lock(&self.0);
            match std::mem::take(&mut state.0) {
                true => Poll::Ready(()),
                false => {
                    state.1 = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
    }
}

pub(crate) mod oneshot {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::{Arc, Mutex, lock};

    struct Channel<T> {
        value: Option<T>,
        waker: Option<Waker>,
        has_sender: bool,
        has_receiver: bool,
    }

    pub(crate) struct Sender<T>(Arc<Mutex<Channel<T>>>);

    pub(crate) struct Receiver<T>(Arc<Mutex<Channel<T>>>);

    /// Nothing was sent.
    #[derive(Debug)]
    pub(crate) struct RecvError;

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let channel = Channel { value: None, waker: None, has_sender: true, has_receiver: true };
        let channel = Arc::new(Mutex::new(channel));
        (Sender(Arc::clone(&channel)), Receiver(channel))
    }

    impl<T> Sender<T> {
        /// # Errors
        /// The value, when the receiver has left.
        pub(crate) fn send(self, value: T) -> Result<(), T> {
            let mut channel = lock(&self.0);
            match channel.has_receiver {
                true => channel.value = Some(value),
                false => return Err(value),
            }
            // Its drop wakes the receiver.
            Ok(())
        }

        pub(crate) fn is_closed(&self) -> bool {
            !lock(&self.0).has_receiver
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            let waker = {
                let mut channel = lock(&self.0);
                channel.has_sender = false;
                channel.waker.take()
            };
            waker.into_iter().for_each(Waker::wake);
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn is_empty(&self) -> bool {
            lock(&self.0).value.is_none()
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, RecvError>;

        fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T, RecvError>> {
            let mut channel = lock(&self.0);
            match channel.value.take() {
                Some(value) => Poll::Ready(Ok(value)),
                None if !channel.has_sender => Poll::Ready(Err(RecvError)),
                None => {
                    channel.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            let value = {
                let mut channel = lock(&self.0);
                channel.has_receiver = false;
                channel.value.take()
            };
            // What was sent and not looked at ends here.
            drop(value);
        }
    }
}
