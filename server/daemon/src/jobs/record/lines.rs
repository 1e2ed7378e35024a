//! The lines of a journal, for those who watch its job.
//!
//! Memory holds the last ones of a job that runs, and none of one that has ended: a server keeps many jobs, and the
//! journal of each may be long. The others are read from the file, a few at a time.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use pba_search::journal;
use pba_search::protocol::files;

/// Longest line that is read, as that of a trainer's reports.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Most lines of a running job that are held.
const TAIL_MAX: usize = 1024;

/// How many lines a journal has, and the last ones, as its trainer reported them.
#[derive(Default)]
pub(super) struct Tail {
    count: usize,
    last: VecDeque<String>,
}

impl Tail {
    /// That of a journal of which so many lines are on disk.
    pub(super) fn on_disk(count: usize) -> Tail {
        Tail { count, last: VecDeque::new() }
    }

    /// Adds a line, which is on disk already.
    pub(super) fn push(&mut self, line: String) {
        self.count += 1;
        self.last.push_back(line);
        if self.last.len() > TAIL_MAX {
            self.last.pop_front();
        }
    }

    /// Lines of the journal.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Leaves all lines to the disk.
    pub(super) fn forget(&mut self) {
        self.last = VecDeque::new();
    }

    /// At most `max` lines after the first `seen`.
    pub(super) fn after(&self, seen: usize, max: usize) -> Lines {
        let first = self.count - self.last.len();
        match seen.checked_sub(first) {
            None => Lines::OnDisk { end: first },
            Some(skipped) => {
                let lines = self.last.iter().skip(skipped).take(max).cloned();
                Lines::Here { lines: lines.collect(), are_all: seen.saturating_add(max) >= self.count }
            }
        }
    }
}

/// Lines that a watcher has not seen.
pub(crate) enum Lines {
    /// The next of them, and whether there are no others.
    Here { lines: Vec<String>, are_all: bool },
    /// They are on disk, up to so many lines of the journal.
    OnDisk { end: usize },
}

/// A place between two lines of a journal on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Lines before it.
    lines: usize,
    /// Bytes before it.
    bytes: u64,
}

/// Reads at most `max` lines of the journal in a job's folder, from line `seen + 1` to line `end`; `mark` is where
/// the last lines ended that were read, and becomes where these end. Fewer come where the file is not as it was
/// written.
///
/// # Errors
/// When it cannot be read.
pub(super) fn read(
    directory: &Path,
    mark: &mut Mark,
    seen: usize,
    end: usize,
    max: usize,
) -> io::Result<Vec<String>> {
    let file = pba_files::open(&directory.join(files::JOURNAL))?;
    let read = |mut mark: Mark| {
        let mut file = BufReader::new(&file);
        file.seek(SeekFrom::Start(mark.bytes))?;
        let (mut lines, mut line) = (Vec::new(), Vec::new());
        while mark.lines < end && lines.len() < max {
            line.clear();
            let bytes = file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            let event = line.strip_suffix(b"\n").and_then(|line| journal::event(line, mark.lines + 1).ok());
            let Some(event) = event else { break };
            mark = Mark { lines: mark.lines + 1, bytes: mark.bytes + bytes as u64 };
            if mark.lines > seen {
                lines.push(event);
            }
        }
        Ok::<_, io::Error>((lines, mark))
    };
    let mut found = (Vec::new(), *mark);
    if mark.lines <= seen {
        found = read(*mark)?;
    }
    if found.0.is_empty() {
        // A trainer that resumed has written other lines since, or the client has seen fewer.
        found = read(Mark::default())?;
    }
    let (lines, after) = found;
    *mark = after;
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize) -> String {
        format!("{{\"event\":\"checkpoint\",\"epoch\":{number}}}")
    }

    fn write(directory: &Path, numbers: impl Iterator<Item = usize>) {
        let lines = numbers.enumerate().map(|(at, number)| journal::kept(&line(number), at + 1));
        std::fs::write(directory.join(files::JOURNAL), lines.collect::<String>()).unwrap();
    }

    #[test]
    fn memory_holds_the_last_lines_only() {
        let mut tail = Tail::on_disk(5);
        (5..TAIL_MAX + 10).for_each(|number| tail.push(line(number)));
        assert_eq!(tail.last.len(), TAIL_MAX);
        assert!(matches!(tail.after(9, 3), Lines::OnDisk { end: 10 }));
        let Lines::Here { lines, are_all: false } = tail.after(10, 3) else { panic!("they are here") };
        assert_eq!(lines, [10, 11, 12].map(line));
        for seen in [TAIL_MAX + 9, TAIL_MAX + 10, usize::MAX] {
            let Lines::Here { lines, are_all: true } = tail.after(seen, 3) else { panic!("they are here") };
            assert_eq!(lines.len(), usize::from(seen == TAIL_MAX + 9));
        }
    }

    /// A watcher makes the server hold no more of a journal than a trainer's longest line.
    #[test]
    fn a_line_that_is_too_long_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("{{\"event\":\"{}\"}}", "x".repeat(LINE_BYTES_MAX as usize));
        let lines = [journal::kept(&line(0), 1), journal::kept(&long, 2), journal::kept(&line(2), 3)];
        std::fs::write(folder.path().join(files::JOURNAL), lines.concat()).unwrap();
        let mut mark = Mark::default();
        assert_eq!(read(folder.path(), &mut mark, 0, 3, 9).unwrap(), [line(0)]);
        assert_eq!(read(folder.path(), &mut mark, 1, 3, 9).unwrap(), [""; 0]);
    }

    #[test]
    fn old_lines_are_read_from_where_the_last_ones_ended() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 0..10);
        let mut mark = Mark::default();
        let mut read = |seen, end| super::read(folder.path(), &mut mark, seen, end, 4).unwrap();
        assert_eq!(read(1, 10), [1, 2, 3, 4].map(line));
        assert_eq!(read(5, 10), [5, 6, 7, 8].map(line));
        assert_eq!(read(9, 9), [""; 0], "they are not there yet");
        assert_eq!(read(3, 5), [3, 4].map(line), "the client has seen fewer");
        // Others were written meanwhile, whose lines are longer.
        assert_eq!(read(5, 7), [5, 6].map(line));
        write(folder.path(), 1000..1009);
        assert_eq!(read(7, 9), [1007, 1008].map(line));
        assert_eq!(read(9, 12), [""; 0]);
    }
}
