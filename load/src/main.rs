//! The `load` command: reads the options, runs a scenario, a bench, faults or a floor, sets the exit code. Holds no logic.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use load::board::Board;
use load::options::{Command, Line, Options};
use load::outputs::Outputs;
use load::plan::Plan;
use load::plan::file::PlanError;
use load::run::RunError;
use load::{bench, chaos, compare, doorstep, floor, run};

fn main() -> ExitCode {
    let line = Line::parse();
    let done = match (line.command, line.scenario) {
        (Some(Command::Bench(options)), _) => bench::run(&options).map_err(|error| error.to_string()),
        (Some(Command::Chaos(options)), _) => return breaks(*options),
        (Some(Command::Floor(options)), _) => floor::run(options).map_err(|error| error.to_string()),
        (Some(Command::Run(scenario)), _) => return plays((*scenario).read()),
        (Some(Command::Compare(options)), _) => return compares(&options),
        (None, Some(mut options)) => {
            options.common.service_key = line.service_key;
            return plays(Plan::built_in(&options).remembered().map(|plan| (options, plan)));
        }
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

/// Plays a scenario, says and writes what came of it.
#[tokio::main]
async fn bots(options: Options, plan: Plan) -> ExitCode {
    if let Err(error) = doorstep::check(&options.common).await {
        eprintln!("load: {error}");
        return ExitCode::from(2);
    }
    let board = Board::of(options.clone(), plan);
    let (report, history) = match run::watched(Arc::new(board)).await {
        Ok(done) => done,
        Err(error) => {
            eprintln!("load: {error}");
            if matches!(error, RunError::Ended) {
                // Whoever judges is not waited for.
                std::process::exit(1);
            }
            return ExitCode::FAILURE;
        }
    };
    let (written, failed) = Outputs::of(&options.common).write(&report, &history);
    if !options.common.quiet {
        say(&report.text());
        written.iter().for_each(|path| say(&format!("written: {path}")));
    } else if !report.passed {
        // Whoever wants no noise still wants to know why.
        eprintln!("load: {}", report.faults());
    }
    failed.iter().for_each(|error| eprintln!("load: {error}"));
    if report.passed && failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays a scenario, if it can be.
fn plays(scenario: Result<(Options, Plan), PlanError>) -> ExitCode {
    match scenario {
        Ok((options, plan)) => bots(options, plan),
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::from(2)
        }
    }
}

fn compares(options: &compare::Options) -> ExitCode {
    match compare::run(options) {
        Ok((text, is_within)) => {
            say(text.trim_end());
            if is_within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("load compare: {error}");
            ExitCode::from(2)
        }
    }
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
        eprintln!("load chaos: the report could not be written into {}: {error}", out.display());
        return ExitCode::FAILURE;
    }
    if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
