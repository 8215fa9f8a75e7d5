//! How a program ends: with a status, and if there is no result with a word why.

use std::process::ExitCode;

use super::args::UsageError;
use super::child::Gone;

/// Why there is no result.
pub(crate) enum Failure {
    /// It cannot be done here.
    Usage(UsageError),
    /// Something went wrong, in words.
    Other(String),
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

impl From<Gone> for Failure {
    fn from(_: Gone) -> Self {
        Self::Other("the client process has ended before its time".into())
    }
}

/// The status of a program that has come to this.
pub(crate) fn status(program: &str, result: Result<ExitCode, Failure>) -> ExitCode {
    match result {
        Ok(status) => status,
        Err(Failure::Usage(error)) => error.report(program),
        Err(Failure::Other(text)) => {
            eprintln!("{program}: {text}");
            ExitCode::FAILURE
        }
    }
}
