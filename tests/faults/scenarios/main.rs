//! The scenarios of CONSISTENCY's plan of faults, F1 to F19: three real nodes, a real Redis, bots at work, a fault by process
//! id or by proxy, an auditor that looks at everything from outside, and all checkers over what was seen.
//! `../README.md` says how to run them, what each file is, and what they found.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must fail, and says where"
)]

mod chaos;
mod churn;
mod crowd;
mod cut;
mod descriptors;
mod disk;
mod drains;
mod expiry;
mod failing_disk;
mod failovers;
#[path = "../fates.rs"]
#[allow(dead_code, reason = "`../logins.rs` uses all of it")]
mod fates;
#[path = "../../it/harness/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "the other test binaries use all of it")]
mod harness;
mod line;
mod logins;
mod nodes;
mod probe;
mod rough_links;
mod run;
mod scenario;
mod settings;
mod slots;
mod stage;
mod store;
mod store_faults;
mod storm;
mod table;
mod vital;

use std::process::ExitCode;

use load::faults::report::Report;
use tokio::task::JoinSet;

use line::Line;
use scenario::Scenario;

fn main() -> ExitCode {
    if let Some(ended) = crowd::is_asked_for(std::env::args().skip(1)) {
        return ended;
    }
    let line = match Line::read(std::env::args().skip(1)) {
        Ok(line) => line,
        Err(fault) => {
            eprintln!("scenarios: {fault}");
            return ExitCode::from(2);
        }
    };
    if line.lists {
        scenario::ALL.iter().for_each(|scenario| println!("{}: {}", scenario.name, scenario.title));
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let passed = runtime.block_on(async {
        tokio::select! {
            passed = all(&line) => passed,
            () = told_to_end() => false,
        }
    });
    // What a scenario has started ends with its task, and tasks end with the runtime.
    drop(runtime);
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Ctrl-C and SIGTERM.
async fn told_to_end() {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
    eprintln!("scenarios: told to end; everything that was started ends, too");
}

/// Plays the scenarios one after the other: each has the machine for itself. Whether all passed.
///
/// A short run is for machines of which nothing is known, and other things may be at work there. A scenario that was too slow in
/// it, or in which the fault left no trace, is played once more; one that broke a promise is not.
async fn all(line: &Line) -> bool {
    let (mut failed, mut second_tries) = (Vec::new(), Vec::new());
    for repeat in 0..line.repeats {
        for scenario in &line.scenarios {
            // Another seed each time, and each can be had again.
            let seed = line.seed.wrapping_add(u64::from(repeat));
            let mut report = one_told(scenario, seed, line).await;
            if line.is_short && !report.passed() && report.promises_held() {
                second_tries.push(report.head.again);
                report = one_told(scenario, seed, line).await;
            }
            if !report.passed() {
                failed.push(report.head.again);
            }
        }
    }
    for again in &second_tries {
        eprintln!("too slow or without a trace at its first try: tests/run faults {again}");
    }
    for again in &failed {
        eprintln!("failed; again with: tests/run faults {again}");
    }
    failed.is_empty()
}

/// Plays one and tells of it.
async fn one_told(scenario: &'static Scenario, seed: u64, line: &Line) -> Report {
    println!("\n{} · {} · seed {seed} · TTL {} ms", scenario.name, scenario.title, line.ttl_ms);
    let report = one(scenario, seed, line).await;
    println!("{}", report.text());
    match report.write(&line.out) {
        Ok(folder) => println!("in {}", folder.display()),
        Err(error) => eprintln!("scenarios: the report could not be written: {error}"),
    }
    if line.keeps_table {
        table::update(&report);
    }
    report
}

/// Plays one; one that panics has failed.
async fn one(scenario: &'static Scenario, seed: u64, line: &Line) -> Report {
    let mut settings = line.settings(seed);
    settings.ttl_ms = settings.ttl_ms.max(scenario.plan.ttl_ms_min);
    let mut playing = JoinSet::new();
    playing.spawn(run::play(scenario, settings));
    match playing.join_next().await {
        Some(Ok(report)) => report,
        Some(Err(error)) => {
            let why = error.try_into_panic().map_or_else(|error| error.to_string(), run::said);
            Report::broken_off(scenario.head(settings), why)
        }
        None => Report::broken_off(scenario.head(settings), "it never began".to_owned()),
    }
}
