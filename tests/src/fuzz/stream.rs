//! The Rust client's decoder: an answer whose checksums are wrong gives a prefix of the batches that were sent;
//! one whose checksums are right may be anything, and every batch that comes of it is a valid one. In whatever
//! pieces it comes, it is the same.

use std::sync::LazyLock;

use arrow_array::{Array, RecordBatch};
use arrow_ipc::root_as_message;
use pba_client::decode_answer;
use pba_wire::checksum::Head;

use crate::fuzz::{Target, committed, damaged, dice};

pub(super) const TARGET: Target = Target {
    name: "stream",
    check,
    mend: |bytes| mend(bytes),
    seeds: || committed("stream"),
    words: &[
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"pba.checksum",
        b"pba.batches",
        b"pba.rows",
        b"pba.recipe",
        b"image",
        b"arrow.fixed_shape_tensor",
        b"\xff\xff\xff\x7f",
        b"\0\0\0\x80",
    ],
    bytes_max: 16 << 10,
    mutations: 1800,
};

/// What the first seed holds.
static INTACT: LazyLock<(Vec<u8>, Vec<RecordBatch>)> = LazyLock::new(|| {
    let bytes = committed("stream").swap_remove(0);
    let (_, batches, end) = decode_answer([&bytes[..]], true).expect("a seed is whole");
    assert!(end.is_none() && !batches.is_empty());
    (bytes, batches)
});

fn check(bytes: &[u8]) {
    let mut dice = dice(bytes);
    for checks in [true, false] {
        let whole = decoded(bytes, &[], checks);
        let cuts: Vec<usize> =
            (0..dice.below(4)).map(|_| dice.below(bytes.len() as u64 + 1) as usize).collect();
        let in_pieces = decoded(bytes, &cuts, checks);
        let batches =
            |answer: &Option<(_, Vec<RecordBatch>)>| answer.as_ref().map(|(_, batches)| batches.clone());
        assert_eq!(batches(&whole), batches(&in_pieces), "in pieces cut at {cuts:?}");
        let Some((is_refused, batches)) = whole else { continue };
        if checks {
            for _ in 0..3 {
                let damaged = damaged(bytes, &mut dice);
                if let Some((_, found)) = decoded(&damaged, &[], true) {
                    // What was refused may be mended by chance.
                    let is_mended = is_refused && found.starts_with(&batches);
                    assert!(is_mended || batches.starts_with(&found), "damage that was not noticed");
                }
            }
            let intact = &*INTACT;
            if bytes == intact.0 {
                assert!(!is_refused && batches == intact.1);
            }
        }
    }
}

/// Whether it ended in an error, and the batches before; nothing if not even the schema is accepted.
fn decoded(bytes: &[u8], cuts: &[usize], checks: bool) -> Option<(bool, Vec<RecordBatch>)> {
    let mut cuts = [cuts, &[0, bytes.len()]].concat();
    cuts.sort_unstable();
    let pieces = cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).filter(|piece| !piece.is_empty());
    let (schema, batches, end) = decode_answer(pieces, checks).ok()?;
    let (height, width) = pba_wire::stream::image_shape(&schema).expect("its columns were checked");
    for batch in &batches {
        assert_eq!(batch.schema().fields(), schema.fields());
        for column in batch.columns() {
            assert!(column.null_count() == 0 || !checks || column.len() == batch.num_rows());
            column.to_data().validate_full().expect("what is given is valid");
        }
        let pixels = arrow_array::cast::as_fixed_size_list_array(batch.column(0)).values().len();
        assert_eq!(pixels, batch.num_rows() * (height * width * 3) as usize, "as many pixels as images");
    }
    Some((end.is_some(), batches))
}

/// Gives each message its checksum, as far as they can be read.
fn mend(bytes: &mut [u8]) {
    let _ = sealed(bytes);
}

fn sealed(bytes: &mut [u8]) -> Option<()> {
    let (mut at, mut stream, mut batches) = (0, None, 0);
    loop {
        let length = u32::from_le_bytes(bytes.get(at + 4..at + 8)?.try_into().ok()?) as usize;
        let head = at.checked_add(8)?.checked_add(length)?;
        let body = root_as_message(bytes.get(at + 8..head)?).ok()?.bodyLength();
        let end = head.checked_add(usize::try_from(body).ok()?)?;
        if end > bytes.len() {
            return None;
        }
        let sealed = Head::new(bytes[at..head].to_vec(), stream.unwrap_or(0)).ok()?;
        let checksum = sealed.checksum(&bytes[head..end], batches);
        bytes[at..head].copy_from_slice(&sealed.with(checksum));
        match stream {
            None => stream = Some(checksum),
            Some(_) => batches += 1,
        }
        at = end;
    }
}
