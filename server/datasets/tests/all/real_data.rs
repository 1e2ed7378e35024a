//! With real data, when `PBA_TEST_DATA` names a folder of CIFAR-10 as Parquet.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use pba_datasets::{SplitName, open};

use crate::shape;

#[test]
fn cifar10_from_jpegs() {
    let Some(data) = std::env::var_os("PBA_TEST_DATA") else { return };
    let cache = tempfile::tempdir().unwrap();
    let path = PathBuf::from(data);
    for attempt in ["import", "cached"] {
        let start = Instant::now();
        let dataset = open("cifar10", &path, cache.path(), &|_| ControlFlow::Continue(())).unwrap();
        println!("{attempt}: {:?}", start.elapsed());
        for (name, rows) in [(SplitName::Train, 50_000), (SplitName::Test, 10_000)] {
            let split = dataset.split(name).unwrap().as_ref().unwrap();
            println!("{name}: {} mean {:?} std {:?}", split.digest(), split.mean(), split.std());
            assert_eq!((split.len(), split.shape()), (rows, Some(shape(32, 32))));
            assert_eq!(split.classes()[9], "truck");
            assert!(split.verify());
        }
    }
}
