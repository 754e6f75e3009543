//! The `load` command: reads the options, runs a scenario, a bench, faults or a floor, sets the exit code. Holds no logic.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

use clap::Parser;
use load::options::{Command, Line, Options};
use load::{bench, chaos, floor, run};

fn main() -> ExitCode {
    let line = Line::parse();
    let done = match (line.command, line.scenario) {
        (Some(Command::Bench(options)), _) => bench::run(&options).map_err(|error| error.to_string()),
        (Some(Command::Chaos(options)), _) => return breaks(*options),
        (Some(Command::Floor(options)), _) => floor::run(options).map_err(|error| error.to_string()),
        (None, Some(options)) => return scenario(Options { service_key: line.service_key, ..options }),
        (None, None) => return ExitCode::FAILURE,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn scenario(options: Options) -> ExitCode {
    let (json, history_file, quiet) = (options.json.clone(), options.history.clone(), options.quiet);
    let (report, history) = match run::run(options).await {
        Ok(done) => done,
        Err(error) => {
            eprintln!("load: {error}");
            return ExitCode::FAILURE;
        }
    };
    let written = (|| -> std::io::Result<()> {
        if let Some(path) = json {
            let mut out = BufWriter::new(File::create(path)?);
            serde_json::to_writer_pretty(&mut out, &report)?;
            out.flush()?;
        }
        if let Some(path) = history_file {
            history.write(BufWriter::new(File::create(path)?))?;
        }
        Ok(())
    })();
    if !quiet {
        println!("{}", report.text());
    } else if !report.passed {
        // Whoever wants no noise still wants to know why.
        eprintln!("load: {}", report.faults());
    }
    if let Err(error) = written {
        eprintln!("load: the result could not be written: {error}");
        return ExitCode::FAILURE;
    }
    if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says a line, to whoever still listens: a pipe that is closed must not keep what is broken from being mended.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[tokio::main]
async fn breaks(options: chaos::options::Options) -> ExitCode {
    let out = options.out.clone();
    let report = match chaos::run(options, say).await {
        Ok(report) => report,
        Err(error) => {
            eprintln!("load chaos: {error}");
            return ExitCode::from(2);
        }
    };
    // Before anything is said: it is what the run was for.
    let written = report.write(&out);
    if let Ok(folder) = &written {
        say(&format!("all of it is in {}", folder.display()));
    }
    // What is still broken is its last word.
    say(&report.text());
    if let Err(error) = written {
        eprintln!("load chaos: the report could not be written: {error}");
        return ExitCode::FAILURE;
    }
    if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
