//! What can be measured, how much of it is, and which of it the command line asks for. It never measures.

use std::fmt::Debug;

use super::record::Row;

/// One who sends, as tables and command lines name it.
pub(crate) trait Kind: Copy + Debug + 'static {
    const ALL: &'static [Self];

    /// How it is named as an argument, and in a table.
    fn names(self) -> (&'static str, &'static str);
}

/// What is sent in every tick to every client, and by whom. The last side is the one to compare with.
pub(crate) struct Workload<K: Kind> {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) sides: &'static [K],
}

impl<K: Kind> Workload<K> {
    /// What the suite's rows of this workload have in common.
    pub(crate) fn row(&self, bench: &'static str, peers: usize) -> Row<'static> {
        Row { bench, workload: self.name, peers, messages: self.messages, bytes: self.bytes, ..Row::default() }
    }
}

/// The workloads that the command line names, each with the sides that it names; without names of a sort, all of it.
/// Sides are named for profilers: `-- b tickcast`.
pub(crate) fn wanted<K: Kind>(workloads: &[Workload<K>]) -> Vec<(&Workload<K>, Vec<K>)> {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |name: &str, of: &[&str]| {
        given.iter().any(|given| given == name) || !given.iter().any(|given| of.contains(&given.as_str()))
    };
    let workload_names: Vec<&str> = workloads.iter().map(|workload| workload.name).collect();
    let kind_names: Vec<&str> = K::ALL.iter().map(|kind| kind.names().0).collect();
    let kinds = |of: &Workload<K>| {
        of.sides.iter().copied().filter(|kind| is_wanted(kind.names().0, &kind_names)).collect::<Vec<K>>()
    };
    let workloads = workloads.iter().filter(|workload| is_wanted(workload.name, &workload_names));
    workloads.map(|workload| (workload, kinds(workload))).collect()
}

/// How much of it is done.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) clients: usize,
    pub(crate) rounds: usize,
    pub(crate) ticks: usize,
    /// Ticks before the measured ones.
    pub(crate) warm_ups: usize,
}

impl Extent {
    /// The line above all tables.
    pub(crate) fn print(&self, is_apart: bool) {
        println!(
            "{} clients, {} rounds of {} ticks at 60 Hz, medians of the rounds; {}",
            self.clients,
            self.rounds,
            self.ticks,
            if is_apart { "server on one core, clients on another" } else { "server and clients share the only core" }
        );
    }
}
