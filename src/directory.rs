//! The directory: a watched map of peers, and edits beside it, as changes that a tick takes in.
//!
//! Owns: the task that compares one map with the next, and the edits. A map is compared off the frame; what has changed
//! waits in a bounded queue, of which a tick takes a named number.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, RwLock};

use atomic_waker::AtomicWaker;
use crossbeam_queue::ArrayQueue;
use foldhash::quality::SeedableRandomState;
use thiserror::Error;
use tickcast_components::few::Few;
use tickcast_components::{CompactAddr, PeerData, PeerId, Source};
use tickcast_systems::resources::{DIRECTORY_CHANGES_MAX, Directory, DirectoryChange};
use tokio::sync::{Notify, watch};

/// The map that a host replaces whole.
pub type PeerMap<P> = HashMap<P, Vec<PeerData>>;

type Edits<P> = Arc<RwLock<hashbrown::HashMap<P, Vec<PeerData>, SeedableRandomState>>>;

/// Edits single peers of the directory, beside the watched map and without cloning it. Cheap to clone.
///
/// What an edit lists and what the map lists for the same peer add up; replacing the map leaves edits alone.
///
/// ```
/// use tickcast::Tickcast;
/// use tickcast::transport::udp::Udp;
///
/// let mut net = Tickcast::<u64>::builder().build(Udp::bind("127.0.0.1:0".parse()?))?;
/// let directory = net.directory();
/// let addr: std::net::SocketAddr = "127.0.0.1:9".parse()?;
/// directory.insert(7, vec![addr.into()])?;
/// assert_eq!(net.step().endpoints.up, 1);
/// directory.remove(7)?;
/// assert_eq!(net.step().unresolved, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DirectoryHandle<P: PeerId> {
    changes: Arc<ArrayQueue<DirectoryChange<P>>>,
    edits: Edits<P>,
    frame: Arc<AtomicWaker>,
}

/// An edit was refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// As many changes as are allowed wait for the next ticks.
    #[error("too many directory changes wait for the next ticks")]
    Full,
}

impl<P: PeerId> DirectoryHandle<P> {
    /// Lists these addresses for a peer, in place of what was listed by an edit before. An empty list is none.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Full`].
    pub fn insert(&self, peer: P, addrs: Vec<PeerData>) -> Result<(), DirectoryError> {
        self.edit(peer, |listed| *listed = addrs)
    }

    /// Changes what an edit has listed for a peer; `edit` starts from that.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Full`].
    pub fn edit(&self, peer: P, edit: impl FnOnce(&mut Vec<PeerData>)) -> Result<(), DirectoryError> {
        // One lock from reading to writing, so that of two edits at once neither is lost.
        let mut edits = self.edits.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut addrs = edits.get(&peer).cloned().unwrap_or_default();
        edit(&mut addrs);
        let change = DirectoryChange { peer: peer.clone(), source: Source::Edit, addrs: compact(&addrs) };
        self.changes.push(change).map_err(|_| DirectoryError::Full)?;
        self.frame.wake();
        if addrs.is_empty() {
            edits.remove(&peer);
        } else {
            edits.insert(peer, addrs);
        }
        Ok(())
    }

    /// Takes back whatever an edit has listed for a peer.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Full`].
    pub fn remove(&self, peer: P) -> Result<(), DirectoryError> {
        self.insert(peer, Vec::new())
    }
}

impl<P: PeerId> Clone for DirectoryHandle<P> {
    fn clone(&self) -> Self {
        Self { changes: Arc::clone(&self.changes), edits: Arc::clone(&self.edits), frame: Arc::clone(&self.frame) }
    }
}

impl<P: PeerId> fmt::Debug for DirectoryHandle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryHandle").field("changes", &self.changes.len()).finish_non_exhaustive()
    }
}

/// Both sides of a directory: what the tick reads, and what the host edits. The task that watches the map is the third
/// part, for the caller to spawn.
pub(crate) fn directory<P: PeerId>(
    map: Option<watch::Receiver<PeerMap<P>>>,
    hash: &SeedableRandomState,
    frame: &Arc<AtomicWaker>,
) -> (Directory<P>, DirectoryHandle<P>, Option<impl Future<Output = ()> + Send + 'static>) {
    let changes = Arc::new(ArrayQueue::new(DIRECTORY_CHANGES_MAX));
    let edits: Edits<P> = Arc::new(RwLock::new(hashbrown::HashMap::with_hasher(hash.clone())));
    let room = Arc::new(Notify::new());
    let handle = DirectoryHandle { changes: Arc::clone(&changes), edits: Arc::clone(&edits), frame: Arc::clone(frame) };
    let watched = map.clone();
    let several = map.is_some();
    let lookup = Box::new(move |peer: &P, found: &mut dyn FnMut(Source, Vec<PeerData>)| {
        if let Some(list) = watched.as_ref().and_then(|map| map.borrow().get(peer).cloned()) {
            found(Source::Map, list);
        }
        let edits = edits.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(list) = edits.get(peer).cloned() {
            found(Source::Edit, list);
        }
    });
    let notify = Arc::clone(&room);
    let task = map.map(|map| follow(map, Arc::clone(&changes), room, hash.clone(), Arc::clone(frame)));
    let directory = Directory { changes, room: Arc::new(move || notify.notify_one()), lookup, several };
    (directory, handle, task)
}

/// Compares each map with the one before, and queues what differs.
async fn follow<P: PeerId>(
    mut map: watch::Receiver<PeerMap<P>>,
    changes: Arc<ArrayQueue<DirectoryChange<P>>>,
    room: Arc<Notify>,
    hash: SeedableRandomState,
    frame: Arc<AtomicWaker>,
) {
    // What each peer was listed with, as a keyed fingerprint: the lists themselves need not be kept twice.
    let mut known: hashbrown::HashMap<P, u64, SeedableRandomState> = hashbrown::HashMap::with_hasher(hash.clone());
    loop {
        let mut found = {
            let map = map.borrow_and_update();
            compare(&map, &mut known, &hash)
        };
        // A std map iterates in an order of its own making; ours, by keyed hash, is the same in every run.
        found.sort_by_cached_key(|change| hash.hash_one(&change.peer));
        for mut change in found {
            while let Err(refused) = changes.push(change) {
                change = refused;
                frame.wake();
                room.notified().await;
            }
        }
        frame.wake();
        if map.changed().await.is_err() {
            return;
        }
    }
}

fn compare<P: PeerId>(
    map: &PeerMap<P>,
    known: &mut hashbrown::HashMap<P, u64, SeedableRandomState>,
    hash: &SeedableRandomState,
) -> Vec<DirectoryChange<P>> {
    let mut found = Vec::new();
    known.retain(|peer, _| {
        let stays = map.contains_key(peer);
        if !stays {
            found.push(DirectoryChange { peer: peer.clone(), source: Source::Map, addrs: Few::default() });
        }
        stays
    });
    for (peer, addrs) in map {
        let fingerprint = hash.hash_one(Fingerprint(addrs));
        if known.get(peer) != Some(&fingerprint) {
            known.insert(peer.clone(), fingerprint);
            found.push(DirectoryChange { peer: peer.clone(), source: Source::Map, addrs: compact(addrs) });
        }
    }
    found
}

/// A list, as the tick takes it.
fn compact(addrs: &[PeerData]) -> Few<CompactAddr> {
    addrs.iter().map(|data| data.addr.into()).collect()
}

/// A list, as it is hashed.
struct Fingerprint<'a>(&'a [PeerData]);

impl Hash for Fingerprint<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
