//! A crowd of slow and idle connections, and what others notice of it.
//!
//! Two clients read one epoch after another, over TCP and a Unix socket, by turns without the crowd and with it.
//! They are compared: their rate, and each batch of theirs with the oracle's. Meanwhile another client asks for
//! `/livez` several times a second. A quarter of the slow connections writes a request of a byte a second, a
//! quarter reads an answer so from its first byte on, and half of them in the middle of a stream. Whoever is cut
//! off comes again, as clients do. The idle ones send nothing, or a request and then nothing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pba_client::Client;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use crate::chaos::daemon::{Daemon, Launch, wait};
use crate::chaos::harm::{Column, Harm, harness};
use crate::chaos::oracle::{Judge, Order, shapes};
use crate::chaos::wire::Place;

/// What a slow connection reads or writes, it does a byte at a time, so often.
const SLOW: Duration = Duration::from_secs(1);
/// Bytes of a stream that are read at full speed by those who are slow in the middle of it.
const MIDDLE_BYTES: usize = 500_000;
/// How often the server is asked whether it lives.
const LIVEZ_EVERY: Duration = Duration::from_millis(200);
/// What the others keep of their rate, at least, and the longest that `/livez` may take.
const RATE_MIN: f64 = 0.9;
const LIVEZ_MAX: Duration = Duration::from_secs(1);
/// Time for the rate to settle before it counts.
const SETTLE: Duration = Duration::from_secs(2);

/// How large a crowd, and for how long.
pub struct Crowding<'a> {
    /// Slow connections.
    pub slow: usize,
    /// Idle connections.
    pub idle: usize,
    /// How long the crowd is there, each time; as long it is away.
    pub time: Duration,
    /// How often it comes.
    pub rounds: u32,
    /// The seed of what is streamed.
    pub seed: u64,
    /// Set from outside to end early.
    pub stop: &'a AtomicBool,
}

/// What one time with the crowd, or without it, was like.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// Whether the crowd was there.
    pub crowded: bool,
    /// Connections that were open at its end, and streams that were sent, as the server says.
    pub open: [u64; 2],
    /// Images that the two clients took in each second, together.
    pub rates: Vec<f64>,
    /// How long `/livez` took, each time, over TCP and the Unix socket by turns.
    pub livez: Vec<Duration>,
    /// Epochs that the two clients read, whole and right.
    pub epochs: u64,
}

impl Phase {
    fn rate(&self) -> f64 {
        median(&self.rates)
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Crowded {
    /// The phases, in order.
    pub phases: Vec<Phase>,
    /// Connections of the crowd that the server closed or refused, and that came again; and of those the ones that
    /// were refused for want of room.
    pub closed: [u64; 2],
    /// What went wrong.
    pub harm: Vec<String>,
}

impl Crowded {
    /// The part of their rate that the others kept: of the medians over all seconds.
    pub fn ratio(&self) -> f64 {
        let rates = |crowded| -> Vec<f64> {
            let phases = self.phases.iter().filter(|phase| phase.crowded == crowded);
            phases.flat_map(|phase| phase.rates.iter().copied()).collect()
        };
        median(&rates(true)) / median(&rates(false))
    }

    /// The longest that `/livez` took.
    pub fn livez_worst(&self) -> Duration {
        self.phases.iter().flat_map(|phase| phase.livez.iter().copied()).max().unwrap_or_default()
    }

    /// Whether nothing went wrong, and the others noticed little.
    pub fn is_clean(&self) -> bool {
        self.harm.is_empty() && self.ratio() >= RATE_MIN && self.livez_worst() < LIVEZ_MAX
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| crowd | seconds | connections | streams | images a second of two clients, median | epochs, all right | \
             `/livez`: answers | median, ms | worst, ms |\n| --- |",
        );
        text += &" ---: |".repeat(8);
        text.push('\n');
        for phase in &self.phases {
            let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
            let times: Vec<f64> = phase.livez.iter().map(Duration::as_secs_f64).collect();
            let cells = [
                phase.rates.len().to_string(),
                phase.open[0].to_string(),
                phase.open[1].to_string(),
                format!("{:.0}", phase.rate()),
                phase.epochs.to_string(),
                times.len().to_string(),
                ms(Duration::from_secs_f64(median(&times))),
                ms(phase.livez.iter().copied().max().unwrap_or_default()),
            ];
            text +=
                &format!("| {} | {} |\n", if phase.crowded { "with" } else { "without" }, cells.join(" | "));
        }
        text += &format!(
            "\nWith the crowd, the others keep **{:.1} %** of their rate ({:.0} % are asked for), and `/livez` takes \
             **{:.0} ms** at worst ({} s are allowed). The server closed {} connections of the crowd, as of requests \
             that do not come within ten seconds, and those came again; it refused {} for want of room.\n\n",
            100.0 * self.ratio(),
            100.0 * RATE_MIN,
            self.livez_worst().as_secs_f64() * 1e3,
            LIVEZ_MAX.as_secs(),
            self.closed[0],
            self.closed[1],
        );
        match self.is_clean() {
            true => text += "**Others keep their rate, and the server answers.**\n",
            false => text += "**Others notice the crowd.**\n",
        }
        self.harm.iter().for_each(|harm| text += &format!("- **{harm}**\n"));
        text
    }
}

fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        length => (sorted[(length - 1) / 2] + sorted[length / 2]) / 2.0,
    }
}

