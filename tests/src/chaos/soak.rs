//! A server for many clients that come and go, over a long time: nothing that they get is wrong, and nothing
//! that they take stays with the server.
//!
//! Each visit reads one epoch whole, judged by the oracle: from Rust or Python, over TCP, the Unix socket or
//! shared memory, with any schedule, base augmentation and batch size, of one of two datasets, over a connection
//! that is cut or not. Beside that it does something that leaves nothing behind, or should: leaves in the middle
//! of a batch, is killed, reads slowly, sends a picture, adds and removes a schedule, reads the metrics. What
//! the server takes is read when all are away: after the warm-up, in the middle and at the end.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pba_datasets::Dataset;
use tempfile::TempDir;

use crate::Download;
use crate::chaos::daemon::{Daemon, Launch, send, wait};
use crate::chaos::dice::Dice;
use crate::chaos::footprint::Footprint;
use crate::chaos::group::Group;
use crate::chaos::harm::{Column, Harm, harness};
use crate::chaos::hostile::is_inverted;
use crate::chaos::leavers::leave_with_a_batch;
use crate::chaos::ledger;
use crate::chaos::oracle::{self, Order, shapes};
use crate::chaos::pictures::{self, Pictures};
use crate::chaos::readers::{self, Language, Reading};
use crate::chaos::searching::{self, Learned};
use crate::chaos::wire::{Place, Trouble, TroubleKind, Wire};
use crate::search::trainer;

/// Clients at a time.
const VISITORS: usize = 3;
/// Threads of a server for work that may wait live as long as this without any; tokio says so.
const THREADS_IDLE: Duration = Duration::from_secs(12);
/// Memory by which a warm server may have grown and still be called flat, beside its caches, whose sizes are
/// settings: a few of the largest batches, which the allocator keeps or gives back as it likes, and the records of
/// the searches, which stay. It goes up and down by this much.
pub const GROWTH_BYTES_MAX: u64 = 16 << 20;
/// Descriptors and threads by which it may have grown: a connection may be ending yet.
const GROWTH_MAX: u64 = 1;

/// How long to go on.
pub struct Soaking<'a> {
    /// The seed.
    pub seed: u64,
    /// Epochs that are read whole.
    pub epochs: u32,
    /// The time over which they are spread; zero for as fast as it goes.
    pub time: Duration,
    /// Searches that run meanwhile, if this build has a trainer.
    pub searches: u32,
    /// Memory by which the server may grow after the first tenth of them, in bytes.
    pub growth_bytes_max: u64,
    /// Set from outside to end early.
    pub stop: &'a AtomicBool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Soaked {
    /// Memory by which the server was allowed to grow, in bytes.
    pub growth_bytes_max: u64,
    /// Epochs that were read whole, and were right.
    pub epochs: u32,
    /// What else was done, how often.
    pub done: BTreeMap<&'static str, u32>,
    /// Samples that clients compared with the oracle's.
    pub compared: u64,
    /// Samples that the server augmented: those too that were no longer waited for.
    pub augmented: u64,
    /// What the server took, after how many epochs: after the warm-up, in the middle, at the end.
    pub points: Vec<(u32, Footprint)>,
    /// The most that was seen of each, at any time.
    pub peak: Footprint,
    /// What went wrong.
    pub harm: Vec<String>,
}

