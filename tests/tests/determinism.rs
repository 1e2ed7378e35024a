//! The same request gives the same bytes, whoever serves it, however and when.

use std::collections::BTreeMap;

use pba_tests::{Epoch, Server};

/// A request that uses everything: a strong policy, base augmentation, a shuffled order.
const REQUEST: &str = "shapes/epochs/199/batches?schedule=cifar10-pba&split=test&shuffle=true&seed=7\
                       &base=pad_crop:4,flip,cutout:16";
const ROWS: usize = 2000;

fn epoch(server: &Server, parameters: &str) -> Epoch {
    server.epoch(&format!("{REQUEST}{parameters}"))
}

/// Batches of several answers, put together by a rule.
fn digest<'a>(batches: impl IntoIterator<Item = &'a arrow_array::RecordBatch>) -> String {
    pba_tests::epoch::digest(&batches.into_iter().cloned().collect::<Vec<_>>())
}

#[test]
fn any_number_of_threads_and_batches_ahead() {
    let server = Server::start(&[]);
    let expected = epoch(&server, "").bytes;
    for flags in [["--threads", "1", "--batches-ahead", "1"], ["--threads", "8", "--batches-ahead", "64"]] {
        assert!(Server::start(&flags).epoch(REQUEST).bytes == expected, "other bytes with {flags:?}");
    }
}

#[test]
fn a_server_that_was_restarted_and_its_replica() {
    let server = Server::start(&[]);
    let first = Server::start(&[]);
    let expected = first.epoch(REQUEST).bytes;
    let data = first.data();
    drop(first);
    let restarted = Server::start_on(std::sync::Arc::clone(&data), &[]);
    assert!(restarted.epoch(REQUEST).bytes == expected, "other bytes after a restart");
    let replica = Server::start_on(data, &[]);
    assert!(replica.epoch(REQUEST).bytes == expected, "other bytes from a replica on the same data");
    let schedule = restarted.get("/v1/schedules/svhn-pba").text();
    let put = |server: &Server| server.send("PUT", "/v1/schedules/mine", schedule.as_bytes()).status;
    assert_eq!((put(&replica), put(&restarted)), (409, 201), "one server writes in a data directory");
    assert_eq!(replica.get("/v1/schedules/mine").status, 200, "and the others see it");
    let unlockable = pba_tests::server::data_folder();
    std::fs::create_dir(unlockable.path().join("lock")).unwrap();
    let refused = Server::start_on(unlockable, &[]).send("PUT", "/v1/schedules/mine", schedule.as_bytes());
    assert_eq!(refused.status, 409, "what cannot be locked is not written in");
    assert!(refused.text().contains("cannot be locked: Is a directory"), "{}", refused.text());
    assert!(epoch(&server, "").bytes == expected, "other bytes from a replica with its own data");
}

#[test]
fn a_server_with_a_past_and_other_clients_at_the_same_time() {
    let server = Server::start(&[]);
    let server = &server;
    let expected = epoch(server, "").bytes;
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..4)
            .map(|seed| format!("&start={seed}&batch_size={}", 50 + seed))
            .map(|parameters| scope.spawn(move || epoch(server, &parameters)))
            .collect();
        for _ in 0..3 {
            assert!(epoch(server, "").bytes == expected, "other bytes beside other streams");
        }
        others.into_iter().for_each(|other| drop(other.join().unwrap()));
    });
}

#[test]
fn shards_are_the_whole_epoch_dealt_out() {
    let server = Server::start(&[]);
    let whole = epoch(&server, "");
    for count in [1, 2, 3, 7] {
        let shards: Vec<Epoch> = (0..count)
            .map(|shard| epoch(&server, &format!("&shard={shard}/{count}&batch_size=100")))
            .collect();
        let mut positions: Vec<_> = shards.iter().map(|shard| shard.samples()).collect();
        for (position, sample) in whole.samples().enumerate() {
            let dealt = positions[position % count].next().expect("as many as the whole epoch");
            assert!(dealt == sample, "position {position} of {count} shards differs");
        }
        assert!(positions.iter_mut().all(|shard| shard.next().is_none()), "{count} shards hold more");
    }
}

