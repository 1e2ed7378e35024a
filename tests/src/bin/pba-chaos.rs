//! Breaks real servers, trainers and clients, and prints what came of it: `make chaos`.
//!
//! `pba-chaos [--kind NAME] [--faults N] [--seed S] [--only INDEX] [--tell] [--out FOLDER]`. Without a kind, all of
//! them; `--faults` is for all together. Ctrl-C ends after the faults that are being injected, and prints the
//! table so far.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pba_tests::chaos::{Column, Kind, Plan, Survived, Table, kinds, run};
use serde_json::json;

/// The seed of the published table.
const SEED: u64 = 11;

struct Arguments {
    kind: Option<String>,
    faults: Option<u32>,
    seed: u64,
    only: Option<u32>,
    /// Tell each fault, not only those that did harm.
    tell: bool,
    out: Option<PathBuf>,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments =
        Arguments { kind: None, faults: None, seed: SEED, only: None, tell: false, out: None };
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        if flag == "--tell" {
            arguments.tell = true;
            continue;
        }
        let value = given.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{flag} is {value:?}; expected a number"));
        let small =
            || number()?.try_into().map_err(|_| format!("{flag} is {value}; expected at most {}", u32::MAX));
        match flag.as_str() {
            "--kind" => arguments.kind = Some(value.clone()),
            "--faults" => arguments.faults = Some(small()?),
            "--seed" => arguments.seed = number()?,
            "--only" => arguments.only = Some(small()?),
            "--out" => arguments.out = Some(PathBuf::from(&value)),
            _ => {
                return Err(format!(
                    "unknown flag {flag}; expected --kind, --faults, --seed, --only, --tell or --out"
                ));
            }
        }
    }
    if arguments.only.is_some() && arguments.kind.is_none() {
        return Err("--only is an index within a kind; give --kind as well".to_owned());
    }
    Ok(arguments)
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => return refused(&error),
    };
    let all = kinds();
    let chosen: Vec<&Kind> =
        all.iter().filter(|kind| arguments.kind.as_deref().is_none_or(|name| name == kind.name)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = all.iter().map(|kind| kind.name).collect();
        return refused(&format!("unknown kind {:?}; there are {}", arguments.kind, names.join(", ")));
    }
    let stop = stops_on_ctrl_c();
    let begun = Instant::now();
    let total: u32 = chosen.iter().map(|kind| kind.times).sum();
    let mut table = Table::default();
    for kind in chosen {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let times = match arguments.faults {
            Some(faults) => (u64::from(faults) * u64::from(kind.times)).div_ceil(u64::from(total)) as u32,
            None => kind.times,
        };
        let (bar, since) = (Bar::new(kind.name, times), Instant::now());
        let plan = Plan { seed: arguments.seed, times, only: arguments.only, stop: &stop };
        let row = run(kind, &plan, &|index, outcome| match &outcome.result {
            Err(harm) => {
                bar.say(&format!("{}: {harm}", outcome.fault));
                bar.say(&format!(
                    "  again: make chaos KIND={} SEED={} ONLY={index}",
                    kind.name, arguments.seed
                ));
                bar.step();
            }
            Ok(survived) => {
                if arguments.only.is_some() || arguments.tell {
                    bar.say(&format!("{index}: {}: {survived:?}", outcome.fault));
                }
                if !matches!(survived, Survived::NotInjected(_)) {
                    bar.step();
                }
            }
        });
        bar.end();
        match row {
            Ok(row) => table.rows.push(row),
            Err(harm) => return refused(&format!("{}: nothing could be injected: {harm}", kind.name)),
        }
        err(&format!("{}: {} faults in {:.0} s\n", kind.name, times, since.elapsed().as_secs_f64()));
    }
    let text = report(&table, arguments.seed, begun);
    let _ = writeln!(std::io::stdout(), "{text}");
    if let Some(folder) = &arguments.out
        && let Err(error) = write(folder, &table, arguments.seed, begun, &text)
    {
        return refused(&format!("cannot write to {}: {error}", folder.display()));
    }
    if stop.load(Ordering::SeqCst) {
        return ExitCode::from(130);
    }
    if table.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn err(text: &str) {
    // Nobody may be reading it.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn refused(error: &str) -> ExitCode {
    err(&format!("error: {error}\n"));
    ExitCode::from(2)
}

/// Set by the first Ctrl-C; the second one ends at once.
fn stops_on_ctrl_c() -> Arc<AtomicBool> {
    let stop = Arc::<AtomicBool>::default();
    let set = Arc::clone(&stop);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if set.swap(true, Ordering::SeqCst) {
                    std::process::exit(130);
                }
                err("\nending after the faults that are being injected; again to end at once\n");
            }
        });
    });
    stop
}

/// How far it is, on one line.
struct Bar {
    name: &'static str,
    times: u32,
    done: AtomicU32,
    begun: Instant,
}

impl Bar {
    const WIDTH: u32 = 30;

    fn new(name: &'static str, times: u32) -> Bar {
        let bar = Bar { name, times, done: AtomicU32::new(0), begun: Instant::now() };
        bar.show();
        bar
    }

    fn step(&self) {
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

    fn say(&self, text: &str) {
        err(&format!("\r\x1b[K{text}\n"));
        self.show();
    }

    fn end(&self) {
        err("\r\x1b[K");
    }
}

fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(pba_tests::repository("")).output();
    output.map_or_else(|_| "?".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn circumstances(begun: Instant) -> serde_json::Value {
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

fn report(table: &Table, seed: u64, begun: Instant) -> String {
    let about = circumstances(begun);
    let of = |key: &str| about[key].as_str().map_or_else(|| about[key].to_string(), str::to_owned);
    format!(
        "# Faults\n\nMade by `make chaos SEED={seed}` at {}, of commit {}: {} cores, {}, {}, {} build. {} faults \
         took {} s.\n\n{}",
        of("made"),
        of("commit"),
        of("cores"),
        of("system"),
        of("strace"),
        of("profile"),
        table.times(),
        of("wall_seconds"),
        table.markdown(seed)
    )
}

fn write(
    folder: &std::path::Path,
    table: &Table,
    seed: u64,
    begun: Instant,
    text: &str,
) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let columns: Vec<&str> = Column::ALL.iter().map(|column| column.heading()).collect();
    let document = json!({
        "seed": seed, "circumstances": circumstances(begun), "columns": columns, "rows": table.json(),
    });
    std::fs::write(folder.join("faults.json"), format!("{document:#}\n"))?;
    std::fs::write(folder.join("faults.md"), text)
}