impl Soaked {
    /// Whether nothing went wrong, and nothing grew.
    pub fn is_clean(&self) -> bool {
        self.harm.is_empty()
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| | epochs so far | resident, MB | proportional, MB | anonymous, MB | caches in it at most, MB | shared \
             with clients, MB | not reclaimable with the kernel's, MB | descriptors | threads | kept shared memory, \
             MB |\n| --- |",
        );
        text += &" ---: |".repeat(10);
        text.push('\n');
        let mut line = |name: &str, epochs: &str, seen: &Footprint| {
            let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
            let cells = [
                epochs.to_owned(),
                mb(seen.resident),
                mb(seen.proportional),
                mb(seen.anonymous),
                mb(seen.caches),
                mb(seen.shared),
                seen.unreclaimed.map_or("no control group".to_owned(), mb),
                seen.descriptors.to_string(),
                seen.threads.to_string(),
                mb(seen.kept),
            ];
            text += &format!("| {name} | {} |\n", cells.join(" | "));
        };
        for (name, (epochs, seen)) in ["start, warm", "middle", "end"].iter().zip(&self.points) {
            line(name, &epochs.to_string(), seen);
        }
        line("most at any time", "", &self.peak);
        let share = 100.0 * self.compared as f64 / self.augmented.max(1) as f64;
        text += &format!(
            "\n{} epochs were read whole, and every sample of them compared with the oracle's: {} samples, \
             {share:.0} % of the {} that the server augmented; the others were made for clients that left before \
             they took them, or for previews. Of these epochs, and beside them:\n\n",
            self.epochs, self.compared, self.augmented
        );
        for (what, times) in &self.done {
            text += &format!("- {what}: {times}\n");
        }
        text += &format!(
            "\nFlat is at most {} MB more anonymous memory at the end than at the start, beside what the caches \
             grew by, the same of what cannot be reclaimed, at most {GROWTH_MAX} more descriptor or thread, and no kept \
             shared memory. \
             The trainers of the searches are in the same control group; the most that cannot be reclaimed is theirs.\n\n",
            self.growth_bytes_max >> 20
        );
        match self.harm.is_empty() {
            true => text += "**Nothing went wrong, and nothing grew.**\n",
            false => self.harm.iter().for_each(|harm| text += &format!("- **{harm}**\n")),
        }
        text
    }

    /// Says what has grown from the first point to the last one.
    fn compare(&mut self) {
        let [(_, start), .., (_, end)] = &self.points[..] else { return };
        let caches = end.caches.saturating_sub(start.caches);
        let mut grown = Vec::new();
        let mut look = |what: &str, start: u64, end: u64, allowed: u64| {
            if end > start + allowed {
                grown.push(format!("{what} grew from {start} to {end}; {allowed} more are allowed"));
            }
        };
        look("anonymous memory", start.anonymous, end.anonymous, caches + self.growth_bytes_max);
        if let (Some(start), Some(end)) = (start.unreclaimed, end.unreclaimed) {
            look("memory that cannot be reclaimed", start, end, caches + self.growth_bytes_max);
        }
        look("open descriptors", start.descriptors, end.descriptors, GROWTH_MAX);
        look("threads", start.threads, end.threads, GROWTH_MAX);
        look("kept shared memory", 0, end.kept, 0);
        self.harm.append(&mut grown);
    }
}

