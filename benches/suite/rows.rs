//! The figures, as benches write them: a line each, its fields apart by tabs. It never says what is good.

use std::path::{Path, PathBuf};
use std::{fs, io};

use thiserror::Error;

/// Why figures cannot be read.
#[derive(Debug, Error)]
pub(crate) enum RowError {
    #[error("{}: {error}", path.display())]
    File {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("line {line}: {fields} fields instead of {FIELDS}")]
    Fields { line: usize, fields: usize },
    #[error("line {line}: '{text}' is no number")]
    Number { line: usize, text: String },
}

/// One figure of one side.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) bench: String,
    pub(crate) workload: String,
    pub(crate) side: String,
    /// Whom the figure is a ratio to; empty if it is none.
    pub(crate) against: String,
    pub(crate) peers: usize,
    /// Per peer and tick.
    pub(crate) messages: usize,
    /// Of a payload.
    pub(crate) bytes: usize,
    pub(crate) figure: String,
    pub(crate) value: f64,
}

const FIELDS: usize = 9;

/// All figures of a record.
#[derive(Debug, Default)]
pub(crate) struct Rows(pub(crate) Vec<Row>);

impl Rows {
    /// # Errors
    ///
    /// [`RowError`]: the file, or a line of it that is no figure.
    pub(crate) fn read(path: &Path) -> Result<Self, RowError> {
        let text = fs::read_to_string(path).map_err(|error| RowError::File { path: path.to_owned(), error })?;
        Self::parse(&text)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, RowError> {
        text.lines().enumerate().map(|(number, text)| row(number + 1, text)).collect::<Result<_, _>>().map(Self)
    }
}

fn row(line: usize, text: &str) -> Result<Row, RowError> {
    let fields: Vec<&str> = text.split('\t').collect();
    let &[bench, workload, side, against, peers, messages, bytes, figure, value] = fields.as_slice() else {
        return Err(RowError::Fields { line, fields: fields.len() });
    };
    let no_number = |text: &str| RowError::Number { line, text: text.to_owned() };
    let whole = |text: &str| text.parse::<usize>().map_err(|_| no_number(text));
    Ok(Row {
        bench: bench.to_owned(),
        workload: workload.to_owned(),
        side: side.to_owned(),
        against: against.to_owned(),
        peers: whole(peers)?,
        messages: whole(messages)?,
        bytes: whole(bytes)?,
        figure: figure.to_owned(),
        value: value.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(|| no_number(value))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a bench's line is read as it was meant, and a line that is none is named.
    #[test]
    fn lines_are_read_or_named() {
        let line = "udp\ta\ttickcast\tsend_to\t1000\t1\t64\tcpu\t0.9\n";
        let rows = Rows::parse(line).unwrap().0;
        assert_eq!((rows[0].against.as_str(), rows[0].peers, rows[0].value), ("send_to", 1000, 0.9));
        assert!(matches!(Rows::parse("udp\ta\n"), Err(RowError::Fields { line: 1, fields: 2 })));
        for bad in ["\t0.9x\n", "\tNaN\n", "\t\n"] {
            let text = format!("{line}{}", line.replace("\t0.9\n", bad));
            assert!(matches!(Rows::parse(&text), Err(RowError::Number { line: 2, .. })));
        }
    }
}
