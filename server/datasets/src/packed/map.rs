//! Files mapped into memory, and pages of them that cannot be read.
//!
//! Reading a mapped page that lies beyond the end of its file, because that was cut off meanwhile, or that the
//! disk does not give, is a SIGBUS, which ends the process with all that it serves. So the maps are listed
//! here, and [`on_bus_error`] puts zeros in the place of such a page and whatever follows it, and notes in the
//! list that this map has them. A reader of a map asks [`Mapping::is_faulted`] before it makes use of
//! what it read; a map that is faulted stays so, and is of no use any more.
//!
//! A SIGBUS of any other cause ends the process as ever.

#![allow(unsafe_code, reason = "a map, and the signal handler that guards it; see each block")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use memmap2::Mmap;

use crate::packed::area::Area;

/// Maps at a time: those of more than a thousand datasets.
const MAPS_MAX: usize = 4096;

/// An entry of the list, which the handler reads at any moment.
struct Slot {
    /// Where the map lies: nowhere before it is there, and before it goes.
    area: Area,
    is_faulted: AtomicBool,
}

static SLOTS: [Slot; MAPS_MAX] = [const {
    let [changes, start, end] = [const { AtomicUsize::new(0) }; 3];
    Slot { area: Area { changes, start, end }, is_faulted: AtomicBool::new(false) }
}; MAPS_MAX];

/// The unused slots, of those that were ever used, and how many those are. The handler does not look here.
static UNUSED: Mutex<(Vec<usize>, usize)> = Mutex::new((Vec::new(), 0));

/// Bytes of a page, once the handler is installed.
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// A whole file, mapped read-only.
#[derive(Debug)]
pub(crate) struct Mapping {
    map: Mmap,
    slot: usize,
}

impl Mapping {
    /// Maps all of `file`.
    ///
    /// # Errors
    /// When the system refuses, or there are too many maps.
    pub(crate) fn new(file: &File) -> io::Result<Mapping> {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(install);
        // SAFETY: the bytes are only ever read, as plain integers, and every offset is checked against the
        // length found here. Only files that this crate has written into its own cache are mapped; it writes
        // them once, under a temporary name, and replaces them by renaming. Should another program write to one
        // in place, what is read is other integers, which checksums find; should it be cut, the handler below
        // keeps the pages readable.
        let map = unsafe { Mmap::map(file)? };
        let mut unused = unused();
        let slot = match unused.0.pop() {
            Some(slot) => slot,
            None if unused.1 == MAPS_MAX => {
                return Err(io::Error::other(format!("more than {MAPS_MAX} packed files are open")));
            }
            None => {
                unused.1 += 1;
                unused.1 - 1
            }
        };
        let start = map.as_ptr() as usize;
        let Slot { area, is_faulted } = &SLOTS[slot];
        is_faulted.store(false, Ordering::Relaxed);
        area.set(start, start + map.len());
        Ok(Mapping { map, slot })
    }

    /// Whether some of the bytes that were read before this call may have been zeros instead of the file's.
    pub(crate) fn is_faulted(&self) -> bool {
        // What was read before is looked at before.
        fence(Ordering::SeqCst);
        SLOTS[self.slot].is_faulted.load(Ordering::SeqCst)
    }
}

impl Deref for Mapping {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // This map is no longer read, so the handler does not look for it; it is unmapped after this.
        SLOTS[self.slot].area.set(0, 0);
        unused().0.push(self.slot);
    }
}

fn unused() -> MutexGuard<'static, (Vec<usize>, usize)> {
    UNUSED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install() {
    // SAFETY: a question of the system, without pointers.
    PAGE_BYTES.store(unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize, Ordering::Relaxed);
    // SAFETY: an all-zero sigaction is one: no handler, no flags, an empty mask. The handler has the signature
    // that SA_SIGINFO asks for, and does only what a handler may, as it says. SIGBUS is sent to the thread that
    // read the page, so no other is disturbed; SA_ONSTACK lets it run where Rust's own handler would.
    let installed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_bus_error as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut())
    };
    // It fails for a signal that there is not, and no other reason.
    assert_eq!(installed, 0, "SIGBUS can be handled");
}

