//! Counts by name, which cross from one process to the other as a line of text.

use std::collections::BTreeMap;

/// What all clients together have done and seen, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// The count by this name, to be raised.
    pub(crate) fn count(&mut self, name: &str) -> &mut u64 {
        if !self.0.contains_key(name) {
            self.0.insert(name.to_owned(), 0);
        }
        self.0.get_mut(name).expect("it was put there if it was not")
    }

    /// The count by this name; 0 if it never happened.
    pub(crate) fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// The counts whose names begin so, with the rest of their names.
    #[allow(dead_code, reason = "not every program has families of counts")]
    pub(crate) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
        self.0.iter().filter_map(move |(name, count)| Some((name.strip_prefix(prefix)?, *count)))
    }

    /// As a line of text.
    pub(crate) fn line(&self) -> String {
        let counts: Vec<_> = self.0.iter().map(|(name, count)| format!(" {name}={count}")).collect();
        FIRST_WORD.to_owned() + &counts.concat()
    }

    /// From a line of text.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        if words.next() != Some(FIRST_WORD) {
            return None;
        }
        let count = |word: &str| {
            let (name, count) = word.split_once('=')?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        words.map(count).collect::<Option<_>>().map(Self)
    }
}

const FIRST_WORD: &str = "counts";
