//! Clocks that jump: the time of day by hours and years, in both directions and beyond what dates can say, and
//! the monotonic one as on a machine that was suspended or moved. What is under way must not notice.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::chaos::daemon::{Daemon, Launch, wait};
use crate::chaos::dice::Dice;
use crate::chaos::fault::{Fault, Inject, Kind, outcome};
use crate::chaos::harm::{Column, Harm, Outcome, Survived, harness};
use crate::chaos::ledger::Ledger;
use crate::chaos::oracle::{Order, shapes};
use crate::chaos::pictures::Pictures;
use crate::chaos::readers::{Language, Reading};
use crate::chaos::searching;
use crate::search::{Script, trainer};

pub(super) fn kind() -> Kind {
    Kind {
        name: "clock",
        title: "a clock that jumps (hours, years, 1970; suspended, standing still)",
        times: 40,
        few: 5,
        at_once: 1,
        open: || Ok(Box::new(Stage::open()?)),
    }
}

/// What makes the clocks of a process jump; see there.
const SHIM: &str = include_str!("clock.c");

/// Clocks of the processes that are started with them.
struct Clock {
    folder: TempDir,
    file: File,
    /// The clocks of processes that run only go on, but for the time of day.
    monotonic_milliseconds: Mutex<i64>,
}

/// How a clock jumps.
#[derive(Clone, Copy, Debug)]
enum Jump {
    /// The time of day is so many seconds off what it is.
    By(i64),
    /// The time of day is so many seconds after 1970.
    To(i64),
    /// The process stands still for a moment, and the time of day goes on by so many seconds.
    Suspended(i64),
    /// The monotonic clock goes on by so many seconds at once, as when a virtual machine is moved.
    Moved(i64),
    /// The monotonic clock stands still for so many milliseconds, and the process goes on.
    Stands(u64),
}

/// Ends of what clocks, files and numbers can say, in seconds after 1970: 1970, before which Linux lets no clock be
/// set; 2038 and 2106, where 32 bits end; 2232, after which it lets none be set either.
const ENDS: [i64; 6] = [1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 8_277_292_035];

const HOUR: u64 = 3600;
const YEAR: u64 = 365 * 24 * HOUR;

impl Jump {
    fn any(dice: &mut Dice) -> Jump {
        let there = |dice: &mut Dice, seconds: u64| match dice.once_in(2) {
            true => seconds as i64,
            false => -(seconds as i64),
        };
        match dice.below(8) {
            0 | 1 => {
                let seconds = dice.scaled(1, 48 * HOUR);
                Jump::By(there(dice, seconds))
            }
            2 => {
                let seconds = dice.scaled(YEAR, 50 * YEAR);
                Jump::By(there(dice, seconds))
            }
            3 | 4 => Jump::To(dice.pick(&ENDS)),
            5 => Jump::Suspended(dice.scaled(1, 24 * HOUR) as i64),
            6 => Jump::Moved(dice.scaled(1, 3 * HOUR) as i64),
            _ => Jump::Stands(dice.between(100, 1500)),
        }
    }
}