/// Reads epochs from a server as long as it is told to, and tells each that was read, or what went wrong.
///
/// # Errors
/// When the server does not start.
pub fn soak(soaking: &Soaking<'_>, tell: &(dyn Fn(Result<u32, &str>) + Sync)) -> Result<Soaked, Harm> {
    let mut dice = Dice::of(soaking.seed, "soak", u32::MAX);
    let pictures = Pictures::new(true, &mut dice)?;
    let (data, _) = pictures.packed()?;
    let sockets = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
    let socket = sockets.path().join("server").display().to_string();
    let (flag, trainer) = (pictures.flag(), trainer());
    let mut flags = vec!["--socket", &socket, &flag];
    flags.extend(trainer.iter().flat_map(|trainer| ["--trainer", trainer]));
    let mut launch = Launch::on(data, &flags);
    // Without the right to make one, one figure is missing.
    let group = Group::new(None).ok();
    launch.wrapper = group.as_ref().map(Group::wrapper).unwrap_or_default();
    let mut server = launch.start()?;
    let cache = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
    let mine = oracle::dataset("mine", pictures.path(), cache.path()).map_err(|error| harness!("{error}"))?;
    let place = Visited {
        address: server.address,
        sockets,
        datasets: [shapes(server.data.path()), mine],
        done: Mutex::default(),
        compared: AtomicU64::new(0),
    };
    let mut soaked = Soaked { growth_bytes_max: soaking.growth_bytes_max, ..Soaked::default() };
    let peak = Mutex::new(Footprint::default());
    let (begun, next, is_over) = (Instant::now(), AtomicU32::new(0), AtomicBool::new(false));
    let ends = [soaking.epochs.div_ceil(10), soaking.epochs.div_ceil(2), soaking.epochs];
    let mut undisturbed = None;
    for (phase, end) in ends.into_iter().enumerate() {
        let (harm, address, process) = (Mutex::new(Vec::new()), server.address, server.process.id());
        std::thread::scope(|scope| {
            is_over.store(false, Ordering::SeqCst);
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    if let Ok(seen) = Footprint::of(address, process, group.as_ref()) {
                        let mut peak = peak.lock().unwrap();
                        *peak = peak.max(seen);
                    }
                    std::thread::sleep(Duration::from_millis(500));
                }
            });
            let visit = |_| {
                loop {
                    let taken = |next| (next < end).then_some(next + 1);
                    let Ok(index) = next.fetch_update(Ordering::SeqCst, Ordering::SeqCst, taken) else {
                        return;
                    };
                    let due = soaking.time.mul_f64(f64::from(index) / f64::from(soaking.epochs.max(1)));
                    std::thread::sleep(due.saturating_sub(begun.elapsed()));
                    if soaking.stop.load(Ordering::SeqCst) {
                        return;
                    }
                    match place.visit(soaking.seed, index) {
                        Ok(()) => tell(Ok(index + 1)),
                        Err(why) => {
                            let why = format!("visit {index}: {why}");
                            tell(Err(&why));
                            harm.lock().unwrap().push(why);
                        }
                    }
                }
            };
            let visitors: Vec<_> = (0..VISITORS).map(|number| scope.spawn(move || visit(number))).collect();
            if trainer.is_some() && soaking.searches > 0 {
                let searched = search(&mut server, phase, soaking, &mut undisturbed);
                searched.unwrap_or_else(|why| harm.lock().unwrap().push(format!("a search: {why}")));
            }
            visitors.into_iter().for_each(|visitor| drop(visitor.join()));
            is_over.store(true, Ordering::SeqCst);
        });
        soaked.harm.append(&mut harm.into_inner().unwrap());
        let point = server.blamed(|server| {
            server.healthy()?;
            let before = soaked.points.first().map(|(_, seen)| *seen);
            at_rest(server, group.as_ref(), before, !soaking.time.is_zero())
        });
        match point {
            Ok(seen) => soaked.points.push((next.load(Ordering::SeqCst), seen)),
            Err(why) => soaked.harm.push(why.to_string()),
        }
        if soaking.stop.load(Ordering::SeqCst) || !server.process.is_running() {
            break;
        }
    }
    soaked.compare();
    soaked.peak = peak.into_inner().unwrap();
    soaked.epochs = next.load(Ordering::SeqCst);
    soaked.done = place.done.into_inner().unwrap();
    if trainer.is_some() && soaking.searches > 0 {
        soaked.done.insert("searches that learned what an undisturbed one learns", soaking.searches);
    }
    soaked.compared = place.compared.into_inner();
    let augmented = |name| server.metric(&format!("pba_images_augmented_total{{dataset=\"{name}\"}}"));
    soaked.augmented =
        ["shapes", "mine"].into_iter().filter_map(|name| augmented(name).ok()).sum::<f64>() as u64;
    readers::dismiss();
    Ok(soaked)
}

/// What a server takes that no client uses, once it takes no more descriptors and threads than before.
fn at_rest(
    server: &Daemon,
    group: Option<&Group>,
    before: Option<Footprint>,
    patiently: bool,
) -> Result<Footprint, Harm> {
    let look = || {
        let seen = Footprint::of(server.address, server.process.id(), group);
        seen.map_err(|error| Harm::new(Column::Dead, error))
    };
    if patiently {
        std::thread::sleep(THREADS_IDLE);
    }
    if let Some(before) = before {
        // What does not go away is told by comparing.
        let _ = wait("the server to be as before", || {
            look().is_ok_and(|seen| {
                seen.descriptors <= before.descriptors + GROWTH_MAX
                    && seen.threads <= before.threads + GROWTH_MAX
                    && seen.kept == 0
            })
        });
    }
    look()
}

