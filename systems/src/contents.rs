//! What pending messages consist of: the part of a message that the shard gets, apart from its entity.

use tickcast_components::{BatchMessage, ContentAt, Spool};

use crate::resources::LIST_KEPT_MAX;

/// What pending messages consist of. Those of the tick lie where they were submitted, from where the shard takes them as they lie,
/// so that most are written once. What waits longer than that is kept apart.
#[derive(Debug, Default)]
pub struct Contents {
    /// Those taken in in this tick, until its dispatch has ended; none where one was taken out.
    fresh: Spool<Option<BatchMessage>>,
    /// Those of messages with legs that wait.
    kept: Vec<Option<BatchMessage>>,
    /// Places in `kept` that are free.
    free: Vec<u32>,
}

impl Contents {
    /// Where those of a tick are put that begins. What is left of the last tick's goes.
    pub(crate) fn begin(&mut self) -> &mut Spool<Option<BatchMessage>> {
        if self.kept_len() == 0 && !self.kept.is_empty() {
            // Once nothing waits, a burst has left little behind.
            self.kept.clear();
            self.free.clear();
            self.kept.shrink_to(LIST_KEPT_MAX);
            self.free.shrink_to(LIST_KEPT_MAX);
        }
        self.fresh.clear();
        &mut self.fresh
    }

    /// Gives those of the tick away, in exchange for an empty list.
    pub(crate) fn hand_over(&mut self, to: &mut Spool<Option<BatchMessage>>) {
        debug_assert!(to.is_empty(), "a batch has the messages of one tick");
        std::mem::swap(&mut self.fresh, to);
    }

    /// How many the tick has, those that were taken out included.
    pub(crate) fn fresh_len(&self) -> usize {
        self.fresh.len()
    }

    /// How many are kept.
    pub(crate) fn kept_len(&self) -> usize {
        self.kept.len() - self.free.len()
    }

    /// One of them.
    #[inline]
    pub(crate) fn get(&self, at: ContentAt) -> Option<&BatchMessage> {
        match at {
            ContentAt::Nowhere => None,
            ContentAt::Fresh(index) => self.fresh.get(index as usize)?.as_ref(),
            ContentAt::Kept(index) => self.kept.get(index as usize)?.as_ref(),
        }
    }

    /// One of them, to be changed.
    // Finds its place by itself, as `take` does: a function of both costs each message 4 % (`benches/tick.rs`, unicast).
    #[inline]
    pub(crate) fn get_mut(&mut self, at: ContentAt) -> Option<&mut BatchMessage> {
        match at {
            ContentAt::Nowhere => None,
            ContentAt::Fresh(index) => self.fresh.get_mut(index as usize)?.as_mut(),
            ContentAt::Kept(index) => self.kept.get_mut(index as usize)?.as_mut(),
        }
    }

    /// Takes one out.
    #[inline]
    pub(crate) fn take(&mut self, at: ContentAt) -> Option<BatchMessage> {
        match at {
            ContentAt::Nowhere => None,
            ContentAt::Fresh(index) => self.fresh.get_mut(index as usize)?.take(),
            ContentAt::Kept(index) => {
                let content = self.kept.get_mut(index as usize)?.take()?;
                self.free.push(index);
                Some(content)
            }
        }
    }

    /// Keeps one.
    pub(crate) fn keep(&mut self, content: BatchMessage) -> ContentAt {
        if let Some(index) = self.free.pop() {
            self.kept[index as usize] = Some(content);
            ContentAt::Kept(index)
        } else {
            self.kept.push(Some(content));
            ContentAt::Kept((self.kept.len() - 1) as u32)
        }
    }

    /// Keeps one of the tick's, beyond the tick.
    pub(crate) fn keep_on(&mut self, at: ContentAt) -> ContentAt {
        match at {
            ContentAt::Fresh(_) => self.take(at).map_or(ContentAt::Nowhere, |content| self.keep(content)),
            _ => at,
        }
    }

    /// Lets one go whose entity a host has despawned. One of the tick's goes with the others.
    pub(crate) fn forget(&mut self, at: ContentAt) {
        if matches!(at, ContentAt::Kept(_)) {
            drop(self.take(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Goal: over many ticks everyone finds its own content, until it is taken, forgotten, or left where the shard takes it.
    #[test]
    fn everyone_finds_its_own() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut contents = Contents::default();
        let mut places: BTreeMap<u64, ContentAt> = BTreeMap::new();
        let mut sequence = 0;
        for _ in 0..500 {
            let fresh = contents.begin();
            for index in 0..random.u32(..20) {
                sequence += 1;
                fresh.push(Some(BatchMessage::new(sequence, &b"content"[..])));
                places.insert(sequence, ContentAt::Fresh(index));
            }
            // Whatever stays with those of the tick.
            let mut left = Vec::new();
            for (&number, at) in &mut places {
                assert_eq!(contents.get(*at).map(|content| content.sequence), Some(number));
                assert_eq!(contents.get_mut(*at).map(|content| content.sequence), Some(number));
                match random.u8(..4) {
                    0 => assert_eq!(contents.take(*at).map(|content| content.sequence), Some(number)),
                    1 => {
                        contents.forget(*at);
                        left.extend(matches!(at, ContentAt::Fresh(_)).then_some(number));
                    }
                    2 if matches!(at, ContentAt::Fresh(_)) => left.push(number),
                    _ => {
                        *at = contents.keep_on(*at);
                        assert!(matches!(at, ContentAt::Kept(_)));
                        continue;
                    }
                }
                *at = ContentAt::Nowhere;
            }
            if random.bool() {
                let mut batch = Spool::default();
                contents.hand_over(&mut batch);
                let handed: Vec<u64> = batch.iter().flatten().map(|content| content.sequence).collect();
                assert_eq!((handed, contents.fresh_len()), (left, 0));
            }
            places.retain(|_, at| *at != ContentAt::Nowhere);
            assert_eq!(contents.kept_len(), places.len());
        }
    }
}
