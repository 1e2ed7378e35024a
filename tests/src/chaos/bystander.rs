//! A client that streams meanwhile, and must not notice.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::chaos::daemon::wait;
use crate::chaos::harm::Harm;
use crate::chaos::oracle::Order;
use crate::chaos::readers::{Language, Reading};

/// Reads one epoch after another from a server, and judges them.
pub(crate) struct Bystander {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    epochs: AtomicUsize,
    ended: AtomicBool,
    harm: Mutex<Option<Harm>>,
}

impl Bystander {
    pub(crate) fn of(url: &str, order: &Order) -> Bystander {
        let shared = Arc::<Shared>::default();
        let (mine, order) = (Arc::clone(&shared), order.clone());
        let reading = Reading::of(Language::Rust, [url.to_owned()]);
        let thread = std::thread::spawn(move || {
            while !mine.ended.load(Ordering::SeqCst) {
                match reading.read_whole(&order) {
                    Ok(_) => drop(mine.epochs.fetch_add(1, Ordering::SeqCst)),
                    Err(harm) => {
                        mine.harm.lock().unwrap().get_or_insert(harm);
                        return;
                    }
                }
                // The others need the processor as well.
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        Bystander { shared, thread: Some(thread) }
    }

    /// Checks that an epoch that begins now comes whole, as did all before.
    pub(crate) fn goes_on(&self) -> Result<(), Harm> {
        // One may be under way; the one after it begins now.
        let needed = self.shared.epochs.load(Ordering::SeqCst) + 2;
        let harm = || self.shared.harm.lock().unwrap().clone();
        wait("the stream of a bystander", || {
            harm().is_some() || self.shared.epochs.load(Ordering::SeqCst) >= needed
        })?;
        harm().map_or(Ok(()), |harm| Err(Harm { seen: format!("a bystander: {}", harm.seen), ..harm }))
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // Its panics were told as harm, or the server is gone.
            let _ = thread.join();
        }
    }
}