/// Lets a crowd come and go, and says what others noticed; `tell` is called as time goes by.
///
/// # Errors
/// When the server does not start, or this process may not have as many connections.
pub fn crowd(crowding: &Crowding<'_>, tell: &(dyn Fn() + Sync)) -> Result<Crowded, Harm> {
    may_open(2 * (crowding.slow + crowding.idle) as u64 + 200)?;
    let sockets = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
    let socket = sockets.path().join("server");
    let mut server = Launch::new(&["--socket", &socket.display().to_string()]).start()?;
    let dataset = shapes(server.data.path());
    let query = format!("schedule=cifar10-pba&seed={}&base=pad_crop:4,flip,cutout:16", crowding.seed);
    let order = Order::new(&dataset, 150, &query)?;
    let places = [Place::Tcp(server.address), Place::Unix(socket.clone())];
    let (others, mut crowded) = (Others::default(), Crowded::default());
    let done = std::thread::scope(|scope| {
        let ended = End(&others.ended);
        for place in &places {
            scope.spawn(|| others.read(place, &order));
            if let Place::Tcp(_) = place {
                scope.spawn(|| others.ask_whether_it_lives(&places));
            }
        }
        let mut done = Ok(());
        for number in 0..2 * crowding.rounds {
            if crowding.stop.load(Ordering::SeqCst) {
                break;
            }
            done = phase(&mut server, crowding, number % 2 == 1, &others, &socket, tell, &mut crowded);
            if done.is_err() {
                break;
            }
        }
        drop(ended);
        done
    });
    crowded.harm.extend(others.harm.into_inner().unwrap());
    crowded.harm.extend(done.and_then(|()| server.healthy()).err().map(|harm| harm.to_string()));
    Ok(crowded)
}

/// Raises the number of descriptors that this process, and servers that it starts, may have.
fn may_open(wanted: u64) -> Result<(), Harm> {
    let limits = getrlimit(Resource::Nofile);
    let (Some(current), maximum) = (limits.current, limits.maximum) else { return Ok(()) };
    if current >= wanted {
        return Ok(());
    }
    let raised = Rlimit { current: Some(wanted), maximum };
    setrlimit(Resource::Nofile, raised)
        .map_err(|error| harness!("{wanted} descriptors are needed, and {maximum:?} allowed: {error}"))
}

/// Tells others to end when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn phase(
    server: &mut Daemon,
    crowding: &Crowding<'_>,
    is_crowded: bool,
    others: &Others,
    socket: &std::path::Path,
    tell: &(dyn Fn() + Sync),
    crowded: &mut Crowded,
) -> Result<(), Harm> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| harness!("{error}"))?;
    let crowd = Arc::new(Crowd {
        address: server.address,
        socket: socket.to_owned(),
        seed: crowding.seed,
        slowed: AtomicU64::new(0),
        closed: AtomicU64::new(0),
        refused: AtomicU64::new(0),
    });
    // While it comes, too.
    others.livez.lock().unwrap().clear();
    if is_crowded {
        crowd.come(&runtime, crowding);
        // Nearly all: some are always on their way back.
        let all = (crowding.slow + crowding.idle) as f64 * 0.95;
        let readers = (crowding.slow * 3 / 4) as u64;
        wait("the crowd to be there", || {
            crowd.slowed.load(Ordering::SeqCst) >= readers
                && server.metric("pba_connections_active").is_ok_and(|active| active >= all)
        })?;
    }
    std::thread::sleep(SETTLE.min(crowding.time));
    let epochs = others.epochs.load(Ordering::SeqCst);
    let (begun, mut last, mut rates) = (Instant::now(), (others.images(), Instant::now()), Vec::new());
    while begun.elapsed() < crowding.time && !crowding.stop.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_secs(1));
        let now = (others.images(), Instant::now());
        rates.push((now.0 - last.0) as f64 / (now.1 - last.1).as_secs_f64());
        last = now;
        tell();
    }
    let open = |series| server.metric(series).map_or(0, |value| value as u64);
    crowded.phases.push(Phase {
        crowded: is_crowded,
        open: [open("pba_connections_active"), open("pba_streams_active")],
        rates,
        livez: std::mem::take(&mut *others.livez.lock().unwrap()),
        epochs: others.epochs.load(Ordering::SeqCst) - epochs,
    });
    runtime.shutdown_background();
    crowded.closed[0] += crowd.closed.load(Ordering::SeqCst);
    crowded.closed[1] += crowd.refused.load(Ordering::SeqCst);
    server.alive()?;
    wait("the crowd to be gone", || {
        server.metric("pba_connections_active").is_ok_and(|active| active < crowding.idle as f64)
    })
}

