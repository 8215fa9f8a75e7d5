//! What a client keeps of its greeting: enough to say it again when the server asks for a cookie.
//!
//! Owns: the payload, the newest cookie, and what has been echoed. Never does: send.

use crate::framing::Cookie;

/// Cookies that are echoed for one call of [`Client::hello`](super::Client::hello), one that the call itself carries
/// included. More are ignored and counted: whoever can forge challenges shall not make a client flood its server. An
/// honest server needs one, or two where the first has expired.
pub const CHALLENGES_MAX: usize = 4;

/// The latest greeting.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    payload: Vec<u8>,
    /// Whether the server has not said anything since.
    outstanding: bool,
    /// The newest one that the server has sent to this address.
    cookie: Option<Cookie>,
    /// What has been sent back since the call: at most [`CHALLENGES_MAX`].
    echoed: Vec<Cookie>,
}

impl Greeting {
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub(super) fn cookie(&self) -> Option<Cookie> {
        self.cookie
    }

    /// It was sent with this payload, and with the newest cookie.
    pub(super) fn begin(&mut self, payload: &[u8]) {
        self.payload.clear();
        self.payload.extend_from_slice(payload);
        self.outstanding = true;
        self.echoed.clear();
        self.echoed.extend(self.cookie);
    }

    /// Takes the cookie of a challenge, if it is to be echoed.
    pub(super) fn take(&mut self, cookie: Cookie) -> bool {
        let wanted = self.outstanding && self.echoed.len() < CHALLENGES_MAX && !self.echoed.contains(&cookie);
        if wanted {
            self.cookie = Some(cookie);
        }
        wanted
    }

    /// It was sent again with the newest cookie. Until then, a repeated challenge is another try.
    pub(super) fn echoed(&mut self) {
        self.echoed.extend(self.cookie);
    }

    /// The server has said something else than a challenge. The cookie stays: it may do for the next greeting.
    pub(super) fn answered(&mut self) {
        self.outstanding = false;
    }

    /// The address has changed: a cookie is for the old one, where no challenge can be expected either.
    pub(super) fn forget(&mut self) {
        self.outstanding = false;
        self.cookie = None;
    }
}
