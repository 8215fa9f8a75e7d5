//! What the async face logs of ids that say nothing, or a kilobyte.

use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tickcast::NetworkConfig;
use tickcast::direct::{NetErrorKind, NetMessage};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::direct::{Setup, pass, settle};
use crate::sim::client;

/// Keeps every line.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tickcast") && metadata.is_event()
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = event.metadata().target().to_owned();
        event.record(&mut Line(&mut line));
        self.0.lock().unwrap().push(line);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Goal: ids that say nothing, a kilobyte or several lines work like any others, and logs show them short and on one line.
#[tokio::test(start_paused = true)]
async fn strange_ids_are_shown_short() {
    let log = Log::default();
    // With one alone, `tracing` asks only the thread that first comes by a line whether anybody wants it: perhaps another test's.
    let _second = tracing::Dispatch::new(Log::default());
    let _guard = tracing::subscriber::set_default(log.clone());
    let config = NetworkConfig { endpoint_legs_max: 1, ..NetworkConfig::default() };
    let setup = Setup::<String> { config, sender: |sender| sender.with_payload_bytes_max(100), ..Setup::streams() };
    let direct = setup.run().await;
    let ids = [String::new(), "x".repeat(1024), "two\nlines".to_owned()];
    let sockets: Vec<_> = (1..=3).map(|n| direct.network.endpoint(client(n))).collect();
    for (id, socket) in ids.iter().zip(&sockets) {
        direct.list(id.clone(), &[socket.addr(), "10.0.0.9:0".parse().unwrap()]);
        settle().await;
        direct.network.change_faults(socket.addr(), |faults| faults.stalled = true);
        for text in ["one", "two", "three"] {
            direct.say(id.clone(), text);
            settle().await;
        }
        direct.send(tickcast::direct::DirectReceiver::Peer(id.clone()), NetMessage::new(vec![0; 101]));
        direct.network.stop(socket.addr(), tickcast::StopCause::Reset);
        pass(Duration::from_millis(10)).await;
    }
    assert!(direct.errors(NetErrorKind::Lagging) >= 3);
    direct.shut_down().await;
    let lines = log.0.lock().unwrap();
    for (what, count) in
        [("resolved", 3), ("endpoint up", 3), ("lagging", 3), ("refused", 3), ("rejected", 3), ("endpoint down", 3)]
    {
        let found: Vec<_> = lines.iter().filter(|line| line.contains(what)).collect();
        assert!(found.len() >= count, "{what}: {found:?} of {lines:#?}");
        assert!(found.iter().any(|line| line.contains("''")), "{what}: {found:#?}");
        assert!(found.iter().any(|line| line.contains("xxx…")), "{what}: {found:#?}");
    }
    for line in lines.iter() {
        assert!(line.len() < 300 && !line.contains('\n'), "{line}");
    }
}
