//! Where the server reads what others wrote, as functions that need no server: for tests that give them anything.
//! Errors are told as they are told to people.

use clap::Parser;
use pba_wire::{Apply, Query};

use crate::config::{self, Config, ServeArgs};
use crate::http::apply;

/// The answer to `POST /v1/apply` with a query and a body: a PNG.
///
/// # Errors
/// When the query is wrong, or the body no image that is read.
pub fn apply(query: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    let query = Apply::from_query(query).map_err(|error| error.to_string())?;
    apply::answer(query, body).map_err(|error| error.detail)
}

#[derive(Parser)]
#[command(no_binary_name = true)]
struct Flags {
    #[command(flatten)]
    serve: ServeArgs,
}

/// The configuration that `pba serve` runs with, as JSON, given the text of its file and its flags. Variables of
/// the environment count as they do there; no file is read.
///
/// # Errors
/// When either is wrong.
pub fn configuration(file: &str, flags: &[&str]) -> Result<String, String> {
    let resolve = || -> anyhow::Result<String> {
        let Flags { serve } = Flags::try_parse_from(flags)?;
        Ok(serde_json::to_string(&Config::combine(&serve, config::parse(file)?)?)?)
    };
    resolve().map_err(|error| format!("{error:#}"))
}
