//! The directory: a file with a line for each node, its name and its addresses.
//!
//! It is replaced whole, by a new file under the old name, so that nobody ever reads half of it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tickcast::{PeerData, PeerMap};
use tokio::sync::watch;

/// Who is listed where.
pub(crate) type Listed = BTreeMap<String, Vec<SocketAddr>>;

/// Replaces the file.
pub(crate) fn write(path: &Path, listed: &Listed) -> io::Result<()> {
    let mut text = String::new();
    for (name, addrs) in listed {
        let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
        text += &[name.as_str(), &addrs.join(" ")].join(" ");
        text.push('\n');
    }
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

/// Follows the file, and tells of each new content.
pub(crate) fn watch(path: PathBuf) -> watch::Receiver<PeerMap<String>> {
    let (tell, told) = watch::channel(HashMap::new());
    tokio::spawn(async move {
        let mut known = String::new();
        while !tell.is_closed() {
            // A file that cannot be read for the moment changes nothing.
            if let Ok(text) = fs::read_to_string(&path)
                && text != known
            {
                match parse(&text) {
                    Some(map) => drop(tell.send_replace(map)),
                    None => eprintln!("nodes: the directory {} makes no sense; the old one stays", path.display()),
                }
                known = text;
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    });
    told
}

fn parse(text: &str) -> Option<PeerMap<String>> {
    let line = |line: &str| {
        let (name, addrs) = line.split_once(' ')?;
        let addrs = addrs.split(' ').map(|addr| addr.parse().ok().map(PeerData::new)).collect::<Option<_>>()?;
        Some((name.to_owned(), addrs))
    };
    text.lines().map(line).collect()
}

/// From one look at the file to the next.
const LOOK_PERIOD: Duration = Duration::from_millis(50);