#[test]
fn more_shards_than_samples_leave_some_empty() {
    let server = Server::start(&[]);
    let last = epoch(&server, "&shard=1999/5000");
    assert_eq!(last.indices().len(), 1);
    let empty = epoch(&server, "&shard=2000/5000");
    assert_eq!((empty.batches.len(), empty.metadata["pba.rows"].as_str()), (0, "0"));
}

#[test]
fn the_size_of_a_batch_only_regroups() {
    let server = Server::start(&[]);
    let expected = epoch(&server, "").digest();
    for size in [1, 7, 1000, 1999, 2000, 65_536] {
        let epoch = epoch(&server, &format!("&batch_size={size}"));
        assert_eq!(epoch.digest(), expected, "batch_size={size}");
        let rows: Vec<usize> = epoch.batches.iter().map(|batch| batch.num_rows()).collect();
        let short = ROWS.checked_rem(size).filter(|&rest| rest > 0);
        let expected: Vec<usize> = std::iter::repeat_n(size, ROWS / size).chain(short).collect();
        assert_eq!(rows, expected);
    }
}

#[test]
fn start_and_step_cut_slices() {
    let server = Server::start(&[]);
    let whole = epoch(&server, "&batch_size=60");
    let batches = whole.batches.len();
    for (start, step) in [(0, 1), (1, 1), (33, 1), (0, 2), (1, 2), (2, 7), (5, 1000), (batches, 1)] {
        let slice = epoch(&server, &format!("&batch_size=60&start={start}&step={step}"));
        let expected = whole.batches.iter().skip(start).step_by(step);
        assert_eq!(digest(&slice.batches), digest(expected), "start={start}&step={step}");
    }
    // A step near the end of its range must not wrap around.
    let one = epoch(&server, "&batch_size=60&start=3&step=18446744073709551615");
    assert_eq!(digest(&one.batches), digest(&whole.batches[3..4]));
}

#[test]
fn striping_over_replicas_is_complete() {
    let server = Server::start(&[]);
    let whole = epoch(&server, "&batch_size=64");
    let stripes: Vec<Epoch> =
        (0..3).map(|start| epoch(&server, &format!("&batch_size=64&start={start}&step=3"))).collect();
    let woven = (0..whole.batches.len()).map(|n| &stripes[n % 3].batches[n / 3]);
    assert_eq!(digest(woven), whole.digest());
}

#[test]
fn compression_changes_nothing() {
    let server = Server::start(&[]);
    let plain = epoch(&server, "");
    for codec in ["zstd", "lz4"] {
        let accept = format!("application/vnd.apache.arrow.stream; codecs=\"{codec}\"");
        let packed = server.epoch_with(REQUEST, &[("accept", &accept)]);
        assert_eq!(packed.digest(), plain.digest(), "{codec}");
        assert_eq!(packed.metadata, plain.metadata);
        assert!(packed.bytes.len() < plain.bytes.len(), "{codec} saves nothing");
        let again = server.epoch_with(REQUEST, &[("accept", &accept)]);
        assert!(again.bytes == packed.bytes, "{codec} gives other bytes the second time");
    }
}

#[test]
fn drop_last_leaves_equal_shards_of_whole_batches() {
    let server = Server::start(&[]);
    let whole = epoch(&server, "");
    for count in [1, 3, 7] {
        let batches: Vec<Vec<u64>> = (0..count)
            .map(|shard| {
                let epoch = epoch(&server, &format!("&shard={shard}/{count}&batch_size=90&drop_last=true"));
                assert!(epoch.batches.iter().all(|batch| batch.num_rows() == 90));
                epoch.indices()
            })
            .collect();
        let rows = ROWS / count / 90 * 90;
        let order = whole.indices();
        for (shard, indices) in batches.iter().enumerate() {
            let expected: Vec<u64> = order.iter().copied().skip(shard).step_by(count).take(rows).collect();
            assert_eq!(indices, &expected, "shard {shard}/{count}");
        }
    }
}

