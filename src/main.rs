//! The `hearth` program: hands the command line to `cli` and ends with its exit code. Never does anything itself.

use std::process::ExitCode;

/// An idle session is a dozen small objects of long life between many of short life: this allocator keeps sizes apart,
/// and what a session leaves behind is used by the next.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(hearth::cli::run(
        std::env::args_os(),
        hearth::config::environment(),
        &mut std::io::stdout(),
        &mut std::io::stderr(),
    ))
}
