//! File formats of schedules, one module each.

pub mod json;
pub mod reference;

use crate::error::ScheduleError;
use crate::schedule::Schedule;

/// Reads a schedule in whichever format it is: our JSON, or a lineage log.
///
/// `name` replaces the name in the file, and is needed where the format has none. `epochs` is
/// the length of the search, needed where the format does not say it (lineage logs).
///
/// # Errors
/// When the text is in neither format, or holds a wrong schedule.
pub fn read(text: &str, name: Option<&str>, epochs: Option<u32>) -> Result<Schedule, ScheduleError> {
    if text.trim_start().starts_with('{') {
        let schedule = json::read(text)?;
        return match name {
            Some(name) => schedule.renamed(name),
            None => Ok(schedule),
        };
    }
    let name = name.unwrap_or("unnamed");
    let epochs = epochs.ok_or_else(|| ScheduleError::Log {
        line: 1,
        reason: "neither a pba-schedule document, nor a lineage log with the search's epochs given beside it"
            .to_owned(),
    })?;
    reference::read(text, name, epochs)
}
