//! What is other about the tokens than before, for the log. Hashes are compared and never shown.

use std::collections::BTreeMap;
use std::path::Path;

use subtle::ConstantTimeEq;

use crate::access::tokens::{Token, Tokens};

/// Tokens of each kind of change in a line of the log, so that none is longer than the log takes.
const TOKENS_PER_LINE: usize = 32;

/// What is other about the tokens than before, by their names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    added: Vec<String>,
    revoked: Vec<String>,
    changed: Vec<String>,
}

impl Changes {
    pub(crate) fn between(before: &Tokens, now: &Tokens) -> Changes {
        let [before, now] = [before, now].map(|tokens| {
            tokens.iter().map(|token| (token.name.as_str(), token)).collect::<BTreeMap<_, _>>()
        });
        let mut changes = Changes::default();
        for (name, token) in &now {
            match before.get(name) {
                None => changes.added.push(format!("{name} ({})", token.role)),
                Some(before) => changes.changed.extend(difference(before, token)),
            }
        }
        let revoked = before.keys().filter(|name| !now.contains_key(*name));
        changes.revoked = revoked.map(|name| (*name).to_owned()).collect();
        changes
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    /// Tells the log, in as many lines as it takes, that the file was read again, and how many tokens there are now.
    pub(crate) fn tell(&self, file: &Path, tokens: usize) {
        let parts = self.parts();
        let count = parts.len();
        for (number, [added, revoked, changed]) in (1..).zip(parts) {
            let part = (count > 1).then(|| format!("{number} of {count}"));
            let (file, part) = (file.display(), part.as_deref());
            tracing::info!(%file, tokens, part, added, revoked, changed, "the tokens were read again");
        }
    }

    /// What stands in each line of the log: what is added, revoked and changed.
    fn parts(&self) -> Vec<[String; 3]> {
        let kinds = [&self.added, &self.revoked, &self.changed];
        let parts = kinds.map(|kind| kind.len().div_ceil(TOKENS_PER_LINE)).into_iter().fold(1, usize::max);
        let part = |number| {
            kinds.map(|kind| kind.chunks(TOKENS_PER_LINE).nth(number).unwrap_or_default().join("; "))
        };
        (0..parts).map(part).collect()
    }
}

/// What is other about a token of the same name.
fn difference(before: &Token, now: &Token) -> Option<String> {
    let mut differences = Vec::new();
    if before.role != now.role {
        differences.push(format!("{} -> {}", before.role, now.role));
    }
    if !bool::from(before.hash.ct_eq(&now.hash)) {
        differences.push("new token".to_owned());
    }
    if before.streams_max != now.streams_max {
        let [before, now] = [before, now]
            .map(|token| token.streams_max.map_or_else(|| "none".to_owned(), |streams| streams.to_string()));
        differences.push(format!("streams_max {before} -> {now}"));
    }
    (!differences.is_empty()).then(|| format!("{}: {}", now.name, differences.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::secret::Hash;

    /// Tokens by name, role, secret and what else stands in their tables.
    fn tokens(tables: &[(&str, &str, &str, &str)]) -> Tokens {
        let table = |(name, role, secret, more): &(&str, &str, &str, &str)| {
            let hash = Hash::of(secret.as_bytes());
            format!("[[tokens]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{hash}\"\n{more}\n")
        };
        Tokens::parse(&tables.iter().map(table).collect::<String>()).unwrap()
    }

    #[test]
    fn what_is_other_about_a_token_is_said_by_its_name() {
        let before = tokens(&[
            ("ad", "admin", "1", ""),
            ("rd", "reader", "2", ""),
            ("rs", "researcher", "3", "streams_max = 2"),
            ("gone", "reader", "4", ""),
            ("same", "reader", "5", "streams_max = 3"),
        ]);
        let now = tokens(&[
            ("same", "reader", "5", "streams_max = 3"),
            ("rs", "researcher", "3", "streams_max = 8"),
            ("rd", "admin", "7", ""),
            ("ad", "admin", "6", "streams_max = 1"),
            ("come", "researcher", "4", ""),
        ]);
        let changes = Changes::between(&before, &now);
        assert_eq!(changes.added, ["come (researcher)"]);
        assert_eq!(changes.revoked, ["gone"]);
        assert_eq!(
            changes.changed,
            [
                "ad: new token, streams_max none -> 1",
                "rd: reader -> admin, new token",
                "rs: streams_max 2 -> 8"
            ]
        );
        assert!(!changes.is_empty() && Changes::between(&now, &now).is_empty());
        // A token that is known by another name now.
        let changes =
            Changes::between(&tokens(&[("a", "reader", "1", "")]), &tokens(&[("b", "reader", "1", "")]));
        assert_eq!(changes.parts(), [["b (reader)", "a", ""].map(str::to_owned)]);
    }

    #[test]
    fn no_line_is_too_long_and_no_change_is_left_out() {
        let name = |number: usize| format!("{number:0>64}");
        let changes = Changes {
            added: (0..3).map(name).collect(),
            revoked: Vec::new(),
            changed: (0..2 * TOKENS_PER_LINE + 1).map(name).collect(),
        };
        let parts = changes.parts();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[0][0], changes.added.join("; "));
        let changed: Vec<&str> = parts.iter().flat_map(|[.., changed]| changed.split("; ")).collect();
        assert_eq!(changed, changes.changed);
        // Nothing but the fact that it was read again.
        assert_eq!(Changes::default().parts(), [[""; 3].map(str::to_owned)]);
    }
}
