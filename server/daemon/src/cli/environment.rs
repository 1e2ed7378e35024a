//! Settings in environment variables.
//!
//! A misspelt flag or key of `pba.toml` is an error anyway; without this module a misspelt variable would
//! be silently ignored.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command};
use pba_wire::query::nearest;

const PREFIX: &str = "PBA_";
/// Settings without a flag.
const WITHOUT_FLAG: [&str; 1] = ["PBA_LOG_FORMAT"];
/// Variables of the Python client alone: the `pba` that it starts, and where that packs datasets.
const OF_PYTHON_CLIENT: [&str; 2] = ["PBA_BIN", "PBA_CACHE"];
/// Variables of this repository's tests, besides those that start with `PBA_TEST_`.
const OF_TESTS: [&str; 2] = ["PBA_GOLDEN", "PBA_PYTHON"];

/// The command, made to treat empty variables as unset: scripts that pass on an optional value, as in
/// `PBA_TOKEN="$TOKEN"`, set them.
pub(crate) fn without_empty(command: Command) -> Command {
    let is_empty =
        |argument: &Arg| argument.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    command
        .mut_args(|argument| match is_empty(&argument) {
            true => argument.env(Resettable::<clap::builder::OsStr>::Reset),
            false => argument,
        })
        .mut_subcommands(without_empty)
}

/// The variable that names the servers that are meant where no argument does, with commas between them; the Python client
/// reads it, too.
pub(crate) const SERVERS: &str = "PBA_SERVER";

/// The value of a variable that is set and not empty.
pub(crate) fn value(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Makes an error about a value from a variable name the variable; clap names the flag, which was not
/// given. The command has to be built.
pub(crate) fn blame(command: &Command, mut error: clap::Error) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let (flag, wrong) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue));
    let is_given = |argument: &Arg| {
        let flag = argument.get_long().map(|long| format!("--{long}")).unwrap_or_default();
        let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
        words.any(|word| word == flag || word.starts_with(&format!("{flag}=")))
    };
    let source = flag.zip(wrong).and_then(|(flag, wrong)| {
        let argument = arguments(command).into_iter().find(|argument| argument.to_string() == flag)?;
        let name = argument.get_env()?;
        let is_source = std::env::var_os(name)? == *wrong && !is_given(argument);
        is_source.then(|| name.to_string_lossy().into_owned())
    });
    if let Some(name) = source {
        error.insert(ContextKind::InvalidArg, ContextValue::String(name));
    }
    error
}

/// Refuses a variable of this process that looks like a setting of `command` but is not.
///
/// # Errors
/// At every such variable, with the setting that was probably meant.
pub(crate) fn check(command: &Command) -> anyhow::Result<()> {
    let faults: Vec<String> = faults(command).into_iter().map(|fault| fault.to_string()).collect();
    anyhow::ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// Warns of a variable that is nearly a setting. Commands that talk to a server do not refuse any: the
/// shell may hold variables that belong to other programs.
pub(crate) fn warn(command: &Command) {
    for fault in faults(command).iter().filter(|fault| fault.meant.is_some()) {
        tracing::warn!("{fault}");
    }
}

/// The arguments of a command and all below it.
fn arguments(command: &Command) -> Vec<&Arg> {
    command.get_arguments().chain(command.get_subcommands().flat_map(arguments)).collect()
}

/// The variables of a command and all below it.
fn settings(command: &Command) -> BTreeSet<String> {
    let names = arguments(command).into_iter().filter_map(Arg::get_env);
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.chain(WITHOUT_FLAG.map(str::to_owned)).collect()
}

/// A variable that looks like a setting but is not.
struct Fault {
    name: String,
    meant: Option<String>,
    settings: BTreeSet<String>,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is not a setting; ", self.name)?;
        match &self.meant {
            Some(meant) => write!(f, "did you mean {meant}?"),
            None => {
                let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
                write!(f, "the settings are: {}", settings.join(", "))
            }
        }
    }
}

fn faults(command: &Command) -> Vec<Fault> {
    let variables = std::env::vars_os();
    let variables = variables
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    faults_among(&settings(command), variables)
}

