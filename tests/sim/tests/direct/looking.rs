//! What there is to be seen of a sender after each tick, and of its end; the judge is shown all of it.

use std::hash::{DefaultHasher, Hash};

use tickcast_sim::failure::Failure;

use crate::observed::with;
use crate::plan::server;
use crate::world::World;

impl World {
    /// Shows the judge what there is to be seen.
    pub(crate) fn look(&mut self, began: tokio::time::Instant, hash: &mut DefaultHasher) -> Result<(), Failure> {
        let Self { judge, verbose, .. } = self;
        judge.begin(self.tick, &self.network.stats());
        if let Some(listener) = &mut self.listener {
            while let Ok(forwarded) = listener.try_recv() {
                judge.forwarded(&forwarded)?;
            }
        }
        while let Ok(outcome) = self.outcomes.try_recv() {
            if *verbose {
                println!("   {outcome:?}");
            }
            (outcome.id, outcome.peer, outcome.addr, outcome.outcome, outcome.legs).hash(hash);
            judge.told(&outcome)?;
        }
        while let Ok(event) = self.events.try_recv() {
            if *verbose {
                println!("   {event:?}");
            }
            format!("{event:?}").hash(hash);
            judge.event(&event)?;
        }
        if let Some(replies) = &mut self.replies {
            for _ in 0..self.consumes {
                let Ok(reply) = replies.try_recv() else { break };
                if *verbose {
                    println!("   {:?} of {:?} from {}", reply.message.id, reply.peer, reply.from);
                }
                (reply.message.id, reply.peer, reply.from).hash(hash);
                self.last_from = Some(reply.from);
                judge.reply(&reply)?;
            }
            judge.waiting_replies = replies.len() as u64;
        }
        self.others.look(judge, hash)?;
        let snapshot = self.metrics.snapshot();
        format!("{snapshot}").hash(hash);
        let weather = &self.weather;
        with(&self.log, |seen| judge.end_tick(&snapshot, seen, weather, began))
    }

    /// It has ended.
    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
        if self.judge.is_over() {
            return Ok(());
        }
        let idle = tokio::spawn(std::future::pending());
        let report = match std::mem::replace(&mut self.running, idle).await {
            Ok(Ok(report)) => report,
            Ok(Err(error)) => return self.broken("it begins", error.to_string()),
            Err(error) if error.is_cancelled() => {
                self.judge.dropped();
                return Ok(());
            }
            Err(error) => return self.broken("no panic", error.to_string()),
        };
        let at = with(&self.log, |seen| seen.ended).expect("it was polled to its end");
        self.say(|| format!("   {:?}: {:?}; {}", report.end, report.messages, report.report.legs));
        let snapshot = self.metrics.snapshot();
        self.judge.ended(&report, at, &snapshot)
    }

    /// What is left when it is gone: nothing.
    pub(crate) async fn leave(&mut self) -> Result<(), Failure> {
        tokio::time::sleep(self.shape.tick).await;
        let shards = with(&self.log, |seen| seen.shards);
        let takes = self.messages.as_ref().is_some_and(|messages| !messages.is_closed());
        if shards > 0 || takes {
            return self.broken("a sender that is gone leaves nothing behind", format!("{shards} shards, {takes}"));
        }
        drop(self.network.endpoint(server()));
        self.others.leave(self.tick).await
    }
}
