//! Streams through memory that client and server share: how they speak beside it.
//!
//! On a Unix socket the client asks for an epoch as ever, with three more header fields:
//!
//! ```text
//! GET /v1/datasets/{dataset}/epochs/{epoch}/batches?... HTTP/1.1
//! Connection: Upgrade
//! Upgrade: pba-memory/1
//! PBA-Memory-Batches: 6        how many batches the client wants to hold at a time, 1..=64
//! ```
//!
//! A wrong request is refused as ever. A server that cannot or will not share memory answers as if
//! the fields were not there. One that does answers `101`, and the socket carries from then on:
//!
//! | who | what | bytes |
//! | --- | --- | --- |
//! | client | [`READY`], once it has read the head of the answer | u32 |
//! | server | [`Record::Open`], with the descriptor of the memory (`SCM_RIGHTS`) | [`RECORD_BYTES`] |
//! | server | [`Record::Batch`] for each batch, in order | [`RECORD_BYTES`] |
//! | client | the slot of each batch that it needs no longer, in any order | u32 |
//! | server | [`Record::End`] after the last batch | [`RECORD_BYTES`] |
//!
//! All numbers are little-endian. The memory begins with the message of the schema; each batch is
//! one Arrow message in one slot, the same bytes that the plain stream has. A slot is written anew
//! only after the client has given it back, so a client that gives none back gets no more batches
//! than [`Record::Open`] allows, and one that keeps some for long has to copy them. A connection
//! that closes without [`Record::End`] was cut, and the client continues at the next batch.
//!
//! The memory is sealed: it cannot shrink under its reader or grow, and nobody but the server can
//! write to it. A private mapping (copy on write) may be written to, for its owner's eyes only.

/// The protocol's name in `Upgrade`.
pub const PROTOCOL: &str = "pba-memory/1";
/// The header field that says how many batches the client wants to hold.
pub const BATCHES_HEADER: &str = "pba-memory-batches";
/// Most batches that a client may hold.
pub const BATCHES_MAX: usize = 64;
/// What the client sends first. No slot has this number.
pub const READY: u32 = u32::MAX;
/// Length of a [`Record`] on the socket.
pub const RECORD_BYTES: usize = 24;

/// What the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// The memory that comes with this record.
    Open {
        /// Batches that the client may hold while the next ones are made.
        batches: u32,
        /// Length of the memory.
        bytes: u64,
        /// Length of the schema's message, at the memory's beginning.
        schema_bytes: u64,
    },
    /// A batch is there, and the client's until it gives the slot back.
    Batch {
        /// Its slot.
        slot: u32,
        /// Where its message begins in the memory, in bytes.
        offset: u64,
        /// Length of its message.
        bytes: u64,
    },
    /// That was all.
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
        record[..4].copy_from_slice(&u32::to_le_bytes(kind));
        record[4..8].copy_from_slice(&u32::to_le_bytes(number));
        record[8..16].copy_from_slice(&u64::to_le_bytes(first));
        record[16..].copy_from_slice(&u64::to_le_bytes(second));
        record
    }

    /// The record that was sent so; none of another kind.
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
