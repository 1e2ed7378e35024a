//! How a command says that it failed: a line on standard error, or with `--json` one JSON object.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use pba_client::ClientError;
use pba_wire::jobs::JobState;
use pba_wire::{ParameterError, Problem};
use serde::Serialize;
use tracing::Level;

use crate::cli::options::is_json;
use crate::cli::style::{self, Stream};
use crate::log::{Format, last_line, last_words, say};

/// Kind of a failure that the command line itself is.
const USAGE: &str = "usage";
/// Kind of the end by Ctrl-C.
const INTERRUPTED: &str = "interrupted";

/// A job that was watched has ended otherwise than well.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct JobEnded {
    pub(crate) state: JobState,
    pub(crate) message: String,
}

/// The JSON object. Every key is always there.
#[derive(Serialize)]
struct Document<'a> {
    error: &'a Failure,
}

/// What went wrong.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Failure {
    message: String,
    /// For programs: the type of the server's problem, or what kept this program from asking.
    kind: Option<String>,
    /// HTTP status of the server's answer.
    status: Option<u16>,
    /// The offending parameter, field or flag, its value, and what is allowed.
    parameter: Option<String>,
    value: Option<String>,
    allowed: Option<String>,
    /// Why, from the nearest cause to the first.
    causes: Vec<String>,
    /// What was probably meant.
    hint: Option<String>,
}

impl Failure {
    fn of(error: &anyhow::Error) -> Failure {
        let causes = error.chain().skip(1).map(ToString::to_string).collect();
        let mut failure = Failure { message: error.to_string(), causes, ..Failure::default() };
        for cause in error.chain() {
            if let Some(error) = cause.downcast_ref::<ClientError>() {
                failure.fill(error);
            } else if let Some(ended) = cause.downcast_ref::<JobEnded>() {
                failure.kind = Some(format!("job-{}", ended.state));
            } else if let Some(wrong) = cause.downcast_ref::<ParameterError>() {
                failure.kind = Some(USAGE.to_owned());
                failure.parameter = Some(wrong.parameter.clone());
                failure.value = Some(wrong.value.clone());
                failure.allowed = Some(wrong.allowed.clone());
            }
        }
        failure
    }

    fn fill(&mut self, error: &ClientError) {
        let kind = match error {
            ClientError::Refused(problem) | ClientError::Importing { problem, .. } => {
                return self.fill_of_problem(problem);
            }
            ClientError::NoServer | ClientError::Url { .. } | ClientError::Token => USAGE,
            ClientError::Name { .. } => "name",
            ClientError::Authorities { .. } => "authorities",
            ClientError::Foreign { status, .. } => {
                self.status = Some(*status);
                "foreign"
            }
            ClientError::Unreachable { .. } => "unreachable",
            ClientError::Unanswered { .. } => "unanswered",
            ClientError::Cut { .. } => "cut",
            ClientError::Changed { .. } => "changed",
            ClientError::Stream(_) => "stream",
            _ => "client",
        };
        self.kind = Some(kind.to_owned());
    }

    fn fill_of_problem(&mut self, problem: &Problem) {
        let Problem { kind, status, parameter, value, allowed, .. } = problem.clone();
        (self.kind, self.status) = (Some(kind), Some(status));
        (self.parameter, self.value, self.allowed) = (parameter, value, allowed);
    }

