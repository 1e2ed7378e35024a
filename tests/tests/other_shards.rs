//! An epoch that some shards began is continued by others.

use pba_tests::{Epoch, Server};

const REQUEST: &str = "shapes/epochs/199/batches?schedule=cifar10-pba&split=test&shuffle=true&seed=7\
                       &base=pad_crop:4,flip,cutout:16";

fn epoch(server: &Server, parameters: &str) -> Epoch {
    server.epoch(&format!("{REQUEST}{parameters}"))
}

#[test]
fn other_shards_continue_with_what_is_left() {
    let server = Server::start(&[]);
    let whole = epoch(&server, "");
    // Three shards read four batches of 50 each: 600 samples, then two with batches of 70 read the rest.
    for (skip, count, size) in [(600, 2, 70), (0, 3, 50), (601, 7, 1), (1999, 2, 128), (2000, 3, 128)] {
        let shards: Vec<Epoch> = (0..count)
            .map(|shard| epoch(&server, &format!("&skip={skip}&shard={shard}/{count}&batch_size={size}")))
            .collect();
        let mut positions: Vec<_> = shards.iter().map(|shard| shard.samples()).collect();
        for (position, sample) in whole.samples().skip(skip).enumerate() {
            let dealt = positions[position % count].next().expect("as many as are left");
            assert!(dealt == sample, "position {position} of {count} shards after {skip} differs");
        }
        assert!(positions.iter_mut().all(|shard| shard.next().is_none()), "{count} shards hold more");
        let told = |key: &str| shards[0].metadata[key].clone();
        assert_eq!(told("pba.skip"), skip.to_string());
        assert_eq!(told("pba.recipe"), whole.metadata["pba.recipe"], "it is the same run");
    }
}

#[test]
fn what_was_read_in_step_is_skipped() {
    let server = Server::start(&[]);
    let after = |batches| {
        (0..3)
            .map(|shard| epoch(&server, &format!("&shard={shard}/3&batch_size=50&start={batches}")).digest())
            .collect::<Vec<_>>()
    };
    let skipped: Vec<_> = (0..3)
        .map(|shard| epoch(&server, &format!("&shard={shard}/3&batch_size=50&skip=600")).digest())
        .collect();
    assert_eq!(skipped, after(4));
}
