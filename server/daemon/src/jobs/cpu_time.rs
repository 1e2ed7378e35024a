//! The processor time that a trainer takes: the server's own metrics do not count that of its children.

use std::path::PathBuf;

/// Clock ticks of a second in `/proc`: `USER_HZ`, which Linux fixes at 100 on x86-64 and aarch64.
const TICKS_PER_SECOND: f64 = 100.0;
/// The line of a process is a name of 64 characters at most, and 50 numbers.
const STAT_BYTES_MAX: u64 = 4 << 10;

/// The processor time of a child process, as far as it was counted.
pub(super) struct CpuTime {
    path: Option<PathBuf>,
    ticks: u64,
}

impl CpuTime {
    /// Of a child that has just begun; nothing is counted of one that has ended already.
    pub(super) fn of(process: Option<u32>) -> CpuTime {
        CpuTime { path: process.map(|process| format!("/proc/{process}/stat").into()), ticks: 0 }
    }

    /// Seconds since the last look, over all cores and threads. Where the system does not tell, 0.
    pub(super) fn more(&mut self) -> f64 {
        let text = self.path.as_ref().and_then(|path| pba_files::read_text(path, STAT_BYTES_MAX).ok());
        let Some(ticks) = text.as_deref().and_then(ticks) else { return 0.0 };
        let more = ticks.saturating_sub(self.ticks);
        self.ticks = ticks.max(self.ticks);
        more as f64 / TICKS_PER_SECOND
    }
}

/// The ticks in user and in kernel mode of a line of `/proc/PID/stat` (proc_pid_stat(5)).
fn ticks(stat: &str) -> Option<u64> {
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_stand_after_the_name_whatever_that_is() {
        let stat = "7 (pba) 1 (x)) R 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (pba) R 1"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn what_a_process_takes_is_counted_once() {
        let mut time = CpuTime::of(Some(std::process::id()));
        let mut spent = 0.0;
        let mut work = 1u64;
        while spent == 0.0 {
            work = (0..1_000_000).fold(work, |sum, number| sum.wrapping_mul(31).wrapping_add(number));
            spent += time.more();
        }
        assert!(work != 1 && spent > 0.0);
        assert_eq!(CpuTime::of(None).more(), 0.0);
    }
}
