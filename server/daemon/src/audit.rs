//! The audit log: who changed what, or tried to.
//!
//! An entry is a line of JSON in `audit.jsonl` in the data directory. A thread of its own writes it once the answer is
//! decided, and syncs it if something was changed; no request waits for that. When the file has grown long it becomes
//! `audit.1.jsonl`, in the place of the one before. What cannot be written is in the server's log, and counted.
//!
//! Clients that may change nothing could otherwise fill the log until it held little else: with attempts that are refused,
//! and by signing in and out. So only a bounded number of those is written in a minute, and the next entry of the same kind
//! says how many were left out.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use pba_wire::audit::AuditEntry;
use prometheus::IntCounter;

use crate::data_lock::DataLock;
use crate::sync::lock;

/// Names of the files in the data directory.
const FILE: &str = "audit.jsonl";
const FILE_BEFORE: &str = "audit.1.jsonl";
/// Bytes from which on a file is put aside: some 60,000 entries.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Entries that wait to be written.
const WAITING_MAX: usize = 1024;
/// Bytes of an entry at most, whose texts are all bounded.
pub(crate) const ENTRY_BYTES_MAX: u64 = 2 << 10;
/// Entries of those who may change nothing that are written in a minute: of those who are known, and of all others.
const BOUNDED_MAX: u32 = 60;
const WINDOW: Duration = Duration::from_secs(60);
/// Time that the last entries get when the server ends.
pub(crate) const LAST_ENTRIES: Duration = Duration::from_secs(1);

/// The audit log of a data directory.
pub(crate) struct Audit {
    folder: PathBuf,
    queue: Sender<Message>,
    lost: IntCounter,
    lock: Arc<DataLock>,
    /// For those who are known, and for all others.
    windows: Mutex<[Window; 2]>,
}

enum Message {
    Entry(Box<AuditEntry>),
    /// Everything before it has been written when it is dropped.
    Flush(Sender<()>),
}

impl Audit {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(folder: &Path, lock: &Arc<DataLock>, lost: IntCounter) -> io::Result<Audit> {
        let (queue, messages) = bounded(WAITING_MAX);
        let (folder, lock) = (folder.to_owned(), Arc::clone(lock));
        let mut writer =
            Writer { folder: folder.clone(), lock: Arc::clone(&lock), file: None, lost: lost.clone() };
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&messages))?;
        Ok(Audit { folder, queue, lost, lock, windows: Mutex::default() })
    }

    /// Adds an entry; `is_bounded` says that it tells of one who may not make the change, or of no change. A replica,
    /// which may not write to the data directory, only logs it.
    pub(crate) fn add(&self, mut entry: AuditEntry, is_bounded: bool) {
        if is_bounded {
            let mut windows = lock(&self.windows);
            match windows[usize::from(entry.role.is_some())].pass(Instant::now()) {
                Some(left_out) => entry.left_out = left_out,
                None => return,
            }
        }
        if !self.lock.is_writer() {
            if entry.status >= 400 {
                tracing::warn!(entry = written(&entry), "a change was refused");
            }
            return;
        }
        if let Err(full) = self.queue.try_send(Message::Entry(Box::new(entry)))
            && let Message::Entry(entry) = full.into_inner()
        {
            lose(&self.lost, &entry, "the disk does not keep up");
        }
    }

    /// The newest entries, newest first, of both files. Waits for the disk.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or it has none and the one before it cannot.
    pub(crate) fn newest(&self, count: usize) -> io::Result<Vec<AuditEntry>> {
        let mut entries = Vec::new();
        for name in [FILE, FILE_BEFORE] {
            let left = count - entries.len();
            if left > 0 {
                let end = match end_of(&self.folder.join(name), left as u64 * ENTRY_BYTES_MAX) {
                    Err(error) if name == FILE_BEFORE && !entries.is_empty() => {
                        tracing::warn!(%error, "what was put aside of the audit log cannot be read");
                        break;
                    }
                    end => end?,
                };
                // A line that a crash has torn, or that was begun before what is read, is none.
                let lines = end.split(|byte| *byte == b'\n').rev();
                entries.extend(lines.filter_map(|line| serde_json::from_slice(line).ok()).take(left));
            }
        }
        Ok(entries)
    }

    /// Waits until everything is written, but not long; counts what is not. Waits for the disk.
    pub(crate) fn flush(&self) {
        let deadline = Instant::now() + LAST_ENTRIES;
        let (written, is_written) = bounded(0);
        let is_queued = self.queue.send_deadline(Message::Flush(written), deadline).is_ok();
        // Nothing is sent: it ends when the other side is dropped.
        if is_queued && !matches!(is_written.recv_deadline(deadline), Err(RecvTimeoutError::Timeout)) {
            return;
        }
        let left = self.queue.len() - usize::from(is_queued);
        if left > 0 {
            self.lost.inc_by(left as u64);
            tracing::error!(entries = left, "the disk does not take the last entries of the audit log");
        }
    }
}

/// How many bounded entries there were in a minute.
#[derive(Default)]
struct Window {
    begin: Option<Instant>,
    count: u32,
    left_out: u64,
}

impl Window {
    /// Whether one more is written, and how many were left out before it.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.begin.is_none_or(|begin| now.duration_since(begin) >= WINDOW) {
            (self.begin, self.count) = (Some(now), 0);
        }
        self.count += 1;
        if self.count > BOUNDED_MAX {
            self.left_out += 1;
            return None;
        }
        Some(std::mem::take(&mut self.left_out))
    }
}

fn written(entry: &AuditEntry) -> String {
    serde_json::to_string(entry).expect("an entry is written as JSON")
}

