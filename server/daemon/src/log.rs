//! The log of a server: lines on standard error, for which no request ever waits.
//!
//! A thread that logs puts a finished line into a bounded queue, and a thread of its own writes it. A reader that
//! has gone, a full disk, or a pipe that is not read costs lines, which are counted, and nothing else:
//! no thread waits, and nothing panics, as `eprintln!` would.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use tracing_subscriber::fmt::MakeWriter;

use crate::metrics::{LOG_LINES_LOST, PANICS};

/// Lines that wait to be written: a burst of some hundred connections that end at once. With
/// [`LINE_BYTES_MAX`], the log holds at most 16 MiB.
const LINES_MAX: usize = 1024;
/// Longer lines are cut.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Time that the last lines get when the process ends.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The queue of this process, once it serves.
static QUEUE: OnceLock<Sender<Message>> = OnceLock::new();

enum Message {
    Line(Vec<u8>),
    /// Everything before it has been written when it is dropped.
    Flush(#[expect(dead_code, reason = "it is dropped")] Sender<()>),
}

/// Where a server's log goes; cheap to clone.
#[derive(Clone)]
pub(crate) struct Log {
    queue: Sender<Message>,
}

impl Log {
    /// Starts the thread that writes, and has panics logged and counted instead of printed. Call it once.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start() -> io::Result<Log> {
        let queue = start(io::stderr())?;
        let _ = QUEUE.set(queue.clone());
        std::panic::set_hook(Box::new(|panic| {
            PANICS.inc();
            let thread = std::thread::current();
            let message = panic.payload_as_str().unwrap_or("a value that is no text");
            let place = panic.location().map(ToString::to_string);
            let backtrace = Backtrace::capture();
            let is_wanted = backtrace.status() == BacktraceStatus::Captured;
            tracing::error!(
                thread = thread.name(),
                place,
                backtrace = is_wanted.then(|| tracing::field::display(backtrace)),
                "panicked: {message}"
            );
        }));
        Ok(Log { queue })
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

impl Write for Log {
    /// Takes a whole line, as `tracing_subscriber` writes them. Never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        put(&self.queue, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says why the command failed, and waits a moment for the last lines of the log. The process must not be
/// kept from ending by the reader of its standard error.
pub fn last_words(error: impl Display) {
    let line = format!("error: {error}\n");
    match QUEUE.get() {
        Some(queue) => put(queue, line.as_bytes()),
        // Standard error may be closed or full, which is no reason for another error.
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
    flush();
}

/// Waits until everything that was logged is written, but not long.
pub(crate) fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let deadline = Instant::now() + LAST_LINES;
    let (written, is_written) = bounded(0);
    if queue.send_deadline(Message::Flush(written), deadline).is_ok() {
        // Either way nothing is left to do.
        let _ = is_written.recv_deadline(deadline);
    }
}

fn put(queue: &Sender<Message>, line: &[u8]) {
    let line = match line.get(..LINE_BYTES_MAX) {
        None => line.to_vec(),
        Some(beginning) => [beginning, b"...\n"].concat(),
    };
    if queue.try_send(Message::Line(line)).is_err() {
        LOG_LINES_LOST.inc();
    }
}

fn start(out: impl Write + Send + 'static) -> io::Result<Sender<Message>> {
    let (queue, lines) = bounded(LINES_MAX);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write(lines, out))?;
    Ok(queue)
}

fn write(lines: Receiver<Message>, mut out: impl Write) {
    let mut told = 0;
    for message in lines {
        let Message::Line(line) = message else { continue };
        if out.write_all(&line).is_err() {
            LOG_LINES_LOST.inc();
            continue;
        }
        // The log is read again: it says what it lacks.
        let lost = LOG_LINES_LOST.get();
        if lost > told {
            tracing::warn!(lines = lost - told, "lines of the log were lost");
            told = lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that takes one line for each word of permission.
    struct Reader {
        may: Receiver<()>,
        lines: Sender<Vec<u8>>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.may.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.lines.send(line.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_never_waits_and_lost_lines_are_counted() {
        let before = LOG_LINES_LOST.get();
        let (permit, may) = bounded(0);
        let (lines, read) = bounded(2 * LINES_MAX);
        let queue = start(Reader { may, lines }).unwrap();
        // Nothing is read: one line is being written, LINES_MAX wait, and the rest is lost.
        let count = LINES_MAX + 100;
        for number in 0..count {
            put(&queue, format!("{number}\n").as_bytes());
        }
        let lost = LOG_LINES_LOST.get() - before;
        assert!((99..=100).contains(&lost), "{lost}");
        permit.send(()).unwrap();
        assert_eq!(read.recv().unwrap(), b"0\n");
        put(&queue, &vec![b'x'; 2 * LINE_BYTES_MAX]);
        // The reader has gone: all that waits is lost, and so is what comes.
        drop((permit, read));
        while !queue.is_empty() {
            std::thread::yield_now();
        }
        put(&queue, b"the last\n");
        let all = LOG_LINES_LOST.get() - before;
        assert!(all >= lost + LINES_MAX as u64 - 2, "{all}");
    }

    #[test]
    fn long_lines_are_cut() {
        let (permit, may) = bounded(1);
        let (lines, read) = bounded(1);
        let queue = start(Reader { may, lines }).unwrap();
        put(&queue, &vec![b'x'; 2 * LINE_BYTES_MAX]);
        permit.send(()).unwrap();
        let line = read.recv().unwrap();
        assert_eq!((line.len(), line.ends_with(b"x...\n")), (LINE_BYTES_MAX + 4, true));
    }
}
