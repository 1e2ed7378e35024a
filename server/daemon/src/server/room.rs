//! How many connections there is room for: each takes a descriptor of the process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;
use crate::stream::shared_memory::KEPT_MAX;

/// Connections of all that one client may have: three quarters, so that others find some, and a proxy, behind which
/// all clients are one, has most of them.
pub(super) fn client_share(connections: usize) -> usize {
    (3 * connections).div_ceil(4)
}

/// Descriptors that are kept for files, datasets, trainers and refusals.
const DESCRIPTORS_KEPT: u64 = 128;
/// Descriptors of the shared memory that clients keep after its streams, where there is a socket.
pub(super) const DESCRIPTORS_OF_KEPT: u64 = KEPT_MAX as u64;
/// Descriptors that a dataset takes: one of each split.
pub(super) const DESCRIPTORS_PER_DATASET: u64 = 3;
/// Descriptors that the shared memory of a stream takes at most.
const DESCRIPTORS_PER_STREAM: u64 = 3;

/// How many connections there can be: as many as are allowed, if the system lets the process have a descriptor
/// for each. `others` are taken by more than connections and streams.
pub(super) fn connections_max(
    Limits { connections_max: allowed, streams_max, .. }: &Limits,
    others: u64,
) -> usize {
    let (allowed, kept) = (*allowed as u64, others + descriptors_kept(*streams_max as u64));
    let limits = getrlimit(Resource::Nofile);
    let wanted = allowed + kept;
    let most = limits.maximum.unwrap_or(u64::MAX);
    let mut granted = limits.current.unwrap_or(u64::MAX);
    if granted < wanted {
        let raised = Rlimit { current: Some(wanted.min(most)), maximum: limits.maximum };
        // A system that refuses leaves it as it was.
        if setrlimit(Resource::Nofile, raised).is_ok() {
            granted = wanted.min(most);
        }
    }
    let room = room(granted, allowed, kept);
    if room < allowed {
        tracing::warn!(
            descriptors = granted,
            "the system allows too few open files for connections_max = {allowed} beside streams_max = {streams_max}; {room} \
             connections are accepted"
        );
    }
    room as usize
}

fn descriptors_kept(streams: u64) -> u64 {
    DESCRIPTORS_KEPT + DESCRIPTORS_PER_STREAM * streams
}

/// Of the connections that are allowed, those for which there are descriptors. Of few descriptors, half are kept.
fn room(granted: u64, allowed: u64, kept: u64) -> u64 {
    granted.saturating_sub(kept).max(granted / 2).clamp(1, allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_kept_for_every_stream() {
        let kept = descriptors_kept;
        assert_eq!(room(u64::MAX, 4096, kept(256)), 4096);
        assert_eq!(room(4096 + 128 + 3 * 256, 4096, kept(256)), 4096);
        assert_eq!(room(4096 + 128 + 3 * 256, 4096, kept(257)), 4093);
        assert_eq!([room(1024, 4096, kept(256)), room(1, 4096, kept(256))], [512, 1]);
        assert_eq!([1, 2, 3, 4, 8, 4096].map(client_share), [1, 2, 3, 3, 6, 3072]);
    }
}
