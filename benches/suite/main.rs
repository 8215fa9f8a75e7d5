//! All benches, one table at the end.
//!
//! `cargo run -p tickcast-suite` measures, which takes some twenty minutes, wants the machine for itself, and a C++ compiler for
//! one of the rivals. It writes what the benches have printed, their figures, the table and the plots to `benches/record`.
//! `-- --test` runs every bench as CI does, once, into a folder of the build. `-- --show FOLDER` prints the table again, and draws
//! the plots, of a record.
//!
//! - `rows`: the figures, as benches write them.
//! - `reach`: what is asked of which figure, and the table.
//! - `plots`: cost against peers and against messages.

mod plots;
mod reach;
mod rows;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs, io};

use thiserror::Error;

use crate::plots::PlotError;
use crate::rows::{RowError, Rows};

/// The benches, each with the package that it is in, and the features without which it leaves something out. `tick`, whose cases
/// last for seconds, runs three times: a shared machine has seconds in which all of it is slower by half.
const BENCHES: [(&str, &str, &str); 10] = [
    ("tickcast", "tick", ""),
    ("tickcast", "scale", ""),
    ("tickcast", "shard", ""),
    ("tickcast", "memory", ""),
    ("tickcast", "connect", ""),
    ("tickcast", "tick", ""),
    ("tickcast", "udp", ""),
    ("tickcast", "tcp", ""),
    ("tickcast-rivals", "rivals", "zmq"),
    ("tickcast", "tick", ""),
];
/// The variable by which a bench learns where its figures go.
const RECORD: &str = "TICKCAST_RECORD";
/// In a record's folder: the figures.
const ROWS: &str = "rows.tsv";
/// In a record's folder: machine, commit, command, and the table.
const TABLE: &str = "table.txt";

/// Why there is no table.
#[derive(Debug, Error)]
enum SuiteError {
    #[error("'{0}' is not understood; see `--help`")]
    Usage(String),
    #[error("{}: {error}", path.display())]
    File {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("{program} cannot be run: {error}")]
    Program {
        program: &'static str,
        #[source]
        error: io::Error,
    },
    #[error("the bench {0} has failed; what it printed is in the record's folder")]
    Bench(&'static str),
    #[error(transparent)]
    Rows(#[from] RowError),
    #[error(transparent)]
    Plot(#[from] PlotError),
}

const HELP: &str = "cargo run -p tickcast-suite [-- --test | -- --show FOLDER]

Without arguments: measures for some twenty minutes; the record goes to benches/record.
--test             runs every bench once, with little to do; the record goes to the build's folder.
--show FOLDER      prints the table of a record, and draws its plots anew.";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        [] => measure(),
        ["--test"] => run(&build_folder().join("suite"), true),
        ["--show", folder] => show(Path::new(folder)),
        ["--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        [first, ..] => Err(SuiteError::Usage((*first).to_owned())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Into a folder of the commit's own.
fn measure() -> Result<(), SuiteError> {
    let date = answer("git", &["log", "-1", "--format=%cs"])?;
    let commit = answer("git", &["rev-parse", "--short", "HEAD"])?;
    run(&root().join("benches/record").join(format!("{date}-suite-{commit}")), false)
}

/// Runs all benches, and writes a record of them.
fn run(folder: &Path, is_test: bool) -> Result<(), SuiteError> {
    let file = |path: &Path, error| SuiteError::File { path: path.to_owned(), error };
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| file(folder, error))?;
    }
    fs::create_dir_all(folder).map_err(|error| file(folder, error))?;
    let folder = &folder.canonicalize().map_err(|error| file(folder, error))?;
    for (package, bench, features) in BENCHES {
        println!("{bench} ...");
        let printed = folder.join(format!("{bench}.txt"));
        let output = fs::OpenOptions::new().create(true).append(true).open(&printed);
        let output = output.map_err(|error| file(&printed, error))?;
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["bench", "--quiet", "--package", package, "--bench", bench, "--features", features, "--"]);
        cargo.args(is_test.then_some("--test"));
        cargo.current_dir(root()).env(RECORD, folder.join(ROWS)).stdin(Stdio::null()).stdout(output);
        let status = cargo.status().map_err(|error| SuiteError::Program { program: "cargo", error })?;
        if !status.success() {
            return Err(SuiteError::Bench(bench));
        }
    }
    let table = folder.join(TABLE);
    fs::write(&table, stamp(is_test)?).map_err(|error| file(&table, error))?;
    show(folder)
}

/// Prints a record's table, writes it behind its stamp, and draws its plots.
fn show(folder: &Path) -> Result<(), SuiteError> {
    let rows = Rows::read(&folder.join(ROWS))?;
    let path = folder.join(TABLE);
    let file = |error| SuiteError::File { path: path.clone(), error };
    let before = fs::read_to_string(&path).map_err(file)?;
    let (stamp, _) = before.split_once("\n\n").unwrap_or((&before, ""));
    let text = format!("{stamp}\n\n{}", reach::table(&rows));
    print!("{text}");
    fs::write(&path, text).map_err(file)?;
    plots::draw(&rows, folder)?;
    Ok(())
}

/// Machine, commit and command.
fn stamp(is_test: bool) -> Result<String, SuiteError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches(['\t', ' ', ':']);
    let command = "cargo run -p tickcast-suite";
    let command =
        if is_test { format!("{command} -- --test, so that these figures mean nothing") } else { command.to_owned() };
    Ok(format!(
        "command: {command}\ncommit:  {}\nmachine: {cores} cores, {model}, {}\nrustc:   {}",
        answer("git", &["describe", "--always", "--dirty"])?,
        answer("uname", &["-sr"])?,
        answer("rustc", &["--version"])?,
    ))
}

/// What a program prints, in the repository.
fn answer(program: &'static str, arguments: &[&str]) -> Result<String, SuiteError> {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    let output = output.map_err(|error| SuiteError::Program { program, error })?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where this build's own files are.
fn build_folder() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    program.parent().map(Path::to_owned).unwrap_or_default()
}
