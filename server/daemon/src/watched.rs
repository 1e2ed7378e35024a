//! Files that are read again while the server runs: a certificate and its key, a file of tokens.
//!
//! What counts is what they hold, which is read every second, and not their times: Kubernetes replaces them by a link to
//! another folder, certbot one link after the other, and an editor in place. So a file may be incomplete for a moment, and
//! a certificate may not belong to its key. What the files hold is therefore applied once two looks in a row have found
//! the same.

use std::io;
use std::thread::sleep;
use std::time::Duration;

use crate::background;

/// How often the files are read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Files, and what becomes of what they hold.
pub(crate) trait Watched: Send + 'static {
    /// What they hold.
    type Contents: PartialEq + Send;

    /// Reads the files. Waits for the disk.
    ///
    /// # Errors
    /// When one cannot be read.
    fn read(&self) -> anyhow::Result<Self::Contents>;

    /// Takes over what they hold now, or tells why they cannot be read. It is called once for each change, and again only
    /// if it panics.
    fn apply(&mut self, found: Result<&Self::Contents, &str>);
}

/// Watches files on a thread of this name until `is_over`. What is in use is not applied again; where that is not known,
/// the first thing that is found is applied.
///
/// # Errors
/// When the system refuses a thread.
pub(crate) fn watch<W: Watched>(
    name: &str,
    mut watched: W,
    in_use: Option<W::Contents>,
    is_over: impl Fn() -> bool + Send + 'static,
) -> io::Result<()> {
    // It outlives a panic: what was being applied then is applied once more.
    let mut looks = Looks { applied: in_use.map(Ok), latest: None };
    background::start(name, move || {
        while !is_over() {
            let found = watched.read().map_err(|error| format!("{error:#}"));
            looks.look(found, |found| watched.apply(found.as_ref().map_err(String::as_str)));
            sleep(LOOK_EVERY);
        }
    })
}

/// What a look found in the files, or why they could not be read.
type Found<T> = Result<T, String>;

/// What was found in the files so far.
struct Looks<T> {
    /// What was applied last.
    applied: Option<Found<T>>,
    /// What the latest look found, if it was something else.
    latest: Option<Found<T>>,
}

impl<T: PartialEq> Looks<T> {
    /// Applies what was found if it has settled, and is not what was applied last.
    fn look(&mut self, found: Found<T>, apply: impl FnOnce(&Found<T>)) {
        if self.applied.as_ref() == Some(&found) {
            self.latest = None;
        } else if self.latest.as_ref() == Some(&found) {
            apply(&found);
            (self.applied, self.latest) = (Some(found), None);
        } else {
            self.latest = Some(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Sender, channel};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn what_two_looks_have_found_is_applied_once() {
        let mut looks = Looks { applied: Some(Ok("a")), latest: None };
        let mut look = |found: Found<&'static str>| {
            let mut applied = None;
            looks.look(found, |found| applied = Some(found.clone()));
            applied
        };
        let gone = || Err("gone".to_owned());
        assert_eq!(look(Ok("a")), None, "it is in use");
        // It is being written.
        assert_eq!(
            [look(Ok("b")), look(Ok("bc")), look(Ok("bc")), look(Ok("bc"))],
            [None, None, Some(Ok("bc")), None]
        );
        // It is as before again, between two looks and after more.
        assert_eq!([look(Ok("d")), look(Ok("bc")), look(Ok("d"))], [const { None }; 3]);
        assert_eq!(look(Ok("d")), Some(Ok("d")));
        // It is gone for a moment, and for good.
        assert_eq!([look(gone()), look(Ok("d")), look(gone())], [const { None }; 3]);
        assert_eq!([look(gone()), look(gone())], [Some(gone()), None]);
        // It is there again as it was.
        assert_eq!([look(Ok("d")), look(Ok("d"))], [None, Some(Ok("d"))]);
    }

    #[test]
    fn what_is_found_first_is_applied_where_nothing_is_known() {
        let mut looks = Looks { applied: None, latest: None };
        let mut applied = Vec::new();
        for _ in 0..3 {
            looks.look(Ok(1), |found| applied.push(found.clone()));
        }
        assert_eq!(applied, [Ok(1)]);
    }

    /// A file whose second change panics when it is applied for the first time.
    struct Fragile {
        holds: Arc<Mutex<u32>>,
        has_panicked: bool,
        applied: Sender<(u32, Option<String>)>,
    }

    impl Watched for Fragile {
        type Contents = u32;

        fn read(&self) -> anyhow::Result<u32> {
            Ok(*self.holds.lock().unwrap())
        }

        fn apply(&mut self, found: Result<&u32, &str>) {
            let found = *found.unwrap();
            assert!(found != 2 || std::mem::replace(&mut self.has_panicked, true), "as the test wants it");
            let thread = std::thread::current().name().map(str::to_owned);
            self.applied.send((found, thread)).unwrap();
        }
    }

    #[test]
    fn a_panic_is_outlived_and_the_thread_ends_with_the_server() {
        let (holds, is_over) = (Arc::new(Mutex::new(0)), Arc::new(AtomicBool::new(false)));
        let (sender, applied) = channel();
        let watched = Fragile { holds: Arc::clone(&holds), has_panicked: false, applied: sender };
        let ends = Arc::clone(&is_over);
        watch("fragile", watched, Some(0), move || ends.load(Ordering::Relaxed)).unwrap();
        for change in 1..=3 {
            *holds.lock().unwrap() = change;
            assert_eq!(applied.recv().unwrap(), (change, Some("fragile".to_owned())));
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(applied.recv().is_err(), "the thread goes on");
    }
}
