//! `pba man`: manual pages, one for each command.

use std::path::PathBuf;

use anyhow::Context;
use clap::Command;
use clap_mangen::Man;

use crate::cli::{file, output};

/// Arguments of `pba man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  pba man | man -l -                                # the page of pba itself
  pba man --out ~/.local/share/man/man1             # then: man pba-search-start")]
pub(crate) struct Args {
    /// Folder to write a page for each command to; made if it is not there [default: the page of `pba` itself, to
    /// standard output]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Writes the pages.
pub(crate) fn run(args: &Args, mut pba: Command) -> anyhow::Result<()> {
    pba.build();
    let Some(folder) = &args.out else {
        output::bytes(&rendered(&pba, "pba")?);
        return Ok(());
    };
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut pages = Vec::new();
    collect(&pba, "pba", &mut pages)?;
    for (name, page) in &pages {
        file::write(&folder.join(format!("{name}.1")), page)?;
    }
    output::line(format_args!("{} pages written to {}", pages.len(), folder.display()));
    Ok(())
}

/// The pages of a command and of all below it, each with its name.
fn collect(command: &Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    pages.push((name.to_owned(), rendered(command, name)?));
    let below = command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help");
    for below in below {
        collect(below, &format!("{name}-{}", below.get_name()), pages)?;
    }
    Ok(())
}

fn rendered(command: &Command, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    let command = command.clone().display_name(name.to_owned()).disable_help_subcommand(true);
    Man::new(command).render(&mut page).with_context(|| format!("cannot write the page of {name}"))?;
    Ok(page)
}