fn lose(lost: &IntCounter, entry: &AuditEntry, error: &str) {
    lost.inc();
    tracing::error!(entry = written(entry), error, "an entry of the audit log cannot be written");
}

/// The last bytes of a file; none when it is not there.
fn end_of(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = match pba_files::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    Ok(end)
}

/// Writes entries, on its thread.
struct Writer {
    folder: PathBuf,
    lock: Arc<DataLock>,
    file: Option<File>,
    lost: IntCounter,
}

impl Writer {
    fn run(&mut self, messages: &Receiver<Message>) {
        for message in messages {
            match message {
                Message::Entry(entry) => {
                    if let Err(error) = self.write(&entry) {
                        // The next entry tries it with a file that is opened anew.
                        self.file = None;
                        lose(&self.lost, &entry, &error.to_string());
                    }
                }
                Message::Flush(written) => drop(written),
            }
        }
    }

    fn write(&mut self, entry: &AuditEntry) -> io::Result<()> {
        self.lock.check_in_place().map_err(|error| io::Error::other(error.detail))?;
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        let mut length = file.metadata()?.len();
        if length >= FILE_BYTES_MAX {
            std::fs::rename(self.folder.join(FILE), self.folder.join(FILE_BEFORE))?;
            (file, length) = (self.open()?, 0);
        }
        let line = written(entry) + "\n";
        if let Err(error) = file.write_all(line.as_bytes()) {
            // A part of a line would spoil the next one.
            let _ = file.set_len(length);
            return Err(error);
        }
        if entry.status < 400 {
            file.sync_data()?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Opens the file at its end, which is the end of a line.
    fn open(&self) -> io::Result<File> {
        let path = self.folder.join(FILE);
        let is_torn = end_of(&path, 1)?.first().is_some_and(|byte| *byte != b'\n');
        // For those who run the server: `GET /v1/audit` is for admins.
        let mut file = pba_files::open_as(OpenOptions::new().append(true).create(true).mode(0o600), &path)?;
        if is_torn {
            file.write_all(b"\n")?;
        }
        pba_files::sync_folder_of(&path)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: usize, status: u16) -> AuditEntry {
        AuditEntry {
            time: "2026-01-02T03:04:05.678901Z".to_owned(),
            token: None,
            role: None,
            peer: "192.0.2.1".to_owned(),
            request_id: None,
            method: "DELETE".to_owned(),
            path: format!("/v1/schedules/{number}"),
            status,
            made: None,
            left_out: 0,
        }
    }

    fn audit(folder: &Path) -> Audit {
        let lost = IntCounter::new("lost", "lost").unwrap();
        Audit::start(folder, &DataLock::of_test(folder), lost).unwrap()
    }

    fn newest(audit: &Audit, count: usize) -> Vec<String> {
        let paths = audit.newest(count).unwrap().into_iter().map(|entry| entry.path);
        paths.map(|path| path.trim_start_matches("/v1/schedules/").to_owned()).collect()
    }

    #[test]
    fn entries_are_found_newest_first_beside_torn_lines_and_over_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        std::fs::write(&file, "{\"time\": \"torn").unwrap();
        let log = audit(folder.path());
        assert_eq!(newest(&log, 9), [""; 0]);
        for number in 0..4 {
            log.add(entry(number, 204), false);
        }
        log.flush();
        assert_eq!(newest(&log, 9), ["3", "2", "1", "0"]);
        assert_eq!(newest(&log, 2), ["3", "2"]);
        // As long as it may be: it is put aside.
        let mut long = OpenOptions::new().append(true).open(&file).unwrap();
        let line = written(&entry(7, 204)) + "\n";
        let lines = FILE_BYTES_MAX as usize / line.len() + 1;
        long.write_all(line.repeat(lines).as_bytes()).unwrap();
        log.add(entry(8, 204), false);
        log.flush();
        assert_eq!(newest(&log, 3), ["8", "7", "7"]);
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1);
        assert_eq!(log.lost.get(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let log = audit(folder.path());
        std::fs::create_dir(folder.path().join(FILE)).unwrap();
        log.add(entry(0, 204), false);
        log.flush();
        assert_eq!(log.lost.get(), 1);
        std::fs::remove_dir(folder.path().join(FILE)).unwrap();
        log.add(entry(1, 204), false);
        log.flush();
        assert_eq!((log.lost.get(), newest(&log, 9)), (1, vec!["1".to_owned()]));
    }

    #[test]
    fn what_is_left_at_the_end_is_counted() {
        let (folder, (queue, messages)) = (tempfile::tempdir().unwrap(), bounded(2));
        let lost = IntCounter::new("lost", "lost").unwrap();
        let lock = DataLock::of_test(folder.path());
        let log = Audit { folder: folder.path().to_owned(), queue, lost, lock, windows: Mutex::default() };
        // The disk does not answer: nothing takes them.
        log.add(entry(0, 204), false);
        log.flush();
        assert_eq!(log.lost.get(), 1);
        log.flush();
        assert_eq!(log.lost.get(), 1 + 2);
        drop(messages);
    }

    #[test]
    fn refused_attempts_do_not_displace_what_happened() {
        let (mut window, now) = (Window::default(), Instant::now());
        let passed = (0..BOUNDED_MAX + 40).filter(|_| window.pass(now).is_some()).count();
        assert_eq!(passed, BOUNDED_MAX as usize);
        assert_eq!(window.pass(now + WINDOW), Some(40));
        assert_eq!(window.pass(now + WINDOW), Some(0));
    }
}
