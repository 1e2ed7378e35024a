//! The commands that last: `soak` and `crowd`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pba_tests::chaos;

use crate::about::{Bar, made_by, stops_on_ctrl_c};
use crate::{SEED, refused};

/// Numbers by the names of their flags, and the folder for the result.
type Given = (BTreeMap<&'static str, u64>, Option<PathBuf>);

/// Reads the flags after a command, of which some are known, with what they are by default.
fn given(known: &[(&'static str, u64)]) -> Result<Given, String> {
    let (mut numbers, mut out) = (BTreeMap::from_iter(known.iter().copied()), None);
    let mut given = std::env::args().skip(2);
    while let Some(flag) = given.next() {
        let value = given.next().ok_or_else(|| format!("{flag} needs a value"))?;
        if flag == "--out" {
            out = Some(PathBuf::from(value));
            continue;
        }
        let number = flag.strip_prefix("--").and_then(|name| numbers.get_mut(name));
        let number = number.ok_or_else(|| {
            let names: Vec<String> = known.iter().map(|(name, _)| format!("--{name}")).collect();
            format!("unknown flag {flag}; expected {} or --out", names.join(", "))
        })?;
        let small = value.parse().ok().filter(|number| u32::try_from(*number).is_ok());
        *number =
            small.ok_or_else(|| format!("{flag} is {value:?}; expected a number up to {}", u32::MAX))?;
    }
    Ok((numbers, out))
}

/// Prints a result, and keeps it in a file of the folder that was named.
fn keep(out: Option<PathBuf>, file: &str, text: &str) -> std::io::Result<()> {
    let _ = writeln!(std::io::stdout(), "{text}");
    let Some(folder) = out else { return Ok(()) };
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(file), text)
}

/// `pba-chaos soak`.
pub(crate) fn soak() -> ExitCode {
    let known = [("epochs", 1000), ("seconds", 1200), ("searches", 4), ("seed", SEED)];
    let (numbers, out) = match given(&known) {
        Ok(given) => given,
        Err(error) => return refused(&error),
    };
    let stop = stops_on_ctrl_c("ending after the visits under way");
    let (begun, epochs) = (Instant::now(), numbers["epochs"] as u32);
    let soaking = chaos::Soaking {
        seed: numbers["seed"],
        epochs,
        time: Duration::from_secs(numbers["seconds"]),
        searches: numbers["searches"] as u32,
        growth_bytes_max: chaos::GROWTH_BYTES_MAX,
        stop: &stop,
    };
    let bar = Bar::new("soak", epochs);
    let soaked = match chaos::soak(&soaking, &|told| match told {
        Ok(_) => bar.step(),
        Err(harm) => bar.say(harm),
    }) {
        Ok(soaked) => soaked,
        Err(harm) => return refused(&format!("nothing could be read: {harm}")),
    };
    bar.end();
    let command =
        format!("make soak EPOCHS={epochs} SECONDS={} SEED={}", numbers["seconds"], numbers["seed"]);
    let text = format!("# Soak\n\n{}\n\n{}", made_by(&command, begun), soaked.markdown());
    if let Err(error) = keep(out, "soak.md", &text) {
        return refused(&format!("cannot keep the result: {error}"));
    }
    if stop.load(Ordering::SeqCst) {
        return ExitCode::from(130);
    }
    if soaked.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `pba-chaos crowd`.
pub(crate) fn crowd() -> ExitCode {
    let known = [("slow", 200), ("idle", 1000), ("seconds", 60), ("rounds", 2), ("seed", SEED)];
    let (numbers, out) = match given(&known) {
        Ok(given) => given,
        Err(error) => return refused(&error),
    };
    let stop = stops_on_ctrl_c("ending when the crowd has gone");
    let begun = Instant::now();
    let (slow, idle, seconds) = (numbers["slow"], numbers["idle"], numbers["seconds"]);
    let crowding = chaos::Crowding {
        slow: slow as usize,
        idle: idle as usize,
        time: Duration::from_secs(seconds),
        rounds: numbers["rounds"] as u32,
        seed: numbers["seed"],
        stop: &stop,
    };
    let bar = Bar::new("crowd", (2 * numbers["rounds"] * seconds) as u32);
    let crowded = match chaos::crowd(&crowding, &|| bar.step()) {
        Ok(crowded) => crowded,
        Err(harm) => return refused(&format!("nothing could be read: {harm}")),
    };
    bar.end();
    let command = format!("make crowd SECONDS={seconds} SEED={}", numbers["seed"]);
    let text = format!(
        "# A crowd\n\n{}\n\n{slow} slow connections, half of them in the middle of a stream, and {idle} idle ones, half \
         over TCP and half over the Unix socket, against a server with its default settings.\n\n{}",
        made_by(&command, begun),
        crowded.markdown()
    );
    if let Err(error) = keep(out, "crowd.md", &text) {
        return refused(&format!("cannot keep the result: {error}"));
    }
    if stop.load(Ordering::SeqCst) {
        return ExitCode::from(130);
    }
    if crowded.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
