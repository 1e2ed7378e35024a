//! Streams through shared memory: the protocol on the socket beside it.
//!
//! On a Unix socket the client requests an epoch as usual, with three more header fields:
//!
//! ```text
//! GET /v1/datasets/{dataset}/epochs/{epoch}/batches?... HTTP/1.1
//! Connection: Upgrade
//! Upgrade: pba-memory/1
//! PBA-Memory-Batches: 6        how many batches the client wants to hold at a time, 1..=64
//! ```
//!
//! An invalid request is refused as usual. A server that cannot or will not use shared memory answers as
//! if the fields were absent. Otherwise it answers `101`, and from then on the socket carries:
//!
//! | who | what | bytes |
//! | --- | --- | --- |
//! | client | [`READY`], once it has read the answer's header | u32 |
//! | server | [`Record::Open`], with the descriptor of the shared memory (`SCM_RIGHTS`) | [`RECORD_BYTES`] |
//! | server | [`Record::Batch`] for each batch, in order | [`RECORD_BYTES`] |
//! | client | the slot of each batch that it no longer needs, in any order | u32 |
//! | server | [`Record::End`] after the last batch | [`RECORD_BYTES`] |
//!
//! All numbers are little-endian. The shared memory begins with the schema's message; each batch is one
//! Arrow message in one slot, the same bytes as in the plain stream. A slot is overwritten only after the
//! client has given it back, so a client that gives none back gets what [`Record::Open`] allows and the few
//! that the server makes ahead, and no more; one that keeps batches for long has to copy them. A connection that
//! closes without [`Record::End`] was cut, and the client resumes at the next batch.
//!
//! The shared memory is sealed: it cannot shrink or grow, and only the server can write to it. A client
//! may write to a private mapping (copy on write), which nothing else sees.
//!
//! What a client holds stays valid after the end of the stream, and counts as the server's memory until the
//! client has neither the descriptor nor the mapping. While clients keep too much of it, the server answers
//! further requests as if the fields were absent.

/// The protocol's name in `Upgrade`.
pub const PROTOCOL: &str = "pba-memory/1";
/// The header field with the number of batches that the client wants to hold.
pub const BATCHES_HEADER: &str = "pba-memory-batches";
/// Most batches that a client may hold.
pub const BATCHES_MAX: usize = 64;
/// The client's first message. No slot has this number.
pub const READY: u32 = u32::MAX;
/// Length of a [`Record`] on the socket.
pub const RECORD_BYTES: usize = 24;

/// A message of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// The shared memory that comes with this record.
    Open {
        /// Batches that the client may hold while the next ones are produced.
        batches: u32,
        /// Length of the shared memory.
        bytes: u64,
        /// Length of the schema's message, at the start of the shared memory.
        schema_bytes: u64,
    },
    /// A batch is ready; it belongs to the client until the client gives the slot back.
    Batch {
        /// Its slot.
        slot: u32,
        /// Offset of its message in the shared memory, in bytes.
        offset: u64,
        /// Length of its message.
        bytes: u64,
    },
    /// The end of the stream.
    End,
}

impl Record {
    /// The record as it is sent: kind (1 open, 2 batch, 3 end) and slot or batches as u32, then two
    /// u64.
    pub fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let (kind, number, first, second) = match self {
            Record::Open { batches, bytes, schema_bytes } => (1, batches, bytes, schema_bytes),
            Record::Batch { slot, offset, bytes } => (2, slot, offset, bytes),
            Record::End => (3, 0, 0, 0),
        };
        let mut record = [0; RECORD_BYTES];
        record[..8].copy_from_slice([kind, number].map(u32::to_le_bytes).as_flattened());
        record[8..].copy_from_slice([first, second].map(u64::to_le_bytes).as_flattened());
        record
    }

    /// Reads such a record; none if it is of another kind.
    pub fn from_bytes(record: [u8; RECORD_BYTES]) -> Option<Record> {
        let (words, _) = record.as_chunks();
        let (longs, _) = record.as_chunks();
        let [kind, number] = [0, 1].map(|at| u32::from_le_bytes(words[at]));
        let [first, second] = [1, 2].map(|at| u64::from_le_bytes(longs[at]));
        match kind {
            1 => Some(Record::Open { batches: number, bytes: first, schema_bytes: second }),
            2 => Some(Record::Batch { slot: number, offset: first, bytes: second }),
            3 => Some(Record::End),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_as_the_table_says() {
        let batch = Record::Batch { slot: 3, offset: 0x0102, bytes: 5 };
        assert_eq!(
            batch.to_bytes(),
            [2, 0, 0, 0, 3, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            Record::Open { batches: 9, bytes: 1, schema_bytes: 1 }.to_bytes()[..8],
            [1, 0, 0, 0, 9, 0, 0, 0]
        );
        assert_eq!(Record::End.to_bytes()[..4], [3, 0, 0, 0]);
        let open = Record::Open { batches: 9, bytes: 1 << 40, schema_bytes: 7 };
        for record in [open, batch, Record::End] {
            assert_eq!(Record::from_bytes(record.to_bytes()), Some(record));
        }
        assert_eq!(Record::from_bytes([0; RECORD_BYTES]), None);
    }
}
