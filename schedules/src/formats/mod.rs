//! File formats of schedules, one module each.
//!
//! Read are [`json`], which is ours, and the logs of population based training: a lineage ([`reference`]), or all exploits
//! of a population ([`population`]). Written are [`json`], and for other programs [`ray_tune`], [`csv`] and
//! [`torchvision`].

pub mod csv;
mod exploits;
pub mod json;
pub mod population;
pub mod ray_tune;
pub mod reference;
pub mod torchvision;

use crate::error::ScheduleError;
use crate::formats::exploits::{exploits, without_mark};
use crate::schedule::Schedule;

/// Reads a schedule in whichever format it is: our JSON, a lineage log, or the log of a population.
///
/// `name` replaces the name in the file, and is needed where the format has none. `epochs` is
/// the length of the search, needed where the format does not say it (logs). `trial` is the trial whose
/// lineage is wanted of the log of a population; with it a log is read as one.
///
/// # Errors
/// When the text is in neither format, or holds a wrong schedule.
pub fn read(
    text: &str,
    name: Option<&str>,
    epochs: Option<u32>,
    trial: Option<&str>,
) -> Result<Schedule, ScheduleError> {
    if is_document(text) {
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
    match trial {
        Some(trial) => population::read(text, trial, name, epochs),
        None => reference::read(text, name, epochs),
    }
}

/// Whether a text is read as our JSON, and not as a log.
pub fn is_document(text: &str) -> bool {
    without_mark(text).trim_start().starts_with('{')
}

/// The tag of the trial whose lineage [`read`] takes of a log: that of `trial`, or of the last line. Of a document it is
/// none.
///
/// # Errors
/// When the text is no log, or does not hold the trial.
pub fn lineage_of(text: &str, trial: Option<&str>) -> Result<Option<String>, ScheduleError> {
    if is_document(text) {
        return Ok(None);
    }
    let mut exploits = exploits(text)?;
    match trial {
        Some(trial) => population::tag(&exploits, trial).map(|tag| Some(tag.to_owned())),
        None => Ok(exploits.pop().map(|last| last.target)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::svhn_pba;

    const LOG: &str = include_str!("../../library/source/rsvhn_16_wrn.txt");

    #[test]
    fn a_document_has_a_name_that_another_may_replace() {
        let text = format!("\n  {}", json::write(&svhn_pba()));
        assert_eq!(read(&text, None, None, None), Ok(svhn_pba()));
        assert_eq!(
            read(&text, Some("mine"), Some(7), None),
            svhn_pba().renamed("mine"),
            "its epochs are its own"
        );
        assert!(matches!(read(&text, Some("a/b"), None, None), Err(ScheduleError::Name(_))));
    }

    #[test]
    fn a_log_needs_its_epochs() {
        for (name, expected) in [(None, "unnamed"), (Some("mine"), "mine")] {
            let schedule = read(LOG, name, Some(160), None).unwrap();
            assert_eq!((schedule.name(), schedule.digest()), (expected, svhn_pba().digest()));
        }
        let error = read(LOG, None, None, None).unwrap_err().to_string();
        assert!(error.contains("neither a pba-schedule document, nor a lineage log"), "{error}");
    }

    #[test]
    fn a_trial_makes_a_log_that_of_a_population() {
        let trial = LOG.lines().last().unwrap().split('\'').nth(1).unwrap();
        let schedule = read(LOG, None, Some(160), Some(trial)).unwrap();
        assert_eq!(schedule.digest(), svhn_pba().digest());
        assert!(matches!(read(LOG, None, Some(160), Some("x")), Err(ScheduleError::UnknownTrial { .. })));
    }

    #[test]
    fn whose_lineage_is_read_is_told() {
        let document = json::write(&svhn_pba());
        for (text, trial, tag) in [
            (LOG, None, Some("15")),
            (LOG, Some("15"), Some("15")),
            (LOG, Some("a1b2c_00008"), Some("8")),
            (&document, None, None),
        ] {
            assert_eq!(lineage_of(text, trial), Ok(tag.map(str::to_owned)));
        }
        assert!(matches!(lineage_of(LOG, Some("x")), Err(ScheduleError::UnknownTrial { .. })));
    }

    #[test]
    fn a_byte_order_mark_does_not_matter() {
        let document = format!("\u{feff} {}", json::write(&svhn_pba()));
        assert!(is_document(&document));
        assert_eq!(read(&document, None, None, None), Ok(svhn_pba()));
        let log = format!("\u{feff}{LOG}");
        assert_eq!(read(&log, None, Some(160), None).unwrap().digest(), svhn_pba().digest());
    }
}
