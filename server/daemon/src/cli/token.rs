//! `pba token`: the tokens that a server lets in.

use anyhow::Context;
use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use pba_types::check_name;
use pba_wire::Role;
use serde::Serialize;

use crate::access::secret::{Hash, generate};
use crate::cli::output;

/// Arguments of `pba token`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pba token new --role researcher --name alice")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token: print it once, and below it the table for pba.toml or the file of tokens
    ///
    /// The token is kept nowhere, and the table holds only its hash. Who has the token may do what its role says.
    #[command(after_help = "\
Examples:
  pba token new --role reader --name training
  pba token new --role admin --name me --json")]
    New {
        /// What its holder may do: reader (streams and reads), researcher (also searches, evaluations, comparisons and
        /// schedules) or admin (everything)
        #[arg(long, hide_possible_values = true, value_parser = roles())]
        role: Role,
        /// Name of the token, by which logs and errors know it: of a person or a program
        #[arg(long)]
        name: String,
        /// Print both as JSON
        #[arg(long, help_heading = "Global options")]
        json: bool,
    },
}

/// Reads a role; who names another one is told which there are.
fn roles() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.map(Role::name)).try_map(|name| name.parse::<Role>())
}

/// A new token, and what a server has to know of it.
#[derive(Serialize)]
struct New {
    token: String,
    name: String,
    role: Role,
    sha256: String,
}

/// Does what the subcommand says.
pub(crate) fn run(Args { command: Command::New { role, name, json } }: Args) -> anyhow::Result<()> {
    check_name(&name).map_err(|error| anyhow::anyhow!("--name: {error}"))?;
    let token = generate().context("the system has no random numbers")?;
    let new = New { sha256: Hash::of(token.as_bytes()).to_string(), token, name, role };
    if json {
        output::json(&new);
        return Ok(());
    }
    let New { token, name, role, sha256 } = new;
    output::line(format_args!(
        "{token}\n\n\
         # Give the token to its holder; it is not shown again. This table lets it in, in pba.toml or the tokens_file:\n\
         [[tokens]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{sha256}\""
    ));
    Ok(())
}
