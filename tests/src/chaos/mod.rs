//! Breaks real servers, trainers and clients on purpose, and judges what comes of it.
//!
//! A [`Kind`] is a row of the table: faults of one kind, in a file of that name. Each fault is a function of
//! seed and index ([`Fault::dice`]), so that it can be repeated alone. What must come is known beforehand
//! (`oracle.rs`): which samples, by the plan, and their pixels, by the pure library; of a search, what an
//! undisturbed one learned. A fault that was noticed and refused, cut or answered with an error is survived;
//! everything else is [`Harm`], in a column of its own. `make chaos` injects all of them
//! (`src/bin/pba-chaos/`), `make test` a few of each (`tests/tests/chaos.rs`).

mod bystander;
mod clock;
mod connection;
mod crowd;
mod daemon;
pub(crate) mod dice;
mod disk;
mod exchanges;
mod exhaustion;
mod fault;
mod flips;
mod footprint;
mod group;
mod harm;
pub(crate) mod hostile;
mod kill;
mod leavers;
mod ledger;
mod mapped;
mod oracle;
mod pictures;
mod power;
mod proxied;
mod readers;
mod replicas;
mod run;
mod searching;
mod soak;
mod stopped;
mod strace;
mod table;
mod wire;

pub use crowd::{Crowded, Crowding, Phase, crowd};
pub use fault::{Fault, Inject, Kind};
pub use footprint::Footprint;
pub use harm::{Column, Harm, Outcome, Survived};
pub use run::{Plan, run};
pub use soak::{GROWTH_BYTES_MAX, Soaked, Soaking, soak};
pub use table::{Row, Table};

/// Every kind, in the order of the table.
pub fn kinds() -> Vec<Kind> {
    vec![
        kill::kind(),
        connection::kind(),
        flips::kind(),
        exchanges::kind(),
        mapped::kind(),
        disk::kind(),
        power::kind(),
        hostile::kind(),
        exhaustion::kind(),
        leavers::kind(),
        replicas::kind(),
        stopped::kind(),
        clock::kind(),
    ]
}
