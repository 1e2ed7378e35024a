//! Pictures: contact sheets as PNG; schedules and populations as SVG.

pub(crate) mod comparison;
mod plot;
pub(crate) mod population;
pub(crate) mod schedule;
pub(crate) mod sheet;