/// Those who are there before the crowd.
#[derive(Default)]
struct Others {
    images: AtomicU64,
    epochs: AtomicU64,
    livez: Mutex<Vec<Duration>>,
    ended: AtomicBool,
    harm: Mutex<Vec<String>>,
}

impl Others {
    fn images(&self) -> u64 {
        self.images.load(Ordering::SeqCst)
    }

    fn harm(&self, who: &str, seen: impl std::fmt::Display) {
        self.harm.lock().unwrap().push(format!("{who}: {seen}"));
    }

    /// Reads an epoch again and again.
    fn read(&self, place: &Place, order: &Order) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let read = runtime.expect("a runtime can be made").block_on(async {
            let client = Client::new([place.url()]).map_err(|error| harness!("{error}"))?;
            let client = client.without_shared_memory();
            while !self.ended.load(Ordering::SeqCst) {
                let opened = client.epoch(&order.dataset, order.epoch, order.request.clone());
                let mut stream = opened.await.map_err(|error| Harm::new(Column::Lost, error))?;
                let mut judge = Judge::new(order);
                while let Some(batch) = stream.next().await.map_err(|error| Harm::new(Column::Lost, error))? {
                    judge.take_columns(&batch)?;
                    self.images.fetch_add(batch.num_rows() as u64, Ordering::SeqCst);
                }
                judge.end()?;
                self.epochs.fetch_add(1, Ordering::SeqCst);
            }
            Ok::<(), Harm>(())
        });
        if let Err(harm) = read {
            self.harm(&format!("a client of {}", place.url()), harm);
        }
    }

    /// Asks over TCP and the Unix socket by turns, each time over a new connection.
    fn ask_whether_it_lives(&self, places: &[Place]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(async {
            for place in places.iter().cycle() {
                if self.ended.load(Ordering::SeqCst) {
                    return;
                }
                let begun = Instant::now();
                let asked = async {
                    let mut socket = connect(place, None).await?;
                    socket.write_all(&head("GET", "/livez", "connection: close\r\n")).await?;
                    let mut answer = Vec::new();
                    socket.read_to_end(&mut answer).await?;
                    Ok::<_, std::io::Error>(answer)
                };
                match timeout(crate::PATIENCE, asked).await {
                    Ok(Ok(answer)) if answer.starts_with(b"HTTP/1.1 200") => {
                        self.livez.lock().unwrap().push(begun.elapsed());
                    }
                    Ok(answer) => {
                        let answer = answer.map(|answer| String::from_utf8_lossy(&answer).into_owned());
                        self.harm("/livez", format!("{answer:?}"));
                    }
                    Err(_) => self.harm("/livez", "no answer"),
                }
                sleep(LIVEZ_EVERY.saturating_sub(begun.elapsed())).await;
            }
        });
    }
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// Connects, with a receive buffer of so many bytes if the kernel lets it be so small.
async fn connect(place: &Place, buffer: Option<u32>) -> std::io::Result<Box<dyn Socket>> {
    Ok(match place {
        Place::Tcp(address) => {
            let socket = TcpSocket::new_v4()?;
            buffer.map_or(Ok(()), |bytes| socket.set_recv_buffer_size(bytes))?;
            Box::new(socket.connect(*address).await?)
        }
        Place::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}

fn head(method: &str, target: &str, more: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n").into_bytes()
}

/// Where the crowd goes, and what becomes of it.
struct Crowd {
    address: std::net::SocketAddr,
    socket: PathBuf,
    seed: u64,
    /// Those who read slowly, once they do.
    slowed: AtomicU64,
    closed: AtomicU64,
    refused: AtomicU64,
}

impl Crowd {
    /// All come, half of them over TCP and half over the Unix socket, and each again when it has ended.
    fn come(self: &Arc<Crowd>, runtime: &Runtime, crowding: &Crowding<'_>) {
        let (slow, idle) = (crowding.slow, crowding.idle);
        for number in 0..slow + idle {
            let crowd = Arc::clone(self);
            let place = match number % 2 {
                0 => Place::Tcp(self.address),
                _ => Place::Unix(self.socket.clone()),
            };
            runtime.spawn(async move {
                loop {
                    // It ends when the server closes it; that is told apart from a refusal where that is answered.
                    let _ = match number {
                        number if number >= slow => crowd.idle(&place, number / 2 % 2 == 0).await,
                        number if number < slow / 2 => crowd.slow_reader(&place, MIDDLE_BYTES).await,
                        number if number < slow * 3 / 4 => crowd.slow_reader(&place, 0).await,
                        number => crowd.slow_writer(&place, number / 2 % 2 == 0).await,
                    };
                    crowd.closed.fetch_add(1, Ordering::SeqCst);
                    sleep(Duration::from_millis(100)).await;
                }
            });
        }
    }

    /// Reads a stream, some of it at full speed and the rest slowly.
    async fn slow_reader(&self, place: &Place, at_once: usize) -> std::io::Result<()> {
        let mut socket = connect(place, Some(4096)).await?;
        let target =
            format!("/v1/datasets/shapes/epochs/7/batches?schedule=cifar10-pba&seed={}", self.seed + 1);
        socket.write_all(&head("GET", &target, "")).await?;
        let (mut bytes, mut left) = (vec![0; 16 << 10], at_once);
        while left > 0 {
            let room = bytes.len().min(left);
            let count = socket.read(&mut bytes[..room]).await?;
            if left == at_once && !bytes.starts_with(b"HTTP/1.1 2") {
                self.refused.fetch_add(1, Ordering::SeqCst);
            }
            if count == 0 {
                return Ok(());
            }
            left -= count;
        }
        self.slowed.fetch_add(1, Ordering::SeqCst);
        while socket.read(&mut bytes[..1]).await? > 0 {
            sleep(SLOW).await;
        }
        Ok(())
    }

    /// Writes a request slowly: its head, or its body.
    async fn slow_writer(&self, place: &Place, is_body: bool) -> std::io::Result<()> {
        let mut socket = connect(place, None).await?;
        let mut rest = head("GET", "/v1/datasets/shapes/epochs/7/batches", "");
        if is_body {
            let more = "content-type: application/json\r\ncontent-length: 100000\r\n";
            socket.write_all(&head("PUT", "/v1/schedules/slow", more)).await?;
            rest = vec![b' '; 100_000];
        }
        for byte in rest {
            socket.write_all(&[byte]).await?;
            // An answer before the end says that it was too slow.
            if let Ok(answer) = timeout(SLOW, socket.read(&mut [0; 1])).await {
                return answer.map(drop);
            }
        }
        Ok(())
    }

    /// Sends nothing, or nothing after a request.
    async fn idle(&self, place: &Place, asks: bool) -> std::io::Result<()> {
        let mut socket = connect(place, None).await?;
        if asks {
            socket.write_all(&head("GET", "/livez", "")).await?;
        }
        let (mut bytes, mut is_first) = (vec![0; 4096], true);
        loop {
            let count = socket.read(&mut bytes).await?;
            if is_first && count > 0 && !bytes.starts_with(b"HTTP/1.1 2") {
                // 408 at the end of an idle connection is none.
                let is_late = bytes.starts_with(b"HTTP/1.1 408");
                self.refused.fetch_add(u64::from(!is_late), Ordering::SeqCst);
            }
            if count == 0 {
                return Ok(());
            }
            is_first = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_others_keep_is_a_ratio_of_medians() {
        let phase = |crowded, rates: &[f64]| Phase { crowded, rates: rates.to_vec(), ..Phase::default() };
        let phases = vec![
            phase(false, &[100.0, 90.0]),
            phase(true, &[50.0, 95.0]),
            phase(false, &[110.0]),
            phase(true, &[95.0, 96.0]),
        ];
        let mut crowded = Crowded { phases, ..Crowded::default() };
        assert_eq!(crowded.ratio(), 0.95);
        assert!(crowded.is_clean());
        crowded.phases[3].livez.push(LIVEZ_MAX);
        assert!(!crowded.is_clean());
        assert_eq!((median(&[]), median(&[1.0, 3.0])), (0.0, 2.0));
    }
}
