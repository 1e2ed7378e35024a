//! The `pba` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    match pba_server::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
