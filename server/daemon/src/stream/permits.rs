//! Permits of streams: how many there may be in all, and how much of them and of the memory one client may have.

use std::collections::HashMap;

use crate::stream::client::Client;
use crate::stream::queue::Owner;
use crate::sync::{Arc, Mutex, lock};

/// All permits, taken or not.
pub(crate) struct Permits {
    max: usize,
    per_client_max: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    taken: usize,
    /// What each client has that has any stream.
    of_clients: HashMap<Client, Taken>,
    /// Streams of each token that has any and a limit of its own.
    of_tokens: HashMap<String, usize>,
}

/// What a client has.
#[derive(Default)]
struct Taken {
    streams: usize,
    /// Memory of the batches that its streams have of their own.
    bytes: u64,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// All are taken.
    All,
    /// The client has as many as it may have.
    OfClient,
}

/// The permit of a stream, until it is dropped.
pub(crate) struct Permit {
    owner: Owner,
    /// Of the client's memory, what is this stream's.
    bytes: u64,
    /// The token among whose streams it counts, if that has a limit.
    token: Option<String>,
    state: Arc<Mutex<State>>,
}

impl Permits {
    pub(crate) fn new(max: usize, per_client_max: usize) -> Permits {
        Permits { max, per_client_max, state: Arc::default() }
    }

    /// A permit for one more stream of a client.
    ///
    /// # Errors
    /// When all permits are taken, or the client's share of them.
    pub(crate) fn take(&self, owner: Owner) -> Result<Permit, Refusal> {
        let client = owner.client;
        let mut state = lock(&self.state);
        if state.taken >= self.max {
            return Err(Refusal::All);
        }
        let of_client = state.of_clients.get(&client).map_or(0, |taken| taken.streams);
        if of_client >= self.per_client_max {
            return Err(Refusal::OfClient);
        }
        state.taken += 1;
        state.of_clients.entry(client).or_default().streams += 1;
        Ok(Permit { owner, bytes: 0, token: None, state: Arc::clone(&self.state) })
    }

    /// Permits that are taken.
    pub(crate) fn taken(&self) -> usize {
        lock(&self.state).taken
    }
}

impl Permit {
    /// Whose work the stream's batches are.
    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// Counts the stream as one of a token's, of which there may be `streams_max`.
    ///
    /// # Errors
    /// When there are as many; then it does not count.
    pub(crate) fn count_for(&mut self, token: &str, streams_max: usize) -> Result<(), ()> {
        let mut state = lock(&self.state);
        let streams = state.of_tokens.entry(token.to_owned()).or_default();
        if *streams >= streams_max {
            return Err(());
        }
        *streams += 1;
        self.token = Some(token.to_owned());
        Ok(())
    }

    /// Counts memory of the stream as its client's, of which that may have `bytes_max`, but one stream it may
    /// have in any case.
    ///
    /// # Errors
    /// What the client's other streams have, when it would be too much.
    pub(crate) fn charge(&mut self, bytes: u64, bytes_max: u64) -> Result<(), u64> {
        let mut state = lock(&self.state);
        let taken = state.of_clients.get_mut(&self.owner.client).expect("this one is counted");
        if bytes > 0 && taken.bytes > 0 && taken.bytes.saturating_add(bytes) > bytes_max {
            return Err(taken.bytes);
        }
        taken.bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.taken -= 1;
        let taken = state.of_clients.get_mut(&self.owner.client).expect("this one is counted");
        taken.streams -= 1;
        taken.bytes -= self.bytes;
        if taken.streams == 0 {
            state.of_clients.remove(&self.owner.client);
        }
        if let Some(token) = self.token.take() {
            let streams = state.of_tokens.get_mut(&token).expect("this one is counted");
            *streams -= 1;
            if *streams == 0 {
                state.of_tokens.remove(&token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_bounded_in_all_and_for_each_client() {
        let permits = Permits::new(3, 2);
        let at = |number: u8| {
            let client = Client::at(std::net::Ipv4Addr::new(192, 0, 2, number).into());
            Owner { client, stream: 0 }
        };
        let (mut first, mut second) = (permits.take(at(1)).unwrap(), permits.take(at(1)).unwrap());
        assert_eq!(permits.take(at(1)).err(), Some(Refusal::OfClient));
        let mut other = permits.take(at(2)).unwrap();
        assert_eq!((permits.take(at(3)).err(), permits.taken()), (Some(Refusal::All), 3));
        assert_eq!(first.charge(90, 50), Ok(()), "one stream it may have");
        assert_eq!(second.charge(1, 50), Err(90));
        assert_eq!((second.charge(0, 50), other.charge(50, 50)), (Ok(()), Ok(())));
        drop(first);
        assert_eq!((second.charge(30, 50), second.charge(21, 50)), (Ok(()), Err(30)));
        drop((second, other));
        assert_eq!(permits.taken(), 0);
        assert!(lock(&permits.state).of_clients.is_empty());
    }

    #[test]
    fn streams_of_a_token_are_bounded_whichever_client_has_them() {
        let permits = Permits::new(9, 9);
        let at = |number: u8| {
            let client = Client::at(std::net::Ipv4Addr::new(192, 0, 2, number).into());
            permits.take(Owner { client, stream: 0 }).unwrap()
        };
        let [mut first, mut second, mut third] = [1, 2, 2].map(at);
        assert_eq!([first.count_for("a", 2), second.count_for("a", 2)], [Ok(()), Ok(())]);
        assert_eq!([third.count_for("a", 2), third.count_for("b", 1)], [Err(()), Ok(())]);
        drop((first, third));
        let mut next = at(3);
        assert_eq!(next.count_for("a", 2), Ok(()));
        drop((second, next));
        assert!(lock(&permits.state).of_tokens.is_empty());
    }
}
