//! The `pba` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    match pba_server::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            pba_server::last_words(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
