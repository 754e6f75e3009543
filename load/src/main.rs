//! The `load` command: reads the options, runs the scenario, writes the result, sets the exit code. Holds no logic.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

use clap::Parser;
use load::options::Options;
use load::run;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
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
    }
    if let Err(error) = written {
        eprintln!("load: the result could not be written: {error}");
        return ExitCode::FAILURE;
    }
    if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
