//! Pictures: plots that stand alone, charts inside the pages, and contact sheets.

mod axis;
mod chart;
pub(crate) mod classes;
pub(crate) mod comparison;
pub(crate) mod errors;
pub(crate) mod figures;
pub(crate) mod losses;
mod markup;
pub(crate) mod odds;
mod plot;
pub(crate) mod population;
pub(crate) mod rates;
pub(crate) mod schedule;
pub(crate) mod scores;
pub(crate) mod sheet;
