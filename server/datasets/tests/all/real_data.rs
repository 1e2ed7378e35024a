//! With real data, when `PBA_TEST_DATA` names a folder that holds `cifar10-jpeg/*.parquet`.

use std::path::PathBuf;
use std::time::Instant;

use pba_datasets::{SplitName, open};

#[test]
fn cifar10_from_jpegs() {
    let Some(data) = std::env::var_os("PBA_TEST_DATA") else { return };
    let cache = tempfile::tempdir().unwrap();
    let path = PathBuf::from(data).join("cifar10-jpeg");
    for attempt in ["import", "cached"] {
        let start = Instant::now();
        let dataset = open("cifar10", &path, cache.path(), &|_| ()).unwrap();
        println!("{attempt}: {:?}", start.elapsed());
        for (name, rows) in [(SplitName::Train, 50_000), (SplitName::Test, 10_000)] {
            let split = dataset.split(name).unwrap().ready().unwrap();
            println!("{name}: {} mean {:?} std {:?}", split.digest(), split.mean(), split.std());
            assert_eq!((split.len(), split.shape()), (rows, (32, 32)));
            assert_eq!(split.classes()[9], "truck");
            assert!(split.verify());
        }
        // A copy of the packed files, for a comparison with another decoder.
        if let (Some(keep), "import") = (std::env::var_os("PBA_TEST_KEEP"), attempt) {
            for entry in std::fs::read_dir(cache.path()).unwrap() {
                for file in std::fs::read_dir(entry.unwrap().path()).unwrap().map(Result::unwrap) {
                    std::fs::copy(file.path(), PathBuf::from(&keep).join(file.file_name())).unwrap();
                }
            }
        }
    }
}
