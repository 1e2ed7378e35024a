//! The `pba` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    pba_server::cli::run()
}
