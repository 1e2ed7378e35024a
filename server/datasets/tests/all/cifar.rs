use std::path::Path;

use pba_datasets::SplitName;

use crate::{failure, label_of, noise, opened, pixels, split};

fn records(label_bytes: usize, labels: &[u8], seed: u64) -> Vec<u8> {
    let record = |(row, &label): (usize, &u8)| {
        let mut record = vec![0; label_bytes - 1];
        record.push(label);
        record.extend(noise(seed + row as u64, 3072));
        record
    };
    labels.iter().enumerate().flat_map(record).collect()
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(folder.join(name), bytes).unwrap();
}

#[test]
fn cifar_10_is_read() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inner = folder.path().join("cifar-10-batches-bin");
    std::fs::create_dir(&inner).unwrap();
    for batch in 1..=5 {
        write(&inner, &format!("data_batch_{batch}.bin"), records(1, &[batch, 9], 10 * u64::from(batch)));
    }
    write(&inner, "test_batch.bin", &records(1, &[3], 0)[..3072]);
    write(&inner, "batches.meta.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n");
    let dataset = opened(folder.path(), cache.path()).unwrap();
    let train = split(&dataset, SplitName::Train);
    assert_eq!((train.len(), label_of(&train, 2), label_of(&train, 3)), (10, 2, 9));
    assert_eq!(train.classes().concat(), "abcdefghij");
    let planes = noise(20, 3072);
    assert_eq!(pixels(&train, 2)[3 * 33..][..3], [planes[33], planes[1024 + 33], planes[2048 + 33]]);
    assert_eq!(
        failure(&dataset, SplitName::Test),
        "cifar-10-batches-bin/test_batch.bin: 3072 bytes; expected a multiple of 3073, as in CIFAR-10 binary"
    );

    write(&inner, "test_batch.bin", records(1, &[3, 10], 0));
    let dataset = opened(folder.path(), cache.path()).unwrap();
    assert_eq!(
        failure(&dataset, SplitName::Test),
        "cifar-10-batches-bin/test_batch.bin, row 1: label 10 is not allowed; allowed are 0..=9 (10 classes)"
    );
    // One file that is missing fails its own split.
    write(&inner, "test_batch.bin", records(1, &[3, 4], 0));
    let fourth = std::fs::read(inner.join("data_batch_4.bin")).unwrap();
    std::fs::remove_file(inner.join("data_batch_4.bin")).unwrap();
    let dataset = opened(folder.path(), cache.path()).unwrap();
    assert_eq!(
        failure(&dataset, SplitName::Train),
        "cifar-10-batches-bin/data_batch_4.bin: this shard is missing; the dataset has 5"
    );
    assert_eq!(split(&dataset, SplitName::Test).len(), 2);
    write(&inner, "data_batch_4.bin", fourth);
    let dataset = opened(folder.path(), cache.path()).unwrap();
    assert_eq!(split(&dataset, SplitName::Train).len(), 10);
}

#[test]
fn cifar_100_is_read_with_its_fine_labels() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(folder.path(), "train.bin", records(2, &[99, 4], 1));
    write(folder.path(), "test.bin", records(2, &[50], 2));
    let dataset = opened(folder.path(), cache.path()).unwrap();
    let train = split(&dataset, SplitName::Train);
    assert_eq!((label_of(&train, 0), label_of(&train, 1), train.classes().len()), (99, 4, 100));
    write(folder.path(), "fine_label_names.txt", "one\ntwo\n");
    let dataset = opened(folder.path(), cache.path()).unwrap();
    assert_eq!(
        failure(&dataset, SplitName::Train),
        "fine_label_names.txt: has 2 classes, but the other splits have 100, or different ones"
    );
}
