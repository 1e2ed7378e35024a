//! Disks that are full, fail, or are slow, at the n-th call: under schedules, searches, the cache of packed
//! datasets and standard error.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::chaos::bystander::Bystander;
use crate::chaos::daemon::{Daemon, Launch, wait};
use crate::chaos::dice::Dice;
use crate::chaos::fault::{Fault, Inject, Kind, outcome};
use crate::chaos::harm::{Column, Harm, Outcome, Survived, harness};
use crate::chaos::ledger::Ledger;
use crate::chaos::oracle::{Order, shapes};
use crate::chaos::pictures::Pictures;
use crate::chaos::readers::{Language, Reading};
use crate::chaos::searching::{Searches, plain};
use crate::chaos::strace;
use crate::chaos::strace::Tracer;
use crate::search::Script;

pub(super) fn kind() -> Kind {
    Kind {
        name: "disk",
        title: "ENOSPC, EIO, slow fsync at the n-th call (schedules, searches, cache, standard error)",
        times: 120,
        few: 6,
        at_once: 2,
        open: || Ok(Box::new(Stage { searches: Searches::new() })),
    }
}

/// Calls by which files are changed, other than writes, which sockets and wake-ups take as well.
const SCHEDULES: [&str; 4] = ["fsync,fdatasync", "rename,renameat,renameat2", "openat", "unlink,unlinkat"];
const JOBS: [&str; 4] = ["fsync,fdatasync", "rename,renameat,renameat2", "openat", "mkdir,mkdirat"];
const CACHE: [&str; 5] =
    ["fsync,fdatasync", "rename,renameat,renameat2", "openat", "mkdir,mkdirat", "flock,ftruncate,statx"];
const TRAINER: [&str; 5] = ["fsync", "fdatasync", "renameat", "openat", "flock,ftruncate,mkdir,unlink"];

struct Stage {
    searches: Option<Searches>,
}

impl Inject for Stage {
    fn inject(&self, fault: Fault) -> Outcome {
        let mut dice = fault.dice();
        let needs_strace = !matches!(fault.index % 6, 3 | 4);
        if let Some(missing) = strace::missing().filter(|_| needs_strace) {
            return outcome("a failing disk", || Ok(Survived::NotInjected(missing)));
        }
        match (fault.index % 6, &self.searches) {
            (0, _) => under_schedules(&mut dice),
            (1, Some(searches)) => under_a_trainer(searches, &mut dice, fault.index),
            (2, _) => under_jobs(&mut dice),
            (3, _) => under_the_cache(&mut dice),
            (4, _) => under_standard_error(&mut dice),
            _ => slow(&mut dice),
        }
    }
}

/// A fault at the n-th call, and maybe at all later ones.
fn failing(calls: &str, dice: &mut Dice) -> String {
    let error = dice.pick(&["ENOSPC", "EIO", "EIO", "EDQUOT"]);
    let when = dice.scaled(1, 6);
    let on = if dice.once_in(2) { "+" } else { "" };
    format!("inject={calls}:error={error}:when={when}{on}")
}

fn small(server: &Daemon, dice: &mut Dice) -> Result<Order, Harm> {
    let query = format!("split=test&seed={}&shard=0/20&base=flip", dice.below(1000));
    Order::new(&shapes(server.data.path()), 0, &query)
}

