//! The `hearth` program: hands the command line to `cli` and ends with its exit code. Never does anything itself.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(hearth::cli::run(
        std::env::args_os(),
        hearth::config::environment(),
        &mut std::io::stdout(),
        &mut std::io::stderr(),
    ))
}
