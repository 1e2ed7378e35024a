//! Who waits for whom in one stream, and how long.
//!
//! A client waits from when it asks for a batch that is not made yet until it gets it. The server waits while a batch is
//! made that the client has not asked for, or while it can make none because the client takes none. In all other time
//! the one makes what the other does not need yet, and neither waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pba_wire::streams::Waits as Who;

/// The time in which what is recent loses two thirds of its weight: after ten seconds, one seventh is left.
const RECENT: Duration = Duration::from_secs(5);

/// Who waits for a smaller part of the time is not said to wait.
const RATIO_MIN: f64 = 0.05;

/// The waits of a stream.
pub(crate) struct Waits {
    begun: Instant,
    /// Until when everything is counted below.
    counted: Instant,
    /// Whether the client has asked for a batch that was not made.
    is_asking: bool,
    /// Of the batches that are in the making or made, in order: whether each is made.
    made: VecDeque<bool>,
    /// Batches before these.
    taken: u64,
    /// Time that the client has waited, and the server.
    total: Waited,
    /// The same of the recent time, as shares of it, and images per second, each before its correction.
    recent: Recent,
}

/// How long each side has waited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Waited {
    pub(crate) client: Duration,
    pub(crate) server: Duration,
}

/// What has been going on for the last ten seconds or so, where later counts more.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Recent {
    /// Share of the time in which the client waited, 0 to 1.
    pub(crate) client: f64,
    /// The same of the server.
    pub(crate) server: f64,
    pub(crate) images_per_second: f64,
}

impl Recent {
    /// Who waits for the other most of the time.
    pub(crate) fn who(&self) -> Who {
        match () {
            () if self.client.max(self.server) < RATIO_MIN => Who::Neither,
            () if self.client > self.server => Who::Client,
            () => Who::Server,
        }
    }
}

impl Waits {
    /// Those of a stream that begins.
    pub(crate) fn new(now: Instant) -> Waits {
        Waits {
            begun: now,
            counted: now,
            is_asking: false,
            made: VecDeque::new(),
            taken: 0,
            total: Waited::default(),
            recent: Recent::default(),
        }
    }

