//! What every result says of how it was made, and how far one is.

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// How and where something was made that began at a moment.
pub(crate) fn circumstances(begun: Instant) -> Value {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({
        "commit": command("git", &["describe", "--always", "--dirty", "--abbrev=7"]),
        "made": command("date", &["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%d %H:%M UTC"]),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "system": command("uname", &["-sr"]),
        "strace": command("strace", &["--version"]).lines().next().unwrap_or("none"),
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "wall_seconds": begun.elapsed().as_secs(),
    })
}

fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(pba_tests::repository("")).output();
    output.map_or_else(|_| "?".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The same in words, after the command that made it.
pub(crate) fn made_by(made_by: &str, begun: Instant) -> String {
    let about = circumstances(begun);
    let of = |key: &str| about[key].as_str().map_or_else(|| about[key].to_string(), str::to_owned);
    format!(
        "Made by `{made_by}` at {}, of commit {}: {} cores, {}, {} build. It took {} s.",
        of("made"),
        of("commit"),
        of("cores"),
        of("system"),
        of("profile"),
        of("wall_seconds"),
    )
}

/// Tells the user how far it is.
pub(crate) fn err(text: &str) {
    // It may not be read.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Set by the first Ctrl-C; the second one ends at once.
pub(crate) fn stops_on_ctrl_c(ending: &'static str) -> Arc<AtomicBool> {
    let stop = Arc::<AtomicBool>::default();
    let set = Arc::clone(&stop);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if set.swap(true, Ordering::SeqCst) {
                    std::process::exit(130);
                }
                err(&format!("\n{ending}; again to end at once\n"));
            }
        });
    });
    stop
}

/// How far it is, on one line.
pub(crate) struct Bar {
    name: &'static str,
    times: u32,
    done: AtomicU32,
    begun: Instant,
}

impl Bar {
    const WIDTH: u32 = 30;

    pub(crate) fn new(name: &'static str, times: u32) -> Bar {
        let bar = Bar { name, times, done: AtomicU32::new(0), begun: Instant::now() };
        bar.show();
        bar
    }

    pub(crate) fn step(&self) {
        self.done.fetch_add(1, Ordering::SeqCst);
        self.show();
    }

    fn show(&self) {
        let done = self.done.load(Ordering::SeqCst);
        let full = (done * Self::WIDTH).checked_div(self.times).unwrap_or(Self::WIDTH).min(Self::WIDTH);
        let (full, empty) = ("=".repeat(full as usize), " ".repeat((Self::WIDTH - full) as usize));
        let seconds = self.begun.elapsed().as_secs();
        err(&format!("\r\x1b[K{:<11} [{full}{empty}] {done}/{} {seconds} s", self.name, self.times));
    }

    pub(crate) fn say(&self, text: &str) {
        err(&format!("\r\x1b[K{text}\n"));
        self.show();
    }

    pub(crate) fn end(&self) {
        err("\r\x1b[K");
    }
}