/// Maps zeros over a page that cannot be read and all that follows it in its map, once: so a file that was cut
/// costs one signal, and never more areas of memory than two for each map, whose number the kernel bounds.
///
/// Async-signal-safe: it reads and writes atomics of static lifetime, and calls mmap, signal and raise, which
/// are bare system calls on Linux. It allocates nothing and takes no lock, and leaves errno as it was.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo; of a SIGBUS that it sent itself, which a code
    // above 0 says, it holds an address.
    let (is_fault, address) = unsafe { ((*info).si_code > 0, (*info).si_addr() as usize) };
    // Its reader has the map, so that entry does not change, whatever becomes of the others.
    let mut places = SLOTS.iter().filter_map(|slot| Some((slot, slot.area.end_around(address)?)));
    if let Some((slot, end)) = places.next().filter(|_| is_fault) {
        // First: a thread that sees the zeros sees this as well.
        slot.is_faulted.store(true, Ordering::SeqCst);
        let page = address & !(PAGE_BYTES.load(Ordering::Relaxed) - 1);
        let bytes = end - page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the area is part of a map that this module made and that is still there, as the faulting
        // thread is reading from it, and maps begin and end at pages. What takes its place can be read as it
        // could, for as long as it could: it goes when that is unmapped. Errno is the thread's own.
        let mapped = unsafe {
            let errno = *libc::__errno_location();
            let mapped = libc::mmap(page as *mut libc::c_void, bytes, libc::PROT_READ, flags, -1, 0);
            *libc::__errno_location() = errno;
            mapped
        };
        if mapped != libc::MAP_FAILED {
            return;
        }
    }
    // SAFETY: both are async-signal-safe. The signal is blocked while this runs, and ends the process after.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, bytes).unwrap();
        file
    }

    #[test]
    fn a_file_that_was_cut_reads_as_zeros_and_is_faulted() {
        let bytes = vec![7; 40 * 4096 + 5];
        let file = file_of(&bytes);
        let (map, other) = (Mapping::new(&file).unwrap(), Mapping::new(&file_of(&bytes)).unwrap());
        assert!(*map == bytes && !map.is_faulted());
        file.set_len(3 * 4096).unwrap();
        // From behind, so that each page before is a signal of its own.
        for page in [40, 30, 3, 4, 20] {
            assert_eq!(map[page * 4096], 0, "page {page}");
            assert!(map.is_faulted());
        }
        assert!(map[..3 * 4096].iter().all(|&byte| byte == 7), "what is still there is read");
        assert!(*other == bytes && !other.is_faulted(), "another map is not affected");
        // The slot is used again, without the past.
        drop(map);
        let map = Mapping::new(&file).unwrap();
        assert!(map.len() == 3 * 4096 && map.iter().all(|&byte| byte == 7) && !map.is_faulted());
    }

    #[test]
    fn many_threads_read_a_file_that_is_cut_meanwhile() {
        let bytes = vec![7; 1000 * 4096];
        let file = file_of(&bytes);
        let map = Mapping::new(&file).unwrap();
        std::thread::scope(|scope| {
            let reading: Vec<_> = (0..8)
                .map(|thread| {
                    let map = &map;
                    scope.spawn(move || {
                        for round in 0..200 {
                            let sum: u64 =
                                map[thread * 4096..].iter().step_by(4096).map(|&b| u64::from(b)).sum();
                            let expected = (1000 - thread as u64) * 7;
                            assert!(sum == expected || map.is_faulted(), "{sum} in round {round}");
                        }
                    })
                })
                .collect();
            file.set_len(4096).unwrap();
            reading.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert_eq!(map[999 * 4096], 0);
        assert!(map.is_faulted());
    }

    const FOREIGN: &str = "PBA_TEST_FOREIGN_FAULT";

    /// The child of the next test: reads beyond the end of a file that is mapped elsewhere.
    #[test]
    fn foreign_fault() {
        if std::env::var_os(FOREIGN).is_none() {
            return;
        }
        let ours = Mapping::new(&file_of(&[7; 4096])).unwrap();
        let file = file_of(&[7; 2 * 4096]);
        // SAFETY: it is cut below, which is what this is about; the process ends with it.
        let foreign = unsafe { Mmap::map(&file).unwrap() };
        file.set_len(0).unwrap();
        println!("{} {}", ours[0], foreign[4096]);
    }

    #[test]
    fn a_fault_in_a_map_of_others_ends_the_process() {
        let test = std::env::current_exe().unwrap();
        let mut child = Command::new(test);
        child.args(["packed::map::tests::foreign_fault", "--exact", "--nocapture"]).env(FOREIGN, "1");
        let output = child.output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    }
}