    /// An error in the command line.
    fn of_usage(error: &clap::Error) -> Failure {
        let context = |kind| match error.get(kind)? {
            ContextValue::None => None,
            ContextValue::Strings(texts) => Some(texts.join(", ")),
            other => Some(other.to_string()).filter(|text| !text.is_empty()),
        };
        let rendered = error.render().to_string();
        // The usage and the tips follow an empty line. What is left is one line, as that of any other failure.
        let message = rendered.split("\n\n").next().unwrap_or_default();
        let message = &message.split_whitespace().collect::<Vec<_>>().join(" ");
        let message = match error.kind() {
            // It renders the help.
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                "a subcommand or an argument is missing; --help lists them"
            }
            _ => message.strip_prefix("error: ").unwrap_or(message),
        };
        let meant =
            [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
        let meant = meant.into_iter().find_map(context);
        let flags = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(flag)) => Some(flag_of(flag).to_owned()),
            Some(ContextValue::Strings(flags)) => {
                Some(flags.iter().map(|flag| flag_of(flag)).collect::<Vec<_>>().join(", "))
            }
            _ => None,
        };
        let parameter = flags.or_else(|| context(ContextKind::InvalidSubcommand));
        Failure {
            message: message.to_owned(),
            kind: Some(USAGE.to_owned()),
            parameter,
            value: context(ContextKind::InvalidValue),
            allowed: context(ContextKind::ValidValue).or_else(|| context(ContextKind::ValidSubcommand)),
            hint: meant.map(|meant| format!("did you mean {meant}?")),
            ..Failure::default()
        }
    }

    fn print(&self) {
        last_line(serde_json::to_string(&Document { error: self }).expect("an error is JSON"));
    }
}

/// Says why the command failed.
pub(crate) fn report(error: &anyhow::Error) {
    if is_json() {
        return Failure::of(error).print();
    }
    match style::is_colored(Stream::Error) && Format::chosen() == Format::Text {
        true => {
            let mark = style::painted(Stream::Error, style::ERROR, "error:");
            last_line(format_args!("{mark} {error:#}"));
        }
        false => last_words(format_args!("{error:#}")),
    }
}

/// A flag without the name of its value, as in `--role <ROLE>`.
fn flag_of(argument: &str) -> &str {
    let flag = argument.split([' ', '=', '[']).next().unwrap_or_default();
    if flag.starts_with('-') { flag } else { argument }
}

/// What is wrong with the command line, in one line.
pub(crate) fn of_usage(error: &clap::Error) -> String {
    let Failure { message, hint, .. } = Failure::of_usage(error);
    hint.map_or(message.clone(), |hint| format!("{message}; {hint}"))
}

/// Says what is wrong with the command line, as JSON.
pub(crate) fn report_usage(error: &clap::Error) {
    Failure::of_usage(error).print();
}

/// Says what goes on although Ctrl-C ended the command.
pub(crate) fn report_interrupt(message: &str) {
    match is_json() {
        true => {
            Failure { message: message.to_owned(), kind: Some(INTERRUPTED.to_owned()), ..Failure::default() }
                .print()
        }
        false => say(Level::INFO, message),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn the_causes_of_a_failure_stand_apart() {
        let error = std::fs::read("/nowhere").context("cannot read /nowhere").unwrap_err();
        let failure = Failure::of(&error);
        assert_eq!(failure.message, "cannot read /nowhere");
        assert_eq!(failure.causes, ["No such file or directory (os error 2)"]);
        assert_eq!(failure.kind, None);
    }

    #[test]
    fn what_the_server_says_of_a_parameter_is_kept() {
        let problem = Problem {
            kind: "urn:pba:problem:wrong-parameter".to_owned(),
            title: "wrong parameter".to_owned(),
            status: 400,
            detail: "seed=-1: negative; allowed: 0 or more".to_owned(),
            parameter: Some("seed".to_owned()),
            value: Some("-1".to_owned()),
            allowed: Some("0 or more".to_owned()),
        };
        let refused = ClientError::Refused(Box::new(problem.clone()));
        let failure = Failure::of(&anyhow::Error::new(refused).context("search mine"));
        assert_eq!((failure.kind, failure.status), (Some(problem.kind), Some(400)));
        assert_eq!((failure.parameter, failure.value), (problem.parameter, problem.value));
        assert_eq!(failure.causes, ["seed=-1: negative; allowed: 0 or more (400)"]);
    }

    #[test]
    fn what_kept_from_asking_has_a_kind() {
        let (url, reason) = ("http://127.0.0.1:8080".to_owned(), "connection refused".to_owned());
        let failure = Failure::of(&ClientError::Unreachable { url, reason }.into());
        assert_eq!(failure.kind.as_deref(), Some("unreachable"));
        assert_eq!(failure.message, "cannot reach http://127.0.0.1:8080: connection refused");
    }
}
