//! What `GET /readyz` says of a server that is ready.

use std::fmt;

/// The first line.
const READY: &str = "ok";
/// What the lines begin with that are no details.
const REPLICA: &str = "replica: ";
const WITHHELD: &str = "details are withheld: ";

/// The answer of `GET /readyz` when the server is ready, as lines of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Only that it is ready: details are for other clients, or at another address.
    Withheld {
        /// To whom they are shown.
        reason: String,
    },
    /// All of it.
    Shown {
        /// Why the server is a replica and not the writer, if it is one, which is no fault.
        replica: Option<String>,
        /// Each problem that does not stop the server from streaming.
        details: Vec<String>,
    },
}

impl Readiness {
    /// Reads an answer; none if it is no such answer.
    pub fn parse(text: &str) -> Option<Readiness> {
        let mut lines = text.lines().peekable();
        if lines.next() != Some(READY) {
            return None;
        }
        if let Some(reason) = lines.peek().and_then(|line| line.strip_prefix(WITHHELD)) {
            return Some(Readiness::Withheld { reason: reason.to_owned() });
        }
        let replica = lines.next_if(|line| line.starts_with(REPLICA));
        let replica = replica.map(|line| line[REPLICA.len()..].to_owned());
        Some(Readiness::Shown { replica, details: lines.map(str::to_owned).collect() })
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{READY}")?;
        match self {
            Readiness::Withheld { reason } => writeln!(f, "{WITHHELD}{reason}"),
            Readiness::Shown { replica, details } => {
                if let Some(reason) = replica {
                    writeln!(f, "{REPLICA}{reason}")?;
                }
                details.iter().try_for_each(|detail| writeln!(f, "{detail}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &Readiness) {
        assert_eq!(expected.to_string(), text);
        assert_eq!(Readiness::parse(text).as_ref(), Some(expected));
    }

    #[test]
    fn what_is_written_is_read() {
        check("ok\n", &Readiness::Shown { replica: None, details: Vec::new() });
        let details = vec!["a: b".to_owned(), "c".to_owned()];
        check("ok\na: b\nc\n", &Readiness::Shown { replica: None, details: details.clone() });
        let replica = Some("why".to_owned());
        check("ok\nreplica: why\na: b\nc\n", &Readiness::Shown { replica, details });
        check("ok\ndetails are withheld: why\n", &Readiness::Withheld { reason: "why".to_owned() });
    }

    #[test]
    fn what_is_no_such_answer_is_none() {
        for other in ["", "\n", "ok.\n", "OK\n", "<html>\nok\n", "replica: why\n"] {
            assert_eq!(Readiness::parse(other), None, "{other:?}");
        }
    }
}
