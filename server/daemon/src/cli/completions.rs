//! `pba completions`: scripts with which shells complete `pba`'s commands and flags.

use clap::Command;
use clap_complete::Shell;

use crate::cli::output;

/// Arguments of `pba completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  pba completions bash > ~/.local/share/bash-completion/completions/pba
  pba completions zsh > ~/.zfunc/_pba       # with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  pba completions fish > ~/.config/fish/completions/pba.fish")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for a shell.
pub(crate) fn run(args: &Args, mut pba: Command) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut pba, "pba", &mut script);
    output::bytes(&script);
}
