//! Breaks real servers, trainers and clients, and prints what came of it: `make chaos`.
//!
//! `pba-chaos [--kind NAME] [--faults N] [--seed S] [--only INDEX] [--tell] [--out FOLDER]`. Without a kind, all of
//! them; `--faults` is for all together. Ctrl-C ends after the faults that are being injected, and prints the
//! table so far.
//!
//! `pba-chaos soak [--epochs N] [--seconds S] [--searches N] [--seed S] [--out FOLDER]` is `make soak`: clients come
//! and go, and nothing grows. `pba-chaos crowd [--slow N] [--idle N] [--seconds S] [--rounds N] [--seed S] [--out
//! FOLDER]` is `make crowd`: slow and idle connections, of which others notice little.

mod about;
mod lasting;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pba_tests::chaos::{Column, Kind, Plan, Survived, Table, kinds, run};
use serde_json::json;

use crate::about::{Bar, circumstances, err, stops_on_ctrl_c};

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
    match std::env::args().nth(1).as_deref() {
        Some("soak") => lasting::soak(),
        Some("crowd") => lasting::crowd(),
        _ => chaos(),
    }
}

fn chaos() -> ExitCode {
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
    let stop = stops_on_ctrl_c("ending after the faults that are being injected");
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

fn refused(error: &str) -> ExitCode {
    err(&format!("error: {error}\n"));
    ExitCode::from(2)
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
