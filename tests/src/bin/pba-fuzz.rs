//! libFuzzer over one of the targets in `tests/src/fuzz`, which `PBA_FUZZ` names; `make fuzz` builds and runs it.
//!
//! ```text
//! PBA_FUZZ=jpeg pba-fuzz -max_total_time=60 CORPUS
//! ```
//!
//! `PBA_FUZZ_SEEDS=FOLDER` writes the target's seeds there before, and its dictionary and the longest input's
//! length beside it.

#![no_main]
// The functions that libFuzzer calls have names of their own.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn, missing_docs)]
#![allow(clippy::print_stderr)]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use pba_tests::fuzz::{Target, named};

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("PBA_FUZZ").unwrap_or_default();
    named(&name).unwrap_or_else(|| panic!("PBA_FUZZ={name:?} is no target"))
});

thread_local! {
    /// What the last panic said, and where. Decoders catch some of their own, which are no findings.
    static PANIC: RefCell<String> = RefCell::default();
}

fn start() {
    std::panic::set_hook(Box::new(|panic| PANIC.set(panic.to_string())));
    if let Some(folder) = std::env::var_os("PBA_FUZZ_SEEDS") {
        let folder = std::path::PathBuf::from(folder);
        let write = |name: String, bytes: &[u8]| {
            std::fs::write(folder.join(name), bytes).expect("the folder of seeds is there");
        };
        for (number, seed) in (TARGET.seeds)().into_iter().enumerate() {
            write(format!("seed-{number:02}"), &seed);
        }
        for (path, bytes) in TARGET.regressions() {
            write(path.file_name().expect("a file").to_string_lossy().into_owned(), &bytes);
        }
        let quoted = |word: &&[u8]| {
            let digits: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            format!("\"{digits}\"\n")
        };
        let words: String = TARGET.words.iter().map(quoted).collect();
        for (extension, text) in [("words", words), ("length", TARGET.bytes_max.to_string())] {
            std::fs::write(folder.with_extension(extension), text)
                .expect("the folder of seeds lies somewhere");
        }
    }
}

fuzz_target!(init: start(), |bytes: &[u8]| {
    if catch_unwind(AssertUnwindSafe(|| (TARGET.check)(bytes))).is_err() {
        eprintln!("{}: {}", TARGET.name, PANIC.take());
        std::process::abort();
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    // Some keep wrong sums, which is what most damage has.
    if seed.is_multiple_of(8) {
        return size;
    }
    let mut bytes = data[..size].to_vec();
    (TARGET.mend)(&mut bytes);
    let size = bytes.len().min(max_size);
    data[..size].copy_from_slice(&bytes[..size]);
    size
});