impl Clock {
    /// One that is right as yet; or why there is none.
    fn new() -> Result<Clock, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (source, shim) = (folder.path().join("clock.c"), folder.path().join("clock.so"));
        std::fs::write(&source, SHIM).map_err(|error| error.to_string())?;
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(&source).arg("-ldl");
        let made = cc.output().map_err(|error| format!("cc: {error}"))?;
        if !made.status.success() {
            return Err(format!("cc: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let file = File::options().write(true).create_new(true).open(folder.path().join("clock"));
        let clock = Clock {
            file: file.map_err(|error| error.to_string())?,
            folder,
            monotonic_milliseconds: Mutex::new(0),
        };
        clock.file.set_len(24).map_err(|error| error.to_string())?;
        Ok(clock)
    }

    /// A command that runs another one by this clock.
    fn wrapper(&self) -> Vec<String> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let (shim, clock) = (path("clock.so"), path("clock"));
        ["env", &format!("LD_PRELOAD={shim}"), &format!("CHAOS_CLOCK={clock}")].map(str::to_owned).into()
    }

    /// Writes one of the numbers in the file, as one.
    fn say(&self, place: u64, number: i64) {
        self.file.write_all_at(&number.to_ne_bytes(), 8 * place).expect("the file can be written");
    }

    /// The clocks of a process, and of what it starts, jump.
    fn jump(&self, jump: Jump, process: u32) {
        match jump {
            Jump::By(seconds) => self.say(0, seconds),
            Jump::To(seconds) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
                self.say(0, seconds - now as i64);
            }
            Jump::Suspended(seconds) => {
                crate::search::signal(process, "STOP");
                std::thread::sleep(Duration::from_millis(200));
                self.say(0, seconds);
                crate::search::signal(process, "CONT");
            }
            Jump::Moved(seconds) => {
                let mut milliseconds = self.monotonic_milliseconds.lock().unwrap();
                *milliseconds += seconds * 1000;
                self.say(1, *milliseconds);
            }
            Jump::Stands(milliseconds) => {
                // What it has said last is a moment earlier; that it goes back by that much is what it has to bear.
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
                let jumped = *self.monotonic_milliseconds.lock().unwrap() * 1_000_000;
                self.say(2, now.tv_sec * 1_000_000_000 + now.tv_nsec + jumped);
                std::thread::sleep(Duration::from_millis(milliseconds));
                self.say(2, 0);
            }
        }
    }
}

struct Stage {
    clock: Result<Clock, String>,
    /// With a trainer, if this build has one. Another takes its place when it has died.
    server: Mutex<Option<Daemon>>,
    launch: Launch,
    sockets: TempDir,
    /// A trainer that gets nowhere, for the order of jobs.
    idles: Script,
    searches: bool,
}

impl Stage {
    fn open() -> Result<Stage, Harm> {
        let sockets = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
        let socket = sockets.path().join("server").display().to_string();
        let trainer = trainer();
        let mut flags = vec!["--socket", &socket, "--scrub-bytes-per-second", "100000000"];
        flags.extend(trainer.iter().flat_map(|trainer| ["--trainer", trainer]));
        let (mut launch, clock) = (Launch::new(&flags), Clock::new());
        if let Ok(clock) = &clock {
            launch.wrapper = clock.wrapper();
        }
        let searches = trainer.is_some();
        Ok(Stage { clock, server: Mutex::new(None), launch, sockets, idles: Script::idles(), searches })
    }

    /// Does something with the server, which goes on afterwards.
    fn with(
        &self,
        work: impl FnOnce(&Clock, &mut Daemon) -> Result<Survived, Harm>,
    ) -> Result<Survived, Harm> {
        let clock = match &self.clock {
            Ok(clock) => clock,
            Err(why) => return Ok(Survived::NotInjected(why.clone())),
        };
        let mut state = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let mut server = match state.take() {
            Some(server) => server,
            None => self.launch.start()?,
        };
        let survived = server.blamed(|server| {
            let survived = work(clock, server)?;
            server.healthy()?;
            dated(server)?;
            let passes = server.metric("pba_scrub_passes_total").map_err(|error| harness!("{error}"))?;
            wait("another pass of the scrub", || {
                server.metric("pba_scrub_passes_total").is_ok_and(|now| now > passes)
            })?;
            Ok(survived)
        })?;
        *state = Some(server);
        Ok(survived)
    }
}

/// Checks that answers have a date, or none.
fn dated(server: &Daemon) -> Result<(), Harm> {
    let answer = server.get("/livez").map_err(|error| Harm::new(Column::Dead, error))?;
    match answer.header("date") {
        Some(date) if date.len() != 29 || !date.ends_with(" GMT") => {
            Err(Harm::new(Column::Other, format!("date: {date:?}")))
        }
        _ => Ok(()),
    }
}

