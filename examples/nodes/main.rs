//! Five services that send to each other, as processes: what a `DirectSender` does while addresses change under it.
//!
//! `cargo run --release --example nodes` needs no arguments and ends by itself; `--help` tells what can be changed.
//!
//! - `station`: how a service uses a `DirectSender`: this is the file to read.
//! - `node`: one process: it sends numbered messages to all others, and answers theirs.
//! - `directory`: the file in which every node finds the others.
//! - `cluster`: the first process: starts the others, and changes the directory under them.
//! - `payload`, `tally`, `verdict`: what the messages say, what each node counts, and whether it all fits together.
//! - `options`: the command line.

#[allow(dead_code, reason = "what it shares with other programs does more than it needs")]
mod common;

mod cluster;
mod directory;
mod node;
mod options;
mod payload;
mod station;
mod tally;
mod verdict;

use std::process::ExitCode;

use common::args::Args;
use common::figures::say;
use common::program::{Failure, status};
use options::{Command, HELP};

fn main() -> ExitCode {
    status(PROGRAM, run())
}

fn run() -> Result<ExitCode, Failure> {
    match options::parse(&mut Args::of_process()?)? {
        Command::Help => say(HELP),
        Command::Node(place) => {
            node::run(&place).map_err(|error| Failure::Other(format!("{}: {error}", place.name)))?;
        }
        Command::Cluster(options) => {
            let verdict = cluster::run(&options)?;
            say(&verdict);
            return Ok(if verdict.agrees() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

const PROGRAM: &str = "nodes";
