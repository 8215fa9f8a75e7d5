//! One who sends, and this engine as such a one. The bare loops to compare it with are each bench's own.

use std::thread::sleep;
use std::time::Duration;

use tickcast::{Builder, Bytes, Message, NetworkConfig, Overflow, Target, Tickcast};

/// One who sends.
pub(crate) trait Side {
    /// Sends these payloads to all clients.
    fn tick(&mut self, payloads: &[Bytes]);

    /// Waits until everything has left.
    fn settle(&mut self) {}

    /// Asserts what the side itself knows of what it was given.
    fn check(&mut self, _messages: u64) {}
}

/// The engine, with all clients admitted.
pub(crate) struct Ours {
    pub(crate) net: Tickcast<u64>,
    /// What messages do where there is no room.
    pub(crate) overflow: Overflow,
}

impl Ours {
    /// The clients here never say anything; all else is the default.
    pub(crate) fn builder() -> Builder<u64> {
        Tickcast::builder().config(NetworkConfig { peer_idle_timeout: None, ..NetworkConfig::default() })
    }

    /// Steps on until no more legs than these are pending.
    pub(crate) fn settle_to(&mut self, legs: u64) {
        while self.net.report().legs.pending > legs {
            sleep(Duration::from_millis(1));
            self.net.step();
        }
    }
}

impl Side for Ours {
    fn tick(&mut self, payloads: &[Bytes]) {
        for payload in payloads {
            let message = Message::new(payload.clone()).overflow(self.overflow);
            self.net.send(Target::All, message).expect("there is room");
        }
        self.net.step();
    }

    fn settle(&mut self) {
        self.settle_to(0);
    }

    fn check(&mut self, messages: u64) {
        let legs = self.net.report().legs;
        assert_eq!(legs.unaccounted(), 0, "{legs}");
        assert_eq!((legs.accepted, legs.written, legs.pending), (messages, messages, 0), "{legs}");
    }
}