impl Inject for Stage {
    fn inject(&self, fault: Fault) -> Outcome {
        let mut dice = fault.dice();
        let mut jumps: Vec<Jump> = (0..dice.between(1, 4)).map(|_| Jump::any(&mut dice)).collect();
        // The first ones meet 1970 in any case, as on a machine whose clock has no battery.
        if fault.index < 5 {
            jumps[0] = Jump::To(1);
        }
        match fault.index % 5 {
            0 => outcome(format!("{jumps:?} in the middle of a stream"), || self.stream(&mut dice, &jumps)),
            1 => outcome(format!("{jumps:?} between changes of schedules"), || self.changes(&jumps)),
            2 => outcome(format!("{jumps:?} while jobs are queued"), || self.queue(&mut dice, &jumps)),
            3 => outcome(format!("{jumps:?} with files from the future, or long ago"), || {
                self.import(&mut dice, &jumps)
            }),
            _ => outcome(format!("{jumps:?} in the middle of a search"), || self.search(fault.index, &jumps)),
        }
    }
}

impl Stage {
    fn stream(&self, dice: &mut Dice, jumps: &[Jump]) -> Result<Survived, Harm> {
        self.with(|clock, server| {
            let query = format!(
                "split=test&shuffle=true&schedule=cifar10-pba&seed={}&batch_size=20&base=pad_crop:4,flip",
                dice.below(1 << 40)
            );
            let order = Order::new(&shapes(server.data.path()), 150, &query)?;
            let (is_unix, process) = (dice.once_in(2), server.process.id());
            let url = match is_unix {
                true => format!("unix:{}", self.sockets.path().join("server").display()),
                false => server.url(),
            };
            // A clock that goes on by hours cuts those who have taken nothing for as long; they continue.
            let reading = Reading::of(dice.pick(&[Language::Rust, Language::Python]), [url.clone(), url]);
            let reading = reading.sharing(dice.once_in(2));
            let (mut left, every) = (jumps.iter(), order.expected.len() / (jumps.len() + 1));
            reading.read_whole_with(&order, &mut |received| {
                if received % every == 0
                    && let Some(jump) = left.next()
                {
                    clock.jump(*jump, process);
                }
            })?;
            reading.read_whole(&order)
        })
    }

    fn changes(&self, jumps: &[Jump]) -> Result<Survived, Harm> {
        let mut clock = Err(());
        let survived = self.with(|jumping, server| {
            let mut ledger = Ledger::default();
            for jump in jumps {
                jumping.jump(*jump, server.process.id());
                for _ in 0..3 {
                    if !ledger.change(server.address) {
                        return Err(Harm::new(Column::Other, "a change was refused"));
                    }
                }
                ledger.check(server)?;
            }
            // Started again at another time.
            server.kill();
            jumping.jump(jumps[0], server.process.id());
            *server = self.launch.start()?;
            ledger.check(server)?;
            clock = Ok(ledger);
            Ok(Survived::Unnoticed)
        })?;
        // What was added is taken back, so that it does not pile up.
        if let (Ok(ledger), Some(server)) = (clock, &*self.server.lock().unwrap()) {
            ledger.clear(server)?;
        }
        Ok(survived)
    }

    /// Jobs run in the order in which they were requested, whatever the clock said then.
    fn queue(&self, dice: &mut Dice, jumps: &[Jump]) -> Result<Survived, Harm> {
        let clock = match &self.clock {
            Ok(clock) => clock,
            Err(why) => return Ok(Survived::NotInjected(why.clone())),
        };
        let mut launch = Launch::new(&["--trainer", self.idles.path()]);
        launch.wrapper = clock.wrapper();
        let mut server = launch.start()?;
        server.blamed(|server| {
            let mut names = Vec::new();
            for number in 0..=jumps.len() {
                let name = format!("job-{}", dice.pick(&["z", "m", "a"]).to_owned() + &number.to_string());
                searching::start(server, &name)?;
                names.push(name);
                if let Some(jump) = jumps.get(number) {
                    clock.jump(*jump, server.process.id());
                }
            }
            if dice.once_in(2) {
                server.kill();
                *server = launch.start()?;
            }
            for (number, name) in names.iter().enumerate() {
                let state = |name: &str| -> std::io::Result<String> {
                    let answer = server.get(&format!("/v1/searches/{name}"))?.json();
                    Ok(answer["state"].as_str().unwrap_or_default().to_owned())
                };
                let mut running = None;
                wait("a job to run", || {
                    let rest = &names[number..];
                    running = rest.iter().find(|name| state(name).is_ok_and(|state| state == "running"));
                    running.is_some()
                })?;
                if running != Some(name) {
                    return Err(Harm::new(
                        Column::Other,
                        format!("{running:?} runs before {name}: {names:?}"),
                    ));
                }
                let cancelled = server.send("DELETE", &format!("/v1/searches/{name}"), b"");
                let cancelled = cancelled.map_err(|error| Harm::new(Column::Dead, error))?;
                if cancelled.status != 200 {
                    return Err(Harm::new(Column::Other, format!("a cancel: {}", cancelled.text())));
                }
            }
            Ok(Survived::Unnoticed)
        })
    }

