//! Where the settings of a server come from: a flag, a variable, the file or the default.

use std::collections::BTreeMap;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use serde::Serialize;

/// Which arguments of a command were given, by their ids, and how.
pub(crate) type Given = BTreeMap<String, ValueSource>;

/// Where a setting comes from.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "from", content = "name", rename_all = "lowercase")]
pub(crate) enum Source {
    /// A flag, with its name.
    Flag(String),
    /// A variable of the environment, with its name.
    Variable(String),
    /// The configuration file, with its path.
    File(String),
    /// Nothing was said.
    Default,
}

/// Which arguments of the command that was called were given.
pub(crate) fn of(matches: &ArgMatches) -> Given {
    let mut called = matches;
    while let Some((_, below)) = called.subcommand() {
        called = below;
    }
    let source = |id: &clap::Id| Some((id.to_string(), called.value_source(id.as_str())?));
    called.ids().filter_map(source).collect()
}

/// Where each of the `settings` comes from: `command` has their flags, and those `in_file` are said in the file.
pub(crate) fn sources<'a>(
    settings: &[&'a str],
    command: &Command,
    given: &Given,
    in_file: &[&str],
    file: Option<&Path>,
) -> BTreeMap<&'a str, Source> {
    let source = |setting: &'a str| {
        let argument = command.get_arguments().find(|argument| argument.get_id() == setting);
        let flag = || argument.and_then(Arg::get_long).map_or(setting.to_owned(), |long| format!("--{long}"));
        let variable = || {
            let name = argument.and_then(Arg::get_env).unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        let source = match (given.get(setting), file) {
            (Some(ValueSource::CommandLine), _) => Source::Flag(flag()),
            (Some(ValueSource::EnvVariable), _) => Source::Variable(variable()),
            (_, Some(file)) if in_file.contains(&setting) => Source::File(file.display().to_string()),
            _ => Source::Default,
        };
        (setting, source)
    };
    settings.iter().map(|setting| source(setting)).collect()
}
