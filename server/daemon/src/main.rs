//! The `pba` binary.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match pba_server::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed or full, which is no reason for another error.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