fn under_schedules(dice: &mut Dice) -> Outcome {
    let writes = dice.once_in(3);
    let fault = failing(if writes { "write" } else { dice.pick(&SCHEDULES) }, dice);
    outcome(format!("{fault} while schedules are added and removed"), || {
        let launch = Launch::new(&[]);
        let mut server = launch.start()?;
        let mut faults = vec![fault.clone()];
        if writes {
            // Only where schedules are written, under the names that they have on their way.
            let name = |number| server.data.path().join(format!("schedules/change-{number}.json.partial"));
            faults.extend((1..30).map(|number| format!("path={}", name(number).display())));
        }
        let log = tempfile::NamedTempFile::new().map_err(|error| harness!("{error}"))?;
        let mut ledger = Ledger::default();
        for _ in 0..4 {
            if !ledger.change(server.address) {
                return Err(Harm::new(Column::Other, "a change is refused without a fault"));
            }
        }
        let order = small(&server, dice)?;
        let bystander = Bystander::of(&server.url(), &order);
        let tracer = Tracer::attach(server.process.id(), &faults, log.path())?;
        let refused = (0..10).filter(|_| !ledger.change(server.address)).count();
        bystander.goes_on()?;
        let injected = tracer.detach();
        drop(bystander);
        server.healthy()?;
        // As before, once the disk is as before.
        for _ in 0..2 {
            if !ledger.change(server.address) {
                return Err(Harm::new(Column::Dead, "changes are refused after the fault"));
            }
        }
        ledger.check(&server)?;
        let mut server = server.killed_and_restarted(&launch)?;
        ledger.check(&server)?;
        server.healthy()?;
        Ok(match (injected, refused) {
            (0, _) => Survived::NotInjected("the server made fewer such calls".to_owned()),
            (_, 0) => Survived::Unnoticed,
            _ => Survived::Refused(format!("{refused} of 10 changes")),
        })
    })
}

fn under_a_trainer(searches: &Searches, dice: &mut Dice, index: u32) -> Outcome {
    let name = format!("failing-{index}");
    let writes = dice.once_in(3);
    let calls = if writes { "write,pwrite64" } else { dice.pick(&TRAINER) };
    let fault = match calls {
        // Those before load its libraries.
        "openat" => format!("inject=openat:error=EIO:when={}", dice.between(240, 310)),
        calls => failing(calls, dice),
    };
    outcome(format!("{fault} of the trainer"), || {
        let path = |file: &str| searches.folder().join(&name).join(file).display().to_string();
        let paths = match writes {
            true => ["events.jsonl", "schedule.json"].map(|file| format!(" -P {}", path(file))).concat(),
            false => String::new(),
        };
        searches.with_fault(&name, &format!("{fault}{paths}"))
    })
}

/// Searches that are put in line and cancelled, and whose records cannot be stored.
fn under_jobs(dice: &mut Dice) -> Outcome {
    let fault = failing(dice.pick(&JOBS), dice);
    outcome(format!("{fault} while searches are queued and cancelled"), || {
        let script = Script::idles();
        let launch = Launch::new(&["--trainer", script.path()]);
        let mut server = launch.start()?;
        let log = tempfile::NamedTempFile::new().map_err(|error| harness!("{error}"))?;
        let tracer = Tracer::attach(server.process.id(), std::slice::from_ref(&fault), log.path())?;
        let mut acknowledged: Vec<(String, bool)> = Vec::new();
        let mut refused = 0;
        for number in 0..4 {
            let name = format!("search-{number}");
            let sent = |method, target: &str, body: &[u8]| {
                let answer = server.send(method, target, body);
                answer.is_ok_and(|answer| (200..300).contains(&answer.status))
            };
            if !sent("POST", "/v1/searches", plain(&name).to_string().as_bytes()) {
                refused += 1;
                continue;
            }
            let cancels = dice.once_in(2);
            let cancelled = cancels && sent("DELETE", &format!("/v1/searches/{name}"), b"");
            refused += usize::from(cancels && !cancelled);
            match cancels == cancelled {
                true => acknowledged.push((name, cancelled)),
                // It may be cancelled or not, but it is there.
                false => acknowledged.push((name, false)),
            }
        }
        let order = small(&server, dice)?;
        Reading::of(Language::Rust, [server.url()]).read_whole(&order)?;
        let injected = tracer.detach();
        server.alive()?;
        let mut server = server.killed_and_restarted(&launch)?;
        for (name, cancelled) in &acknowledged {
            let answer = server.get(&format!("/v1/searches/{name}"));
            let answer = answer.map_err(|error| Harm::new(Column::Dead, error))?;
            if answer.status != 200 {
                return Err(Harm::new(
                    Column::Undone,
                    format!("search {name} was queued: {}", answer.status),
                ));
            }
            if *cancelled && answer.json()["state"] != "cancelled" {
                let found = answer.json();
                let (state, error) = (&found["state"], &found["error"]);
                return Err(Harm::new(
                    Column::Undone,
                    format!("search {name} was cancelled: {state}: {error}"),
                ));
            }
        }
        server.healthy()?;
        server.kill();
        Ok(match (injected, refused) {
            (0, _) => Survived::NotInjected("the server made fewer such calls".to_owned()),
            (_, 0) => Survived::Unnoticed,
            _ => Survived::Refused(format!("{refused} requests")),
        })
    })
}

