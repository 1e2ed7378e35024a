//! Environment variables that look like settings and are none.
//!
//! A misspelt flag is an error, and so is a misspelt key of `pba.toml`; a misspelt variable would
//! silently leave the default in force.

use std::collections::BTreeSet;

use clap::Command;
use pba_wire::epoch::nearest;

const PREFIX: &str = "PBA_";
/// Settings that are no flags of a command.
const WITHOUT_FLAG: [&str; 1] = ["PBA_LOG_FORMAT"];
/// What the tests of this repository read, besides names that start with `PBA_TEST_`.
const OF_TESTS: [&str; 4] = ["PBA_BIN", "PBA_GOLDEN", "PBA_PYTHON", "PBA_SHEET"];

/// Refuses a variable of this process that looks like a setting of `command`, and is none.
///
/// # Errors
/// At every such variable, with the setting that was meant.
pub fn check(command: &Command) -> anyhow::Result<()> {
    let variables = std::env::vars_os();
    let variables = variables
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    let faults = faults(&settings(command), variables);
    anyhow::ensure!(faults.is_empty(), "{}", faults.into_iter().collect::<Vec<_>>().join("\n"));
    Ok(())
}

/// The variables of a command and all below it.
fn settings(command: &Command) -> BTreeSet<String> {
    let flags = command.get_arguments().filter_map(|argument| argument.get_env());
    let mut settings: BTreeSet<String> = flags.map(|name| name.to_string_lossy().into_owned()).collect();
    settings.extend(command.get_subcommands().flat_map(self::settings));
    settings.extend(WITHOUT_FLAG.map(str::to_owned));
    settings
}

fn faults(
    settings: &BTreeSet<String>,
    variables: impl Iterator<Item = (String, String)>,
) -> BTreeSet<String> {
    let unknown = variables.filter(|(name, value)| {
        name.starts_with(PREFIX)
            && !settings.contains(name)
            && !name.starts_with("PBA_TEST_")
            && !OF_TESTS.contains(&name.as_str())
            && !is_of_kubernetes(name, value)
    });
    unknown.map(|(name, _)| fault(settings, &name)).collect()
}

fn fault(settings: &BTreeSet<String>, name: &str) -> String {
    // All begin alike, which makes none of them more alike.
    let bare = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    let known: Vec<String> = settings.iter().map(|name| bare(name)).collect();
    match nearest(&bare(name), known.iter().map(String::as_str)) {
        Some(meant) => format!("{name} is not a setting; did you mean {PREFIX}{meant}?"),
        None => {
            let known: Vec<&str> = settings.iter().map(String::as_str).collect();
            format!("{name} is not a setting; there are: {}", known.join(", "))
        }
    }
}

/// Whether Kubernetes sets this variable in every container beside a service `pba` or `pba-...`:
/// `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT`, `NAME_SERVICE_PORT_PORTNAME`, `NAME_PORT=tcp://...`, and
/// `NAME_PORT_8080_TCP` with what it consists of.
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
        let faults = faults(&settings, [(name.to_owned(), value.to_owned())].into_iter());
        faults.into_iter().collect::<Vec<_>>().join("\n")
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
            "PBA_PORT is not a setting; there are: PBA_SERVER, PBA_SOCKET, PBA_STREAMS_MAX"
        );
        assert!(check("PBA_", "").contains("PBA_ is not a setting"));
        assert!(check("PBA_FOO_SERVICE", "").contains("PBA_FOO_SERVICE is not a setting"));
        assert!(check("PBA_PORT_X_TCP", "").contains("PBA_PORT_X_TCP is not a setting"));
    }

    #[test]
    fn other_peoples_variables_are_left_alone() {
        for name in ["PBA_SERVER", "PATH", "PBAX", "PBA_TEST_TRAINER", "PBA_TEST_DATA", "PBA_BIN"] {
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
