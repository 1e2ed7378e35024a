//! Who meets in the models, and how they count what they use.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::stream::client::Client;
use crate::stream::queue::Owner;

pub(super) fn client(number: u8) -> Client {
    Client::at(Ipv4Addr::new(192, 0, 2, number).into())
}

pub(super) fn owner(number: u8, stream: u64) -> Owner {
    Owner { client: client(number), stream }
}

/// Bytes in use, as those count that use them: loom does not interrupt between a call and the count of it.
#[derive(Clone)]
pub(super) struct Counted {
    bytes: Arc<AtomicUsize>,
    most: usize,
}

impl Counted {
    pub(super) fn new(most: usize) -> Counted {
        Counted { bytes: Arc::default(), most }
    }

    pub(super) fn add(&self, bytes: usize) {
        let taken = self.bytes.fetch_add(bytes, SeqCst) + bytes;
        assert!(taken <= self.most, "{taken} of {}", self.most);
    }

    pub(super) fn sub(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, SeqCst);
    }
}