    /// Files are imported once, and again when they have changed, whatever their times are and the clock says.
    fn import(&self, dice: &mut Dice, jumps: &[Jump]) -> Result<Survived, Harm> {
        let clock = match &self.clock {
            Ok(clock) => clock,
            Err(why) => return Ok(Survived::NotInjected(why.clone())),
        };
        let seconds = dice.pick(&[-86_400_i64, 0, 1, (1 << 31) - 1, 1 << 32, 7_258_118_400]);
        let touch = |pictures: &Pictures| -> Result<(), Harm> {
            let file = File::options().write(true).open(pictures.path().join("train.parquet"));
            let time = UNIX_EPOCH + Duration::from_secs(seconds.max(0) as u64)
                - Duration::from_secs(seconds.min(0).unsigned_abs());
            let touched = file.and_then(|file| file.set_modified(time));
            touched.map_err(|error| harness!("{error}"))
        };
        let (pictures, other) = (Pictures::new(false, dice)?, Pictures::new(false, dice)?);
        touch(&pictures)?;
        let mut launch = Launch::new(&[&pictures.flag()]);
        launch.wrapper = clock.wrapper();
        let mut jumps = jumps.iter().cycle();
        let mut read = |order: &Order| -> Result<u64, Harm> {
            let mut server = launch.start()?;
            clock.jump(*jumps.next().expect("there is one"), server.process.id());
            Reading::any(dice, [server.url()]).read_whole(order)?;
            server.healthy()?;
            server.kill();
            packed(launch.data.path())
        };
        let mut oracle = Dice::of(seconds.unsigned_abs(), "clock", 0);
        let order = pictures.order(&mut oracle)?;
        let first = read(&order)?;
        if read(&order)? != first {
            return Err(Harm::new(Column::Other, "it was imported again, though nothing had changed"));
        }
        // The same times, and as many images.
        let from = other.path().join("train.parquet");
        std::fs::copy(from, pictures.path().join("train.parquet")).map_err(|error| harness!("{error}"))?;
        touch(&pictures)?;
        read(&pictures.order(&mut oracle)?)?;
        Ok(Survived::Unnoticed)
    }

    fn search(&self, index: u32, jumps: &[Jump]) -> Result<Survived, Harm> {
        if !self.searches {
            return Ok(Survived::NotInjected("this build has no trainer".to_owned()));
        }
        self.with(|clock, server| {
            let undisturbed = searching::undisturbed(server)?;
            let name = format!("search-{index}");
            searching::start(server, &name)?;
            for jump in jumps {
                std::thread::sleep(Duration::from_millis(300));
                clock.jump(*jump, server.process.id());
            }
            searching::finish(server, &name, &undisturbed)
        })
    }
}

/// The number of the packed file of a dataset of people's own: another one, when it is imported again.
fn packed(data: &std::path::Path) -> Result<u64, Harm> {
    let folders = std::fs::read_dir(data.join("datasets")).map_err(|error| harness!("{error}"))?;
    let files = folders.flatten().map(|folder| folder.path().join("train.arrow"));
    // The built-in one has a test split as well.
    let mine = files.filter(|file| file.exists() && !file.with_file_name("test.arrow").exists());
    let newest =
        mine.filter_map(|file| file.metadata().ok()).max_by_key(|found| (found.ctime(), found.ctime_nsec()));
    newest.map(|found| found.ino()).ok_or_else(|| harness!("nothing was packed"))
}
