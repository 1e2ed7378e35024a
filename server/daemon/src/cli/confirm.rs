//! Questions before what cannot be undone.

use std::io::{IsTerminal, Write, stderr, stdin};

use anyhow::{Context, bail};

use crate::cli::style::{self, Stream};

/// Asks in a terminal whether to delete something all the same; elsewhere it takes `--yes`, with which nothing is asked.
///
/// # Errors
/// When the answer is not yes, or there is no terminal to ask in.
pub(crate) fn confirm(question: &str, consequences: &str) -> anyhow::Result<()> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        bail!("{consequences}; nothing was deleted: pass --yes to delete it all the same");
    }
    let mark = style::painted(Stream::Error, style::WARNING, "warning:");
    write!(stderr(), "{mark} {consequences}\n{question} [y/N] ").context("cannot ask")?;
    let mut answer = String::new();
    stdin().read_line(&mut answer).context("cannot read the answer")?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing was deleted"),
    }
}