#[test]
fn an_epoch_holds_every_sample_once() {
    let server = Server::start(&[]);
    for parameters in ["", "schedule=identity", "schedule=svhn-pba&seed=18446744073709551615"] {
        let epoch = server.epoch(&format!("shapes/epochs/3/batches?{parameters}"));
        assert!(epoch.by_index().into_keys().eq(0..10_000), "{parameters}");
        assert!(!epoch.indices().is_sorted(), "train is shuffled");
    }
}

#[test]
fn evaluation_splits_come_in_order_and_untouched() {
    let server = Server::start(&[]);
    let test = server.epoch("shapes/epochs/0/batches?split=test");
    assert!(test.indices().into_iter().eq(0..ROWS as u64));
    let identity = server.epoch("shapes/epochs/9/batches?split=test&schedule=identity&seed=5");
    assert_eq!(test.digest(), identity.digest());
}

#[test]
fn pixels_depend_on_the_sample_alone() {
    let server = Server::start(&[]);
    let whole = epoch(&server, "");
    let whole = whole.by_index();
    let in_order = server.epoch(&REQUEST.replace("shuffle=true", "shuffle=false"));
    assert!(in_order.indices().is_sorted() && in_order.by_index() == whole);
    for parameters in ["&shard=2/3", "&batch_size=7&start=40&step=3", "&drop_last=true"] {
        let part = epoch(&server, parameters);
        for (index, sample) in part.by_index() {
            assert!(whole[&index] == sample, "sample {index} differs with {parameters}");
        }
    }
}

#[test]
fn seed_and_epoch_matter() {
    let server = Server::start(&[]);
    let request = |epoch: u32, seed: u32| {
        let target = format!("shapes/epochs/{epoch}/batches?schedule=cifar10-pba&split=test&shuffle=true");
        server.epoch(&format!("{target}&seed={seed}"))
    };
    let mut digests = BTreeMap::new();
    for (epoch, seed) in [(198, 0), (199, 0), (198, 1), (199, 1)] {
        let other = digests.insert(request(epoch, seed).digest(), (epoch, seed));
        assert_eq!(other, None, "the same as for {epoch} and {seed}");
    }
    let orders = [request(199, 0).indices(), request(199, 1).indices(), request(198, 0).indices()];
    assert!(orders[0] != orders[1] && orders[0] != orders[2], "orders depend on seed and epoch");
}

#[test]
fn a_schedule_is_stretched_over_a_longer_run() {
    let server = Server::start(&[]);
    // Search epoch = floor(epoch * S / epochs): the last epoch of 1800 uses the policy of the last
    // of 200, which is the policy that `final` gives throughout.
    let [stretched, last] = ["epochs=1800", "epochs=1800&ablation=final"].map(|parameters| {
        let target = format!("shapes/epochs/1799/batches?schedule=cifar10-pba&split=test&{parameters}");
        server.epoch(&target).digest()
    });
    assert_eq!(stretched, last);
    // As a policy, epoch by epoch, against the schedule as it is published.
    let published = pba_schedules::library::cifar10_pba();
    for (epoch, epochs) in [(0, 200), (107, 200), (107, 1800), (108, 1800), (999, 1800), (150, 151), (3, 7)] {
        let policy = published.at(epoch, epochs).unwrap().hyperparameters();
        let policy: Vec<String> = policy.iter().map(ToString::to_string).collect();
        let common = format!("shapes/epochs/{epoch}/batches?split=test&shard=0/10&epochs={epochs}");
        let by_schedule = server.epoch(&format!("{common}&schedule=cifar10-pba")).digest();
        let by_policy = server.epoch(&format!("{common}&policy={}", policy.join(","))).digest();
        assert_eq!(by_schedule, by_policy, "epoch {epoch} of {epochs}");
    }
}

#[test]
fn a_schedule_may_be_named_by_its_digest() {
    let server = Server::start(&[]);
    let whole = epoch(&server, "&shard=0/10");
    let digest = &whole.metadata["pba.schedule"];
    let by_digest = server.epoch(&format!(
        "shapes/epochs/199/batches?schedule={digest}&split=test&shuffle=true&seed=7\
         &base=pad_crop:4,flip,cutout:16&shard=0/10"
    ));
    assert!(by_digest.bytes == whole.bytes);
}