fn faults_among(
    settings: &BTreeSet<String>,
    variables: impl Iterator<Item = (String, String)>,
) -> Vec<Fault> {
    let unknown = variables.filter(|(name, value)| {
        name.starts_with(PREFIX)
            && !settings.contains(name)
            && !name.starts_with("PBA_TEST_")
            && !OF_PYTHON_CLIENT.contains(&name.as_str())
            && !OF_TESTS.contains(&name.as_str())
            && !is_of_kubernetes(name, value)
    });
    let names: BTreeSet<String> = unknown.map(|(name, _)| name).collect();
    // All begin alike, which makes none of them more alike.
    let bare = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    let known: Vec<String> = settings.iter().map(|name| bare(name)).collect();
    let fault = |name: String| {
        let meant = nearest(&bare(&name), known.iter().map(String::as_str));
        Fault { meant: meant.map(|meant| format!("{PREFIX}{meant}")), name, settings: settings.clone() }
    };
    names.into_iter().map(fault).collect()
}

/// Whether Kubernetes sets this variable in every container beside a service `pba` or `pba-...`:
/// `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT`, `NAME_SERVICE_PORT_PORTNAME`, `NAME_PORT=tcp://...`, and
/// `NAME_PORT_8080_TCP` with its parts.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_url = || ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let of_a_port = |rest: &str| {
        let mut parts = rest.split('_');
        let number = parts.next().unwrap_or_default();
        let protocol = parts.next().unwrap_or_default();
        let part = parts.next();
        !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && ["TCP", "UDP", "SCTP"].contains(&protocol)
            && part.is_none_or(|part| ["PROTO", "PORT", "ADDR"].contains(&part))
            && parts.next().is_none()
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.ends_with("_PORT") && is_url()
        || name.rsplit_once("_PORT_").is_some_and(|(_, rest)| of_a_port(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: &str) -> String {
        let settings = ["PBA_STREAMS_MAX", "PBA_SERVER", "PBA_SOCKET"].map(str::to_owned).into();
        let faults = faults_among(&settings, [(name.to_owned(), value.to_owned())].into_iter());
        faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn misspelt_settings_are_named() {
        assert_eq!(
            check("PBA_STREAM_MAX", "4"),
            "PBA_STREAM_MAX is not a setting; did you mean PBA_STREAMS_MAX?"
        );
        assert_eq!(check("PBA_SEVRER", "x"), "PBA_SEVRER is not a setting; did you mean PBA_SERVER?");
        assert_eq!(
            check("PBA_PORT", "8080"),
            "PBA_PORT is not a setting; the settings are: PBA_SERVER, PBA_SOCKET, PBA_STREAMS_MAX"
        );
        assert!(check("PBA_", "").contains("PBA_ is not a setting"));
        assert!(check("PBA_FOO_SERVICE", "").contains("PBA_FOO_SERVICE is not a setting"));
        assert!(check("PBA_PORT_X_TCP", "").contains("PBA_PORT_X_TCP is not a setting"));
    }

    #[test]
    fn other_peoples_variables_are_left_alone() {
        for name in
            ["PBA_SERVER", "PATH", "PBAX", "PBA_TEST_TRAINER", "PBA_TEST_DATA", "PBA_BIN", "PBA_CACHE"]
        {
            assert_eq!(check(name, "x"), "", "{name}");
        }
        // What `kubectl exec POD -- env` shows beside services `pba` and `pba-server`.
        for service in ["PBA", "PBA_SERVER"] {
            for (name, value) in [
                ("SERVICE_HOST", "10.0.0.1"),
                ("SERVICE_PORT", "8080"),
                ("SERVICE_PORT_HTTP", "8080"),
                ("PORT", "tcp://10.0.0.1:8080"),
                ("PORT_8080_TCP", "tcp://10.0.0.1:8080"),
                ("PORT_8080_TCP_PROTO", "tcp"),
                ("PORT_8080_TCP_PORT", "8080"),
                ("PORT_8080_TCP_ADDR", "10.0.0.1"),
                ("PORT_9000_UDP", "udp://10.0.0.1:9000"),
            ] {
                assert_eq!(check(&format!("{service}_{name}"), value), "", "{service} {name}");
            }
        }
    }
}
