//! What each part of the way from dataset to socket costs, and the floor beside it: bare copies
//! of as many bytes. One line of JSON for each part; `benches/parts.py` makes a table of them.
//!
//! Times are of the processor, of one thread, as the median of some short runs.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use pba_augment::{
    ImageShape, Level, OpCall, OpCounts, Permutation, Rgba, Scratch, Sign, apply, render_image,
};
use pba_benches::{EPOCH, MAGNITUDE, SEED, Work, pictures};
use pba_schedules::Op;
use pba_server::stream::encode::{Layout, batch_head};

const BATCH: usize = 128;
/// Runs of which the median is taken.
const RUNS: usize = 5;
/// More than a processor's caches hold: as much as CIFAR-10 has, and as `pba-rate` takes.
const DRAM_BYTES: usize = 150_000_000;

/// Measures every part at 32x32 and 224x224.
#[derive(Parser)]
struct Arguments {
    /// How long each part is measured, in seconds of wall time.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
}

struct Parts {
    run: Duration,
}

impl Parts {
    /// Nanoseconds of processor time of one call.
    fn time(&self, mut part: impl FnMut()) -> f64 {
        let calls = self.calls(&mut part);
        median(|| timed(calls, &mut part))
    }

    /// What `part` costs more than `base`; both take turns, so that a machine that others use as
    /// well is the same to both.
    fn difference(&self, mut part: impl FnMut(), mut base: impl FnMut()) -> f64 {
        let calls = self.calls(&mut part);
        median(|| timed(calls, &mut part) - timed(calls, &mut base))
    }

    /// So many calls that they take about as long as a run.
    fn calls(&self, part: &mut impl FnMut()) -> u32 {
        let mut calls = 1_u32;
        loop {
            let start = Instant::now();
            timed(calls, part);
            if start.elapsed() >= self.run / 20 {
                return calls.saturating_mul(20);
            }
            calls = calls.saturating_mul(2);
        }
    }
}

/// Nanoseconds of processor time of one of so many calls.
fn timed(calls: u32, part: &mut impl FnMut()) -> f64 {
    let start = cpu_time();
    (0..calls).for_each(|_| part());
    cpu_time().saturating_sub(start).as_nanos() as f64 / f64::from(calls)
}