/// Runs this phase's searches, one after another: the first one says what all must learn.
fn search(
    server: &mut Daemon,
    phase: usize,
    soaking: &Soaking<'_>,
    undisturbed: &mut Option<Learned>,
) -> Result<(), Harm> {
    let learned = match undisturbed {
        Some(learned) => learned.clone(),
        None => undisturbed.insert(searching::undisturbed(server)?).clone(),
    };
    // After the warm-up, spread over both phases.
    let (first, last) = match phase {
        0 => return Ok(()),
        1 => (0, soaking.searches / 2),
        _ => (soaking.searches / 2, soaking.searches),
    };
    let pause = soaking.time.mul_f64(0.4) / (last - first).max(1);
    for number in first..last {
        let name = format!("soak-{number}");
        searching::start(server, &name)?;
        searching::finish(server, &name, &learned)?;
        let target = format!("/v1/schedules/{name}");
        let removed = server.send("DELETE", &target, b"").map_err(|error| Harm::new(Column::Dead, error))?;
        if removed.status >= 300 {
            return Err(Harm::new(Column::Other, format!("DELETE {target}: {}", removed.status)));
        }
        for _ in 0..pause.as_secs() {
            if soaking.stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    Ok(())
}

/// A server as its visitors see it.
struct Visited {
    address: std::net::SocketAddr,
    sockets: TempDir,
    datasets: [Dataset; 2],
    done: Mutex<BTreeMap<&'static str, u32>>,
    compared: AtomicU64,
}

impl Visited {
    fn socket(&self) -> PathBuf {
        self.sockets.path().join("server")
    }

    fn count(&self, what: &'static str) {
        *self.done.lock().unwrap().entry(what).or_default() += 1;
    }

    fn visit(&self, seed: u64, index: u32) -> Result<(), Harm> {
        let mut dice = Dice::of(seed, "soak", index);
        let mut order = self.order(&mut dice)?;
        let added = (order.request.schedule.as_deref() == Some("cifar10-pba") && dice.once_in(2))
            .then(|| format!("soak-{index}"));
        if let Some(name) = &added {
            self.expect("PUT", name, 201)?;
            order.request.schedule = Some(name.clone());
        }
        self.read(&order, index, &mut dice)?;
        self.beside(&order, &mut dice)?;
        if let Some(name) = &added {
            self.expect("DELETE", name, 204)?;
            self.expect("GET", name, 404)?;
            self.count("schedules that were added, streamed with and removed");
        }
        Ok(())
    }

    /// Any epoch, small enough that the oracle keeps up.
    fn order(&self, dice: &mut Dice) -> Result<Order, Harm> {
        let schedule =
            dice.pick(&["cifar10-pba", "svhn-pba", "autoaugment-cifar10", "randaugment:2:9", "none"]);
        let seed = dice.below(1 << 40);
        let any = format!("schedule={schedule}&seed={seed}&shuffle=true");
        let (dataset, query) = match dice.below(3) {
            0 => {
                let base = dice.pick(&["random_resized_crop:48,flip", "random_resized_crop:64"]);
                let size = dice.pick(&[1, 7, 45]);
                (&self.datasets[1], format!("split=train&batch_size={size}&base={base}"))
            }
            1 => {
                let size = dice.pick(&[13, 128, 1000]);
                let shard = dice.below(5);
                let base = "pad_crop:4,flip,cutout:16";
                (&self.datasets[0], format!("split=train&batch_size={size}&shard={shard}/5&base={base}"))
            }
            _ => {
                let size = dice.pick(&[16, 128, 2000]);
                (&self.datasets[0], format!("split=test&batch_size={size}&base=flip"))
            }
        };
        Order::new(dataset, dice.below(160) as u32, &format!("{query}&{any}"))
    }

    /// Reads an epoch whole, over a connection of any kind, which may be cut.
    fn read(&self, order: &Order, index: u32, dice: &mut Dice) -> Result<(), Harm> {
        let language = dice.pick(&[Language::Rust, Language::Python]);
        let (is_unix, shares_memory, way) = dice.pick(&[
            (false, false, "epochs over TCP"),
            (true, false, "epochs over the Unix socket"),
            (true, true, "epochs through shared memory"),
        ]);
        let server = if is_unix { Place::Unix(self.socket()) } else { Place::Tcp(self.address) };
        let at = is_unix.then(|| self.sockets.path().join(format!("proxy-{index}")));
        let cut = dice.once_in(4);
        let wire = cut.then(|| Wire::start(at.clone(), server.clone()));
        if let Some(wire) = &wire {
            let bytes = if shares_memory { 24 * order.expected.len() as u64 } else { order.bytes() };
            wire.plan((0..dice.between(1, 3)).map(|_| {
                let kind = dice.pick(&[TroubleKind::Cut, TroubleKind::Reset]);
                Trouble { after: 300 + dice.below(bytes), kind }
            }));
        }
        let url = wire.as_ref().map_or_else(|| server.url(), Wire::url);
        let read = Reading::of(language, [url.clone(), url]).sharing(shares_memory).read_patiently(order);
        let cuts = wire.map_or(0, |wire| wire.done());
        at.map(std::fs::remove_file);
        read?;
        self.compared.fetch_add(order.rows(), Ordering::SeqCst);
        self.count(way);
        self.count(if language == Language::Rust { "epochs read in Rust" } else { "epochs read in Python" });
        if cuts > 0 {
            self.count("epochs that were cut, and continued");
        }
        Ok(())
    }

    /// What else is done.
    fn beside(&self, order: &Order, dice: &mut Dice) -> Result<(), Harm> {
        let dead = |error: std::io::Error| Harm::new(Column::Dead, error);
        match dice.below(8) {
            0 | 1 => {
                let mut download = Download::open_narrow(self.address, &order.target()).map_err(dead)?;
                let _ = std::io::copy(
                    &mut (&mut download).take(dice.scaled(1, order.bytes())),
                    &mut std::io::sink(),
                );
                if dice.once_in(2) {
                    download.reset();
                }
                self.count("clients that left in the middle of a batch");
            }
            2 => {
                let url = format!("unix:{}", self.socket().display());
                leave_with_a_batch(&url, dice.pick(&[1, 100, 2000]))?;
                self.count("clients that left with a batch of shared memory in their hands");
            }
            3 => {
                let url = match dice.once_in(2) {
                    true => format!("unix:{}", self.socket().display()),
                    false => format!("http://{}", self.address),
                };
                let compared =
                    Reading::of(Language::Python, [url]).until_killed(order, dice.between(1, 4))?;
                self.compared.fetch_add(compared, Ordering::SeqCst);
                self.count("Python clients that were killed in the middle");
            }
            4 => {
                let picture = pictures::jpeg(dice);
                let (target, kind) = ("/v1/apply?op=Invert&magnitude=5", [("content-type", "image/jpeg")]);
                let answer = Download::open(self.address, "POST", target, &kind, &picture).map_err(dead)?;
                let answer = answer.finish();
                match answer.status {
                    200 => is_inverted(&picture, &answer.body)?,
                    status => return Err(Harm::new(Column::Other, format!("{target}: {status}"))),
                }
                self.count("pictures sent to /v1/apply, compared");
            }
            5 => {
                for target in [
                    "/metrics",
                    "/v1/datasets",
                    "/v1/schedules",
                    "/v1/searches",
                    "/openapi.json",
                    "/v1/datasets/shapes/epochs/3/preview.png?n=9",
                ] {
                    let answer = send(self.address, "GET", target, b"").map_err(dead)?;
                    if answer.status != 200 || !answer.complete {
                        return Err(Harm::new(Column::Other, format!("{target}: {}", answer.status)));
                    }
                }
                self.count("metrics, lists and previews that were read");
            }
            6 => {
                let mut slow = Download::open_narrow(self.address, &order.target()).map_err(dead)?;
                for _ in 0..5 {
                    let _ = slow.read(&mut [0; 7]);
                    std::thread::sleep(Duration::from_millis(100));
                }
                self.count("clients that read slowly, and left");
            }
            _ => {}
        }
        Ok(())
    }

    /// Asks for a schedule, with an answer that is known beforehand.
    fn expect(&self, method: &str, name: &str, status: u16) -> Result<(), Harm> {
        let target = format!("/v1/schedules/{name}");
        let body = if method == "PUT" { ledger::content(name) } else { String::new() };
        let answer = send(self.address, method, &target, body.as_bytes());
        let answer = answer.map_err(|error| Harm::new(Column::Dead, error))?;
        match answer.status == status {
            true => Ok(()),
            false => Err(Harm::new(Column::Undone, format!("{method} {target}: {}", answer.status))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_told_unless_a_cache_did() {
        let grown = |change: fn(&mut Footprint)| {
            let start =
                Footprint { anonymous: 50 << 20, descriptors: 12, threads: 5, ..Footprint::default() };
            let mut end = start;
            change(&mut end);
            let points = vec![(1, start), (5, end), (9, end)];
            let growth_bytes_max = GROWTH_BYTES_MAX;
            let mut soaked = Soaked { points, growth_bytes_max, ..Soaked::default() };
            soaked.compare();
            soaked.harm.len()
        };
        assert_eq!(grown(|end| end.anonymous += GROWTH_BYTES_MAX), 0);
        assert_eq!(grown(|end| end.anonymous += GROWTH_BYTES_MAX + 1), 1);
        assert_eq!(grown(|end| (end.anonymous, end.caches) = (76 << 20, 10 << 20)), 0);
        assert_eq!(grown(|end| (end.descriptors, end.threads) = (14, 7)), 2);
        assert_eq!(grown(|end| end.kept = 1), 1);
    }
}
