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
    reference::read(text, name, epochs)
}

/// Whether a text is read as our JSON, and not as a lineage log.
pub fn is_document(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::svhn_pba;

    const LOG: &str = include_str!("../../library/source/rsvhn_16_wrn.txt");

    #[test]
    fn a_document_has_a_name_that_another_may_replace() {
        let text = format!("\n  {}", json::write(&svhn_pba()));
        assert_eq!(read(&text, None, None), Ok(svhn_pba()));
        assert_eq!(read(&text, Some("mine"), Some(7)), svhn_pba().renamed("mine"), "its epochs are its own");
        assert!(matches!(read(&text, Some("a/b"), None), Err(ScheduleError::Name(_))));
    }

    #[test]
    fn a_log_needs_its_epochs() {
        for (name, expected) in [(None, "unnamed"), (Some("mine"), "mine")] {
            let schedule = read(LOG, name, Some(160)).unwrap();
            assert_eq!((schedule.name(), schedule.digest()), (expected, svhn_pba().digest()));
        }
        let error = read(LOG, None, None).unwrap_err().to_string();
        assert!(error.contains("neither a pba-schedule document, nor a lineage log"), "{error}");
    }
}