fn median(run: impl FnMut() -> f64) -> f64 {
    let mut times: Vec<f64> = std::iter::repeat_with(run).take(RUNS).collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

fn say(part: &str, size: u32, nanoseconds: f64, floor: f64, why: &str) -> anyhow::Result<()> {
    let line = serde_json::json!({
        "part": part, "size": size, "ns": nanoseconds, "floor_ns": floor, "floor": why,
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let parts = Parts { run: Duration::from_secs_f64(arguments.seconds) / RUNS as u32 };
    for size in [32, 224] {
        of_size(&parts, ImageShape { height: size, width: size })?;
    }
    draws(&parts)
}

/// What copying so many bytes costs when they are in the cache, again and again.
fn copy_hot(parts: &Parts, bytes: usize) -> f64 {
    // Half a page apart within their pages: a processor that compares the low bits of addresses takes
    // a load for one of what was just stored where they are the same.
    const PAGE: usize = 4096;
    let distance = bytes.next_multiple_of(PAGE) + PAGE / 2;
    let mut both = vec![1_u8; distance + bytes];
    let (source, out) = both.split_at_mut(distance);
    parts.time(|| black_box(&mut *out).copy_from_slice(black_box(&source[..bytes])))
}

/// What copying an image costs when the images are all over the memory: `out` stays hot, as a
/// pooled buffer does.
fn copy_from_memory(parts: &Parts, bytes: usize) -> f64 {
    let count = DRAM_BYTES / bytes;
    let (source, mut out) = (vec![1_u8; count * bytes], vec![0_u8; bytes]);
    let order = Permutation::new(count as u64, SEED, 0);
    let mut position = 0;
    parts.time(|| {
        position = (position + 1) % count as u64;
        let start = order.at(position) as usize * bytes;
        black_box(&mut out[..]).copy_from_slice(&source[start..start + bytes]);
    })
}

fn of_size(parts: &Parts, shape: ImageShape) -> anyhow::Result<()> {
    let size = shape.height;
    let (rgb, rgba) = (shape.rgb_bytes(), 4 * shape.pixels());
    let (hot_rgb, hot_rgba) = (copy_hot(parts, rgb), copy_hot(parts, rgba));
    say("memcpy, RGB, in the cache", size, hot_rgb, hot_rgb, "itself")?;
    say("memcpy, RGBA, in the cache", size, hot_rgba, hot_rgba, "itself")?;
    let cold_rgb = copy_from_memory(parts, rgb);
    say("memcpy, RGB, from anywhere in memory", size, cold_rgb, cold_rgb, "itself")?;

    let level = Level::detect();
    let image = Rgba::from_rgb(shape, &pictures(1, shape))?;
    let (mut work, mut scratch) = (image.clone(), Scratch::with_level(level));
    let mut other = image.clone();
    let centre = (shape.width / 2, shape.height / 2);
    for op in Op::ALL {
        let call = OpCall { op, magnitude: MAGNITUDE, sign: Sign::Plus, centre };
        let nanoseconds = parts.difference(
            || {
                work.clone_from(black_box(&image));
                apply(&call, &mut work, &mut scratch);
                black_box(&mut work);
            },
            || {
                other.clone_from(black_box(&image));
                black_box(&mut other);
            },
        );
        say(op.name(), size, nanoseconds, hot_rgba, "copy of the working image, RGBA in the cache")?;
    }

    // Whole images from a few, which stay in the cache, so that the parts can be subtracted.
    let count = (256 * 1024 / rgb).max(1);
    let dataset = pictures(count, shape);
    let mut out = vec![0; rgb];
    for (part, work) in [
        ("unchanged images, through the same code", Work::Identity),
        ("crop, flip and cutout, with their draws", Work::Base),
        ("policy, crop, flip and cutout: all of (a) or (b)", Work::Pba),
    ] {
        let recipe = work.recipe(shape)?;
        let (mut counts, mut sample) = (OpCounts::default(), 0_u64);
        let nanoseconds = parts.time(|| {
            sample += 1;
            let start = sample as usize % count * rgb;
            let source = &dataset[start..start + rgb];
            render_image(&recipe, sample, source, black_box(&mut out), &mut scratch, &mut counts);
        });
        say(part, size, nanoseconds, hot_rgb, "copy of the image, RGB in the cache")?;
    }

    let layout = Layout::new(BATCH, rgb);
    let header = parts.time(|| {
        black_box(batch_head(BATCH, black_box(&layout), 0));
    });
    let per_image = header / BATCH as f64;
    say("encoding: header of the batch's message", size, per_image, 0.0, "nothing has to be moved")?;
    let labels = {
        let mut body = vec![0_u8; layout.len];
        parts.time(|| {
            for (row, label) in body[layout.label.clone()].as_chunks_mut::<8>().0.iter_mut().enumerate() {
                *label = black_box(row as u64).to_le_bytes();
            }
            black_box(&mut body);
        })
    };
    say("encoding: labels or indices", size, labels / BATCH as f64, 0.0, "8 bytes an image")?;

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let sender = TcpStream::connect(listener.local_addr()?)?;
    sockets(parts, "TCP", size, &layout, sender, listener.accept()?.0, hot_rgb)?;
    let (sender, receiver) = UnixStream::pair()?;
    sockets(parts, "Unix socket", size, &layout, sender, receiver, hot_rgb)
}

/// Processor time of both ends of a connection of this machine, for each image of a batch.
fn sockets<S: Read + Write + Send + 'static>(
    parts: &Parts,
    kind: &str,
    size: u32,
    layout: &Layout,
    mut sender: S,
    mut receiver: S,
    floor: f64,
) -> anyhow::Result<()> {
    let batch = vec![1_u8; layout.len];
    let (report, reported) = mpsc::channel();
    let reader = std::thread::spawn(move || -> anyhow::Result<()> {
        let mut buffer = vec![0_u8; 1 << 18];
        let (mut bytes, start) = (0, cpu_time());
        loop {
            let count = receiver.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            bytes += count;
        }
        report.send((bytes, cpu_time().saturating_sub(start)))?;
        Ok(())
    });
    let until = Instant::now() + parts.run * RUNS as u32;
    let (mut sent, start) = (0, cpu_time());
    while Instant::now() < until {
        sender.write_all(&batch)?;
        sent += BATCH;
    }
    let sending = cpu_time().saturating_sub(start);
    drop(sender);
    let (bytes, receiving) = reported.recv().context("the reader ended early")?;
    reader.join().expect("the reader does not panic")?;
    anyhow::ensure!(bytes == sent / BATCH * layout.len, "{bytes} bytes arrived");
    let why = "one copy between kernel and user, in the cache";
    say(&format!("{kind}: send"), size, sending.as_nanos() as f64 / sent as f64, floor, why)?;
    say(&format!("{kind}: receive"), size, receiving.as_nanos() as f64 / sent as f64, floor, why)
}

fn draws(parts: &Parts) -> anyhow::Result<()> {
    let recipe = Work::Pba.recipe(ImageShape { height: 32, width: 32 })?;
    let level = Level::detect();
    let mut sample = 0;
    let walk = parts.time(|| {
        sample += 1;
        black_box(recipe.draws(level, sample));
    });
    say("policy walk and all draws", 0, walk, 0.0, "arithmetic on registers; nothing has to be moved")?;
    let order = Permutation::new(50_000, SEED, EPOCH);
    let mut position = 0;
    let place = parts.time(|| {
        position = (position + 1) % order.len();
        black_box(order.at(position));
    });
    say("place in the epoch's order", 0, place, 0.0, "arithmetic on registers; nothing has to be moved")
}

/// Processor time of this thread so far, which other programs on the machine hardly change. Exact,
/// where the kernel's files count ticks of milliseconds.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