    /// One more batch is to be made.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.count(now);
        self.made.push_back(false);
    }

    /// A batch is made, by its number; in whatever order.
    pub(crate) fn made(&mut self, number: u64, now: Instant) {
        self.count(now);
        let place = number.checked_sub(self.taken).and_then(|place| self.made.get_mut(place as usize));
        // What was given up may be made all the same.
        if let Some(made) = place {
            *made = true;
        }
    }

    /// The client asks for the next batch, which is not made.
    pub(crate) fn ask(&mut self, now: Instant) {
        self.count(now);
        self.is_asking = true;
    }

    /// The client takes the next batch, of so many images.
    pub(crate) fn take(&mut self, images: usize, now: Instant) {
        self.count(now);
        self.is_asking = false;
        self.made.pop_front();
        self.taken += 1;
        self.recent.images_per_second += images as f64 / RECENT.as_secs_f64();
    }

    /// Whether the client has asked for a batch that it does not have yet.
    pub(crate) fn is_asking(&self) -> bool {
        self.is_asking
    }

    /// Batches that were taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// How long each side has waited in all, up to what was counted last.
    pub(crate) fn total(&self) -> Waited {
        self.total
    }

    /// What has been going on, up to what was counted last.
    pub(crate) fn recent(&self) -> Recent {
        // At the beginning there is less time than it would take to forget what was before: nothing.
        let weight = 1.0 - (-(self.counted - self.begun).as_secs_f64() / RECENT.as_secs_f64()).exp();
        let corrected = |value: f64| if weight > 0.0 { value / weight } else { 0.0 };
        Recent {
            client: corrected(self.recent.client).min(1.0),
            server: corrected(self.recent.server).min(1.0),
            images_per_second: corrected(self.recent.images_per_second),
        }
    }

    /// Counts the time up to now.
    pub(crate) fn count(&mut self, now: Instant) {
        let time = now.saturating_duration_since(self.counted);
        let who = self.who();
        self.counted += time;
        let kept = (-time.as_secs_f64() / RECENT.as_secs_f64()).exp();
        for value in [&mut self.recent.client, &mut self.recent.server, &mut self.recent.images_per_second] {
            *value *= kept;
        }
        match who {
            Who::Client => {
                self.total.client += time;
                self.recent.client += 1.0 - kept;
            }
            Who::Server => {
                self.total.server += time;
                self.recent.server += 1.0 - kept;
            }
            Who::Neither => {}
        }
    }

    fn who(&self) -> Who {
        match (self.is_asking, self.made.front()) {
            (true, _) => Who::Client,
            // Where none is in the making, there is no room for one until the client has taken what it was given.
            (false, Some(true) | None) => Who::Server,
            (false, Some(false)) => Who::Neither,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream and its time.
    struct Story {
        waits: Waits,
        now: Instant,
    }

    impl Story {
        fn new() -> Story {
            let now = Instant::now();
            Story { waits: Waits::new(now), now }
        }

        /// After so many milliseconds.
        fn after(&mut self, milliseconds: u64) -> (&mut Waits, Instant) {
            self.now += Duration::from_millis(milliseconds);
            (&mut self.waits, self.now)
        }

        #[track_caller]
        fn check(&mut self, client: u64, server: u64) {
            self.waits.count(self.now);
            let expected =
                Waited { client: Duration::from_millis(client), server: Duration::from_millis(server) };
            assert_eq!(self.waits.total(), expected);
        }
    }

    #[test]
    fn each_side_waits_for_what_the_other_does_not_give() {
        let mut story = Story::new();
        let then = |story: &mut Story, milliseconds, act: &dyn Fn(&mut Waits, Instant)| {
            let (waits, now) = story.after(milliseconds);
            act(waits, now);
        };
        then(&mut story, 0, &|waits, now| waits.begin(now));
        then(&mut story, 0, &|waits, now| waits.begin(now));
        // The client asks 3 ms after that, and the batch comes 4 ms later.
        then(&mut story, 3, &|waits, now| waits.ask(now));
        then(&mut story, 1, &|waits, now| waits.made(1, now));
        then(&mut story, 3, &|waits, now| waits.made(0, now));
        then(&mut story, 0, &|waits, now| waits.take(10, now));
        story.check(4, 0);
        // The second one is made: it lies there until it is asked for.
        then(&mut story, 5, &|waits, now| waits.take(10, now));
        story.check(4, 5);
        // There is no room for a third before the client has taken what it has.
        then(&mut story, 7, &|waits, now| waits.begin(now));
        story.check(4, 12);
        // The client looks at its batch, and the next one is in the making: neither waits.
        then(&mut story, 11, &|waits, now| waits.made(2, now));
        story.check(4, 12);
        // What is not over counts, too.
        then(&mut story, 13, &|_, _| ());
        story.check(4, 25);
        assert_eq!(story.waits.taken(), 2);
    }

    #[test]
    fn what_is_recent_forgets() {
        let mut story = Story::new();
        let (waits, now) = story.after(0);
        waits.begin(now);
        waits.ask(now);
        // The client waits for a minute, and takes 100 images each second of the next one.
        let (waits, now) = story.after(60_000);
        waits.count(now);
        assert_eq!((waits.recent().client, waits.recent().who()), (1.0, Who::Client));
        waits.made(0, now);
        waits.take(100, now);
        for number in 1..=60 {
            let (waits, now) = story.after(0);
            waits.begin(now);
            waits.made(number, now);
            let (waits, now) = story.after(1000);
            waits.take(100, now);
        }
        let recent = story.waits.recent();
        assert!(recent.client < 0.001 && recent.server > 0.999, "{recent:?}");
        assert_eq!(recent.who(), Who::Server);
        assert!((90.0..115.0).contains(&recent.images_per_second), "{recent:?}");
    }

    #[test]
    fn a_short_stream_has_a_rate() {
        let mut story = Story::new();
        let (waits, now) = story.after(0);
        waits.begin(now);
        waits.made(0, now);
        let (waits, now) = story.after(100);
        waits.take(50, now);
        let rate = story.waits.recent().images_per_second;
        assert!((490.0..510.0).contains(&rate), "{rate}");
        assert_eq!(Waits::new(Instant::now()).recent(), Recent::default());
    }
}