/// An import into a cache that is full, or fails.
fn under_the_cache(dice: &mut Dice) -> Outcome {
    let encoded = dice.once_in(2);
    let size = dice.pick(&["16k", "64k", "300k", "1m", "33m", "38m"]);
    let fault = failing(dice.pick(&CACHE), dice);
    let is_full = dice.once_in(3);
    let what = if is_full { format!("a disk of {size}B") } else { fault.clone() };
    outcome(format!("{what} while a dataset is imported"), || {
        let pictures = Pictures::new(encoded, dice)?;
        let order = pictures.order(dice)?;
        let log = tempfile::NamedTempFile::new().map_err(|error| harness!("{error}"))?;
        let plain = Launch::new(&[&pictures.flag()]);
        let mut launch = plain.clone();
        let cache = plain.data.path().join("datasets");
        if is_full {
            if let Some(why) = no_mounts() {
                return Ok(Survived::NotInjected(why));
            }
            let mount = format!("mount -t tmpfs -o size={size} tmpfs '{}' && exec \"$@\"", cache.display());
            launch.wrapper = ["unshare", "-m", "sh", "-c", &mount, "sh"].map(str::to_owned).into();
        } else {
            launch.faults = Some((vec![fault], log.path().to_owned()));
        }
        let mut server = match launch.start() {
            Ok(server) => server,
            // It cannot even make its folders, and says so.
            Err(harm) if !is_full && harm.seen.contains("error: ") => {
                let mut server = plain.start()?;
                Reading::any(dice, [server.url()]).read_whole(&order)?;
                server.healthy()?;
                return Ok(Survived::Refused(harm.seen));
            }
            Err(harm) => return Err(harm),
        };
        let read = Reading::any(dice, [server.url()]).read(&order)?;
        server.alive()?;
        let injected = is_full || strace::injected(log.path()) > 0;
        // What was left behind does no harm once there is room.
        let mut server = server.killed_and_restarted(&plain)?;
        Reading::any(dice, [server.url()]).read_whole(&order)?;
        server.healthy()?;
        match injected {
            true => Ok(read),
            false => Ok(Survived::NotInjected("the server made fewer such calls".to_owned())),
        }
    })
}

/// Why nothing can be mounted for a process alone; none when it can.
fn no_mounts() -> Option<String> {
    let mount = "mount -t tmpfs -o size=4k tmpfs /mnt";
    let output = std::process::Command::new("unshare").args(["-m", "sh", "-c", mount]).output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("no mounts here: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Some(format!("there is no unshare: {error}")),
    }
}

/// A reader of the log that dies, or stands still; a log on a full disk.
fn under_standard_error(dice: &mut Dice) -> Outcome {
    let way =
        dice.pick(&["its reader has died", "its reader stands still", "its disk is full", "it is closed"]);
    outcome(format!("standard error: {way}"), || {
        let folder = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
        let pipe = folder.path().join("log");
        let redirection = match way {
            "its disk is full" => "2>/dev/full".to_owned(),
            "it is closed" => "2>&-".to_owned(),
            _ => format!("2>'{}'", pipe.display()),
        };
        let reader = if redirection.contains("log'") { Some(fifo(&pipe)?) } else { None };
        let mut launch = Launch::new(&[]);
        // Loud, so that it says something about each request.
        let run = format!("RUST_LOG=trace exec \"$@\" {redirection}");
        launch.wrapper = ["sh", "-c", &run, "sh"].map(str::to_owned).into();
        let mut server = launch.start()?;
        let order = small(&server, dice)?;
        let bystander = Bystander::of(&server.url(), &order);
        if way == "its reader has died" {
            drop(reader);
        }
        let mut ledger = Ledger::default();
        for number in 0..20 {
            if !ledger.change(server.address) {
                return Err(Harm::new(Column::Dead, format!("change {number} is refused")));
            }
            // Enough of them to fill what is not read.
            for _ in 0..5 {
                Reading::of(Language::Rust, [server.url()]).read_whole(&order)?;
            }
            let wrong = server.get("/v1/datasets/nothing/epochs/0/batches");
            match wrong {
                Ok(answer) if answer.status == 404 => {}
                other => return Err(Harm::new(Column::Dead, format!("a wrong request: {other:?}"))),
            }
        }
        bystander.goes_on()?;
        drop(bystander);
        Reading::any(dice, [server.url()]).read_whole(&order)?;
        ledger.check(&server)?;
        server.healthy()?;
        Ok(Survived::Unnoticed)
    })
}

