//! Names of schedules, datasets and jobs.

use crate::digest::Digest;
use crate::limits::NAME_BYTES_MAX;

/// A name that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{:?} is not a name; allowed are {}", .0, names_allowed())]
pub struct NameError(pub String);

/// What [`check_name`] allows, in words.
pub fn names_allowed() -> String {
    format!(
        "1..={NAME_BYTES_MAX} letters, digits, '-', '_' and '.', starting with a letter or digit, and not \
         \"none\", \"identity\" or 64 hexadecimal digits"
    )
}

/// Checks that a name can stand in a path, a URL and a metric.
///
/// # Errors
/// When it is empty, too long, holds another character than ASCII letters, digits, `-`, `_` and
/// `.`, starts with punctuation, or would be read as `none`, `identity` or a digest.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let usable = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !["none", "identity"].contains(&name)
        && name.parse::<Digest>().is_err();
    if usable { Ok(()) } else { Err(NameError(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_something_else_are_refused() {
        for name in ["", "none", "identity", "a/b", "..", "ä", "-x", &"a".repeat(65), &"0".repeat(64)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["a", "0", "cifar10-pba", "a.b_c", &"x".repeat(64)] {
            assert_eq!(check_name(name), Ok(()));
        }
    }

    #[test]
    fn who_is_refused_is_told_what_is_allowed() {
        assert_eq!(
            check_name("a/b").unwrap_err().to_string(),
            "\"a/b\" is not a name; allowed are 1..=64 letters, digits, '-', '_' and '.', starting with a letter or \
             digit, and not \"none\", \"identity\" or 64 hexadecimal digits"
        );
    }
}
