//! What every request shares.

use std::sync::Arc;

use pba_files::Lock;

use crate::access::authenticator::Authenticator;
use crate::apart::Apart;
use crate::audit::Audit;
use crate::boundary::Boundary;
use crate::catalog::datasets::Catalog;
use crate::catalog::schedules::Registry;
use crate::data_lock::DataLock;
use crate::format;
use crate::health::Health;
use crate::jobs::Jobs;
use crate::rates::History;
use crate::shutdown::Stage;
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
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) audit: Audit,
    pub(crate) apart: Apart,
    pub(crate) health: Health,
    /// What the pages show of the last minutes.
    pub(crate) rates: History,
    /// How far it is on its way to its end.
    pub(crate) stage: Stage,
}

/// What decides whether a request gets to a handler, and notes what came of it.
pub(crate) struct Guard {
    pub(crate) boundary: Boundary,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) audit: Audit,
}

impl App {
    pub(crate) fn new(
        catalog: Catalog,
        registry: Registry,
        jobs: Jobs,
        engine: Engine,
        lock: Arc<DataLock>,
        Guard { boundary, authenticator, audit }: Guard,
    ) -> App {
        engine.metrics.ready.set(1);
        engine.metrics.writer.set(lock.is_writer().into());
        let (engine, apart, stage) = (Arc::new(engine), Apart::default(), Stage::default());
        let (health, rates) = (Health::default(), History::default());
        App {
            catalog,
            registry,
            jobs,
            engine,
            lock,
            boundary,
            authenticator,
            audit,
            apart,
            health,
            rates,
            stage,
        }
    }

    /// Becomes the writer of the data directory with its lock, which was free: what is in the directory is read as at a
    /// start.
    ///
    /// # Errors
    /// When it cannot be read, as when a newer server has written there. Then this server stays a replica.
    pub(crate) fn take_over(&self, lock: Lock) -> anyhow::Result<()> {
        format::check(self.lock.directory())?;
        self.lock.hold(lock);
        self.registry
            .take_over()
            .and_then(|()| self.jobs.take_over())
            .inspect_err(|_| self.lock.release())?;
        self.catalog.take_over();
        self.say_format();
        self.lock.admit();
        self.engine.metrics.writer.set(1);
        Ok(())
    }

    /// Says the format of its data directory there, if that does not say it yet.
    pub(crate) fn say_format(&self) {
        if let Err(error) = format::say(self.lock.directory()) {
            // It says so the next time.
            tracing::warn!(error = format!("{error:#}"), "the data directory does not say its format");
        }
    }

    /// Looks at the disk and for the trainer, for which it waits.
    pub(crate) fn look(&self) {
        let moved = match self.lock.is_writer() {
            true => self.lock.check_in_place().err().map(|error| error.detail),
            false => None,
        };
        self.health.look(self.lock.directory(), moved, self.jobs.trainer_fault());
    }

    /// Is not ready any more, and begins nothing but streams from now on.
    pub(crate) fn leave(&self) {
        self.stage.leave();
        self.engine.metrics.ready.set(0);
    }

    /// The data that requests are checked against.
    pub(crate) fn resolver(&self) -> Resolver<'_> {
        Resolver { catalog: &self.catalog, registry: &self.registry, engine: &self.engine }
    }
}
