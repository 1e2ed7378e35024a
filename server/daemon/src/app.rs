//! What every request shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pba_files::Lock;

use crate::apart::Apart;
use crate::boundary::Boundary;
use crate::catalog::datasets::Catalog;
use crate::catalog::schedules::Registry;
use crate::data_lock::DataLock;
use crate::error::{Cause, Error};
use crate::jobs::Jobs;
use crate::stream::engine::Engine;
use crate::stream::resolve::Resolver;

/// The running server's state.
pub(crate) struct App {
    pub(crate) catalog: Catalog,
    pub(crate) registry: Registry,
    pub(crate) jobs: Jobs,
    pub(crate) engine: Arc<Engine>,
    /// The right to write to the data directory.
    pub(crate) lock: Arc<DataLock>,
    pub(crate) boundary: Boundary,
    pub(crate) apart: Apart,
    draining: AtomicBool,
}

impl App {
    pub(crate) fn new(
        catalog: Catalog,
        registry: Registry,
        jobs: Jobs,
        engine: Engine,
        lock: Arc<DataLock>,
        boundary: Boundary,
    ) -> App {
        engine.metrics.ready.set(1);
        engine.metrics.writer.set(lock.is_writer().into());
        let (engine, apart, draining) = (Arc::new(engine), Apart::default(), AtomicBool::new(false));
        App { catalog, registry, jobs, engine, lock, boundary, apart, draining }
    }

    /// Becomes the writer of the data directory with its lock, which was free: what is in the directory is read as at a
    /// start.
    ///
    /// # Errors
    /// When it cannot be read. Then this server stays a replica.
    pub(crate) fn take_over(&self, lock: Lock) -> anyhow::Result<()> {
        self.lock.hold(lock);
        self.registry
            .take_over()
            .and_then(|()| self.jobs.take_over())
            .inspect_err(|_| self.lock.release())?;
        self.catalog.take_over();
        self.lock.admit();
        self.engine.metrics.writer.set(1);
        Ok(())
    }

    /// Refuses new streams from now on.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.engine.metrics.ready.set(0);
    }

    /// Refuses new work once the server was told to stop.
    ///
    /// # Errors
    /// When it was told to stop.
    pub(crate) fn check_draining(&self) -> Result<(), Error> {
        if self.draining.load(Ordering::Relaxed) {
            let detail = "the server is shutting down and takes no new streams; use another replica";
            return Err(Error::new(Cause::Draining, detail));
        }
        Ok(())
    }

    /// The data that requests are checked against.
    pub(crate) fn resolver(&self) -> Resolver<'_> {
        Resolver { catalog: &self.catalog, registry: &self.registry, engine: &self.engine }
    }
}
