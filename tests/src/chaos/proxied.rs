//! One server for many faults, which each reaches by a proxy of its own, over TCP or a Unix socket.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::chaos::daemon::{Daemon, Launch};
use crate::chaos::harm::{Harm, harness};
use crate::chaos::oracle::{Order, shapes};
use crate::chaos::wire::{Place, Wire};

pub(super) struct Proxied {
    server: Daemon,
    sockets: TempDir,
    dataset: pba_datasets::Dataset,
}

impl Proxied {
    pub(super) fn open() -> Result<Proxied, Harm> {
        let sockets = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
        let socket = sockets.path().join("server").display().to_string();
        let server = Launch::new(&["--socket", &socket]).start()?;
        let dataset = shapes(server.data.path());
        Ok(Proxied { server, sockets, dataset })
    }

    /// What an epoch of its built-in pictures must be.
    pub(super) fn order(&self, epoch: u32, query: &str) -> Result<Order, Harm> {
        Order::new(&self.dataset, epoch, query)
    }

    /// A proxy before it for the fault with a number, and the path of its socket if it has one.
    pub(super) fn wire(&self, is_unix: bool, index: u32) -> (Wire, Option<PathBuf>) {
        let at = is_unix.then(|| self.sockets.path().join(format!("proxy-{index}")));
        let server = match is_unix {
            true => Place::Unix(self.sockets.path().join("server")),
            false => Place::Tcp(self.server.address),
        };
        (Wire::start(at.clone(), server), at)
    }
}
