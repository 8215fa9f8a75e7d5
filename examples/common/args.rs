//! Command lines: `--flag value` or `--flag=value`, numbers within a stated range, and a clear word on what is wrong.

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::str::FromStr;

/// What is left of a command line.
pub(crate) struct Args {
    rest: VecDeque<String>,
    /// The flag that was read last, for messages.
    flag: String,
    /// The value that was attached to it by `=`.
    attached: Option<String>,
}

/// One word of a command line.
pub(crate) enum Word {
    /// `--name`; its value, if it takes one, is asked for next.
    Flag(String),
    /// Anything else.
    Plain(String),
}

impl Args {
    /// The arguments of this process, without its name.
    pub(crate) fn of_process() -> Result<Self, UsageError> {
        let words = std::env::args_os().skip(1).map(|word| {
            word.into_string().map_err(|word| UsageError(format!("{} is not readable text", word.to_string_lossy())))
        });
        Ok(Self { rest: words.collect::<Result<_, _>>()?, flag: String::new(), attached: None })
    }

    /// Whether the first word is `name`; if so, it is taken.
    pub(crate) fn take_command(&mut self, name: &str) -> bool {
        let found = self.rest.front().is_some_and(|word| word == name);
        if found {
            self.rest.pop_front();
        }
        found
    }

    /// The next word.
    pub(crate) fn next_word(&mut self) -> Result<Option<Word>, UsageError> {
        if let Some(value) = self.attached.take() {
            return Err(UsageError(format!("{} takes no value, but got '{value}'", self.flag)));
        }
        let Some(word) = self.rest.pop_front() else { return Ok(None) };
        if !word.starts_with('-') {
            return Ok(Some(Word::Plain(word)));
        }
        match word.split_once('=') {
            Some((flag, value)) => {
                self.flag = flag.to_owned();
                self.attached = Some(value.to_owned());
            }
            None => self.flag = word,
        }
        Ok(Some(Word::Flag(self.flag.clone())))
    }

    /// The value of the flag that was read last.
    pub(crate) fn value(&mut self) -> Result<String, UsageError> {
        // A flag is no value: `--json --peers 5` has forgotten the file.
        let next = || self.rest.pop_front_if(|word| !word.starts_with("--"));
        self.attached.take().or_else(next).ok_or_else(|| UsageError(format!("{} needs a value", self.flag)))
    }

    /// The value of the flag that was read last, as a number within `range`.
    pub(crate) fn number<T>(&mut self, range: RangeInclusive<T>) -> Result<T, UsageError>
    where
        T: FromStr + PartialOrd + Display,
    {
        let text = self.value()?;
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            let (flag, least, most) = (&self.flag, range.start(), range.end());
            UsageError(format!("{flag}: '{text}' is not a number from {least} to {most}"))
        })
    }

    /// The value of the flag that was read last, as one of `choices`.
    #[allow(dead_code, reason = "not every program has a flag of this kind")]
    pub(crate) fn choice<T: Copy>(&mut self, choices: &[(&str, T)]) -> Result<T, UsageError> {
        let text = self.value()?;
        choices.iter().find(|(name, _)| *name == text).map(|&(_, choice)| choice).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|&(name, _)| name).collect();
            UsageError(format!("{}: '{text}' is none of: {}", self.flag, names.join(", ")))
        })
    }
}

/// What is wrong with a command line.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl UsageError {
    /// Says so on the standard error, and answers with the status of a command that was not understood.
    pub(crate) fn report(&self, program: &str) -> ExitCode {
        eprintln!("{program}: {self}");
        eprintln!("Try '{program} --help'.");
        ExitCode::from(STATUS_USAGE)
    }
}

impl Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The exit status of a program that cannot do what it was asked for.
pub(crate) const STATUS_USAGE: u8 = 2;