/// A pipe with a name, which its reader has open and does not read.
fn fifo(path: &Path) -> Result<OwnedFd, Harm> {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::from_raw_mode(0o600))
        .map_err(|error| harness!("{error}"))?;
    let reader = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let reader = reader.map_err(|error| harness!("{error}"))?;
    // As little as the kernel lets it hold.
    rustix::pipe::fcntl_setpipe_size(reader.as_fd(), 4096).map_err(|error| harness!("{error}"))?;
    Ok(reader)
}

/// A change is synced slowly, and all else goes on meanwhile.
fn slow(dice: &mut Dice) -> Outcome {
    let calls = dice.pick(&["fsync,fdatasync", "rename,renameat,renameat2", "fsync", "openat"]);
    outcome(format!("{calls}, each seconds long, under a change"), || {
        let mut server = Launch::new(&[]).start()?;
        let order = small(&server, dice)?;
        let log = tempfile::NamedTempFile::new().map_err(|error| harness!("{error}"))?;
        let (mut injected, mut told) = (0, Ok(()));
        // A busy machine may take longer for what has to go on; then the disk is slower still.
        for seconds in [2, 5, 12] {
            let mut faults = vec![format!("inject={calls}:delay_enter={seconds}000000")];
            if calls == "openat" {
                // The metrics are read from files as well.
                let schedules = server.data.path().join("schedules");
                faults.push(format!("path={}", schedules.display()));
                faults.push(format!("path={}", schedules.join("change-1.json.partial").display()));
            }
            let tracer = Tracer::attach(server.process.id(), &faults, log.path())?;
            let over = AtomicBool::new(false);
            let before_the_end = std::thread::scope(|scope| {
                let change = scope.spawn(|| {
                    let acknowledged = Ledger::default().change(server.address);
                    over.store(true, Ordering::SeqCst);
                    acknowledged
                });
                std::thread::sleep(Duration::from_millis(50));
                let read = Reading::of(Language::Rust, [server.url()]).read_whole(&order);
                let lists = ["/livez", "/v1/schedules", "/v1/datasets", "/metrics"]
                    .map(|page| server.get(page).is_ok_and(|answer| answer.status == 200 && answer.complete));
                let before_the_end = !over.load(Ordering::SeqCst);
                change.join().map_err(|_| harness!("the change panicked"))?;
                read?;
                match lists.iter().all(|right| *right) {
                    true => Ok(before_the_end),
                    false => Err(Harm::new(Column::Hung, "pages are not answered meanwhile")),
                }
            })?;
            injected += tracer.detach();
            server.alive()?;
            told = match before_the_end || injected == 0 {
                true => Ok(()),
                false => Err(Harm::new(Column::Hung, format!("all else waited {seconds} s for a slow disk"))),
            };
            if told.is_ok() {
                break;
            }
        }
        told?;
        server.healthy()?;
        wait("the change", || server.get("/v1/schedules/change-1").is_ok_and(|answer| answer.status == 200))?;
        match injected {
            0 => Ok(Survived::NotInjected("the server made no such call".to_owned())),
            _ => Ok(Survived::Unnoticed),
        }
    })
}
