//! A policy's object in a document.

use serde::de::DeserializeOwned;

use crate::error::ScheduleError;

/// Reads the object of a policy of a family. It says the family, too, which `T` ignores.
///
/// # Errors
/// When it is not what `T` says.
pub(super) fn parse<T: DeserializeOwned>(family: &str, text: &str) -> Result<T, ScheduleError> {
    serde_json::from_str(text)
        .map_err(|error| ScheduleError::Fields { family: family.to_owned(), reason: error.to_string() })
}
