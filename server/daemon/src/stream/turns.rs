//! Turns of requests that are no streams: previews and single images, whose jobs may be long.
//!
//! There are a few, so that such jobs never have all workers. Those who wait get one in turn of clients, so
//! no client waits for all that another has asked for.

use std::collections::VecDeque;

use crate::stream::client::Client;
use crate::stream::round_robin::RoundRobin;
use crate::sync::{Arc, Mutex, lock, oneshot};

/// All turns, taken or not.
pub(crate) struct Turns(Arc<Mutex<State>>);

struct State {
    free: usize,
    /// The requests of each client that wait.
    waiting: RoundRobin<Client, VecDeque<oneshot::Sender<Turn>>>,
}

/// A turn, until it is dropped. Whatever works on the request holds it.
pub(crate) struct Turn {
    /// None once it was passed on.
    turns: Option<Arc<Mutex<State>>>,
}

impl Turns {
    pub(crate) fn new(count: usize) -> Turns {
        Turns(Arc::new(Mutex::new(State { free: count, waiting: RoundRobin::default() })))
    }

    /// A turn, when it comes. May be dropped while it waits.
    pub(crate) async fn take(&self, client: Client) -> Turn {
        let turn = {
            let mut state = lock(&self.0);
            if state.free > 0 {
                state.free -= 1;
                return Turn { turns: Some(Arc::clone(&self.0)) };
            }
            let (sender, turn) = oneshot::channel();
            let waiting = state.waiting.of(client);
            // Those that have left do not pile up.
            waiting.retain(|request| !request.is_closed());
            waiting.push_back(sender);
            turn
        };
        turn.await.expect("a turn is passed on as long as one is waited for")
    }
}

impl State {
    /// The next request whose client has not left; none when there is none.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        self.waiting.next(|requests| {
            requests.retain(|request| !request.is_closed());
            requests.pop_front()
        })
    }
}

impl Drop for Turn {
    /// Passes it on to the next request whose client has not left.
    fn drop(&mut self) {
        while let Some(turns) = self.turns.take() {
            let next = {
                let mut state = lock(&turns);
                let next = state.next();
                state.free += usize::from(next.is_none());
                next
            };
            let Some(next) = next else { return };
            if let Err(mut unwanted) = next.send(Turn { turns: Some(turns) }) {
                self.turns = unwanted.turns.take();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::sync::mpsc::unbounded_channel;
    use tokio::task::yield_now;

    use super::*;
    use crate::stream::round_robin::Waiting;

    fn client(number: u8) -> Client {
        Client::at(Ipv4Addr::new(192, 0, 2, number).into())
    }

    #[tokio::test]
    async fn clients_have_turns_in_turn_and_whoever_left_has_none() {
        let turns = Arc::new(Turns::new(2));
        let (first, second) = (turns.take(client(1)).await, turns.take(client(1)).await);
        let (send, mut order) = unbounded_channel();
        let mut waiting = Vec::new();
        for number in [1, 1, 1, 2, 2, 3] {
            let (turns, send) = (Arc::clone(&turns), send.clone());
            waiting.push(tokio::spawn(async move {
                let turn = turns.take(client(number)).await;
                send.send((number, turn)).unwrap();
            }));
            yield_now().await;
        }
        // The second request of client 1, and the only one of client 3.
        for left in [1, 5] {
            waiting[left].abort();
            yield_now().await;
        }
        assert!(order.is_empty(), "there are two turns");
        drop(first);
        for expected in [1, 2, 1, 2] {
            let (number, turn) = order.recv().await.unwrap();
            assert_eq!(number, expected);
            yield_now().await;
            assert!(order.is_empty(), "one turn is passed on");
            drop(turn);
        }
        drop(second);
        let both = (turns.take(client(3)).await, turns.take(client(3)).await);
        assert_eq!(lock(&turns.0).free, 0);
        drop(both);
        let state = lock(&turns.0);
        assert_eq!((state.free, state.waiting.is_empty()), (2, true));
    }

    #[tokio::test]
    async fn a_turn_that_comes_as_its_client_leaves_is_passed_on() {
        let turns = Turns::new(1);
        let first = turns.take(client(1)).await;
        let mut leaves = Box::pin(turns.take(client(2)));
        let mut stays = Box::pin(turns.take(client(3)));
        for waiting in [&mut leaves, &mut stays] {
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        }
        drop(first);
        // It has been sent its turn, and has not looked.
        drop(leaves);
        drop(stays.await);
        assert_eq!(lock(&turns.0).free, 1);
    }
}
