//! The parameters of a route as flags.

use std::marker::PhantomData;

use clap::{Arg, ArgMatches, Command};
use pba_wire::query::About;
use pba_wire::{ParameterError, Query};

/// A flag for each parameter of a query. The values are checked by [`Flags::query`], and by the server.
#[derive(Debug)]
pub(crate) struct Flags<Q> {
    pairs: Vec<(String, String)>,
    query: PhantomData<Q>,
}

impl<Q: Query> Flags<Q> {
    /// The query.
    ///
    /// # Errors
    /// When a value is of the wrong type or out of range.
    pub(crate) fn query(&self) -> Result<Q, ParameterError> {
        Q::from_pairs(&self.pairs)
    }
}

impl<Q: Query> clap::Args for Flags<Q> {
    fn augment_args(command: Command) -> Command {
        command.args(Q::about().into_iter().map(|about| {
            let default = about.default.map(|default| format!(" [default: {default}]"));
            let arg = Arg::new(about.name)
                .long(about.name.replace('_', "-"))
                .value_name(about.name.to_uppercase())
                .allow_negative_numbers(true)
                .help_heading("What is streamed")
                .help(format!("{}{}", about.help, default.unwrap_or_default()));
            let mut letters = about.name.chars();
            match (letters.next(), letters.next()) {
                (Some(letter), None) => arg.short(letter),
                _ => arg,
            }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<Q: Query> clap::FromArgMatches for Flags<Q> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Flags<Q>, clap::Error> {
        let given =
            |about: About| Some((about.name.to_owned(), matches.get_one::<String>(about.name)?.clone()));
        Ok(Flags { pairs: Q::about().into_iter().filter_map(given).collect(), query: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Flags::from_arg_matches(matches)?;
        Ok(())
    }
}
