//! A channel of loom's locks, which ends when its senders have: loom's own does not.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use crate::sync::{Condvar, Mutex, lock};

struct Shared<T> {
    state: Mutex<(VecDeque<T>, usize)>,
    more: Condvar,
}

pub(crate) struct Sender<T>(Arc<Shared<T>>);

pub(crate) struct Receiver<T>(Arc<Shared<T>>);

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared { state: Mutex::new((VecDeque::new(), 1)), more: Condvar::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    pub(crate) fn send(&self, value: T) {
        lock(&self.0.state).0.push_back(value);
        self.0.more.notify_one();
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        lock(&self.0.state).1 += 1;
        Sender(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        lock(&self.0.state).1 -= 1;
        self.0.more.notify_one();
    }
}

impl<T> Receiver<T> {
    /// The next value; none after the last.
    pub(crate) fn recv(&self) -> Option<T> {
        let mut state = lock(&self.0.state);
        loop {
            match state.0.pop_front() {
                None if state.1 > 0 => {
                    state = self.0.more.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                next => return next,
            }
        }
    }
}
