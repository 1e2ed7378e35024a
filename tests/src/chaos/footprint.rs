//! What a server takes of the machine, as the kernel counts it.

use std::io;
use std::net::SocketAddr;

use crate::chaos::group::Group;
use crate::http::Download;
use crate::metrics::Metrics;

/// What a server takes at a moment. Sizes are in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Footprint {
    /// Resident memory.
    pub resident: u64,
    /// The same; of what it shares with other processes, its part.
    pub proportional: u64,
    /// Of resident memory, what no file holds: heap and stacks.
    pub anonymous: u64,
    /// Of resident memory, what it shares with clients.
    pub shared: u64,
    /// Memory of its control group that cannot be had back, the kernel's for it included; none without a group.
    pub unreclaimed: Option<u64>,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Shared memory that clients still have mapped although their streams have ended, as it says itself.
    pub kept: u64,
    /// Its caches, whose sizes are settings: idle buffers and decoded images, as it says itself.
    pub caches: u64,
}

impl Footprint {
    /// What the kernel counts.
    ///
    /// # Errors
    /// When the process is gone.
    fn seen(process: u32, group: Option<&Group>) -> io::Result<Footprint> {
        let text = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}"));
        let number = |text: &str, name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            rest.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        let (rollup, status) = (text("smaps_rollup")?, text("status")?);
        let bytes = |text: &str, name: &str| number(text, name) << 10;
        Ok(Footprint {
            resident: bytes(&rollup, "Rss"),
            proportional: bytes(&rollup, "Pss"),
            anonymous: bytes(&rollup, "Anonymous"),
            shared: bytes(&status, "RssShmem"),
            unreclaimed: group.and_then(Group::unreclaimed),
            descriptors: std::fs::read_dir(format!("/proc/{process}/fd"))?.count() as u64,
            threads: number(&status, "Threads"),
            kept: 0,
            caches: 0,
        })
    }

    /// The same, with what the server says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn of(address: SocketAddr, process: u32, group: Option<&Group>) -> io::Result<Footprint> {
        let metrics = Download::open(address, "GET", "/metrics", &[], b"")?.finish();
        let metrics = Metrics::parse(&metrics.text());
        let of = |series: &str| metrics.get(series) as u64;
        let caches = of("pba_memory_in_flight_bytes") + of("pba_decoded_cache_bytes");
        let seen = Footprint::seen(process, group)?;
        Ok(Footprint { kept: of("pba_shared_memory_kept_bytes"), caches, ..seen })
    }

    /// Of each, the larger.
    #[must_use]
    pub(crate) fn max(self, other: Footprint) -> Footprint {
        Footprint {
            resident: self.resident.max(other.resident),
            proportional: self.proportional.max(other.proportional),
            anonymous: self.anonymous.max(other.anonymous),
            shared: self.shared.max(other.shared),
            unreclaimed: self.unreclaimed.max(other.unreclaimed),
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
            kept: self.kept.max(other.kept),
            caches: self.caches.max(other.caches),
        }
    }
}
