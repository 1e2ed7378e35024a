//! Errors of requests, wherever they are detected. HTTP statuses are assigned in `http::problem`.

use std::io::ErrorKind;

use pba_types::{NAME_SHOWN, shortened};
use pba_wire::ParameterError;
use pba_wire::query::nearest;

/// Why a request was refused, or failed.
#[derive(Clone, Debug)]
pub(crate) struct Error {
    pub(crate) cause: Cause,
    /// The error, for people.
    pub(crate) detail: String,
    /// The offending parameter, field or name.
    pub(crate) parameter: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) allowed: Option<String>,
}

/// The causes of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    WrongParameter,
    WrongBody,
    NotFound,
    MethodNotAllowed,
    /// On its way, by a proxy or a broken network.
    Altered,
    /// For another host, or on behalf of another site's page.
    Forbidden,
    /// In plain HTTP, to a port that speaks TLS.
    PlainHttp,
    /// Without a token that is let in.
    Unauthenticated,
    /// With a token, or on a socket, that may do less.
    Role,
    WrongMediaType,
    AddressTooLong,
    HeadersTooLarge,
    Conflict,
    TooLarge,
    NotReadable,
    BrokenDataset,
    Damaged,
    Full,
    Memory,
    Busy,
    /// As many are kept as are allowed.
    TooMany,
    Connections,
    Timeout,
    NoTrainer,
    Draining,
    Importing,
    /// By the server that writes to the data directory.
    NotPacked,
    DiskFull,
    /// The data directory is on a file system that is mounted so.
    ReadOnly,
    Internal,
}

impl Error {
    /// An error without a parameter.
    pub(crate) fn new(cause: Cause, detail: impl ToString) -> Error {
        Error { cause, detail: detail.to_string(), parameter: None, value: None, allowed: None }
    }

    /// A parameter of the wrong type, out of range or unknown.
    pub(crate) fn parameter(
        parameter: &str,
        value: impl ToString,
        reason: impl ToString,
        allowed: impl ToString,
    ) -> Error {
        let (value, reason, allowed) = (value.to_string(), reason.to_string(), allowed.to_string());
        ParameterError::new(parameter, &value, &reason, &allowed).into()
    }

    /// An invalid body.
    pub(crate) fn body(detail: impl ToString) -> Error {
        Error::new(Cause::WrongBody, detail)
    }

    /// An unknown name, with the nearest known name.
    pub(crate) fn not_found<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
        let known: Vec<&str> = known.into_iter().collect();
        let nearest = nearest(name, known.iter().copied());
        let hint = nearest.map(|nearest| format!(", did you mean {nearest:?}?")).unwrap_or_default();
        let known = known.join(", ");
        let shown = shortened(name, NAME_SHOWN);
        let there = if known.is_empty() { "there is none".to_owned() } else { format!("there are: {known}") };
        let detail = format!("there is no {what} {shown:?}{hint}; {there}");
        Error {
            parameter: Some(what.to_owned()),
            value: Some(name.to_owned()),
            allowed: Some(known).filter(|known| !known.is_empty()),
            ..Error::new(Cause::NotFound, detail)
        }
    }

    /// The same, as the fault of a field.
    pub(crate) fn of_field(mut self, field: &str) -> Error {
        self.parameter = Some(field.to_owned());
        self
    }

    /// The same, with further allowed words, which are never suggested, if it is a name that is unknown.
    pub(crate) fn or_one_of(mut self, words: &[&str]) -> Error {
        if self.cause != Cause::NotFound {
            return self;
        }
        let words: String = words.iter().map(|word| format!(", {word}")).collect();
        self.detail += &words;
        self.allowed = self.allowed.map(|allowed| allowed + &words);
        self
    }

    /// A name that is taken by something else.
    pub(crate) fn conflict(detail: impl ToString) -> Error {
        Error::new(Cause::Conflict, detail)
    }

    /// No job can be added to the queue.
    pub(crate) fn busy(detail: impl ToString) -> Error {
        Error::new(Cause::Busy, detail)
    }

    /// No trainer can run here.
    pub(crate) fn no_trainer(detail: impl ToString) -> Error {
        Error::new(Cause::NoTrainer, detail)
    }

    /// An invalid field of a spec, in the words of the code that checked it.
    pub(crate) fn field(field: &str, message: &str) -> Error {
        Error { parameter: Some(field.to_owned()), ..Error::new(Cause::WrongParameter, message) }
    }

    /// A field of a spec that is out of range, of the wrong type or unknown.
    pub(crate) fn spec(error: &pba_search::SpecError) -> Error {
        Error {
            value: Some(error.value.clone()),
            allowed: Some(error.allowed.clone()),
            ..Error::field(&error.field, &error.to_string())
        }
    }

    /// A file or folder that could not be created, written or removed. Whether anything was changed, the caller knows.
    pub(crate) fn disk(what: &str, path: &std::path::Path, error: &std::io::Error) -> Error {
        let detail = format!("cannot {what} {}: {error}", path.display());
        let cause = match error.kind() {
            _ if pba_files::is_full(error) => Cause::DiskFull,
            ErrorKind::ReadOnlyFilesystem => Cause::ReadOnly,
            _ => return Error::internal(detail),
        };
        tracing::error!(error = detail, "request failed");
        Error::new(cause, detail)
    }

    /// The same, for a change that was not made.
    pub(crate) fn unchanged(self) -> Error {
        self.and("nothing was changed")
    }

    /// The same, with what else is to be said.
    pub(crate) fn and(self, what: &str) -> Error {
        Error { detail: format!("{}; {what}", self.detail), ..self }
    }

    /// An internal error. The cause is logged and included in the answer: it holds no secrets.
    pub(crate) fn internal(error: impl std::fmt::Display) -> Error {
        tracing::error!(error = %error, "request failed");
        Error::new(Cause::Internal, error)
    }
}

impl From<ParameterError> for Error {
    fn from(error: ParameterError) -> Error {
        let detail = error.to_string();
        Error {
            parameter: Some(error.parameter),
            value: Some(error.value),
            allowed: Some(error.allowed),
            ..Error::new(Cause::WrongParameter, detail)
        }
    }
}
