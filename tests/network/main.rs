//! Behaviour that only a network shows: hosts that are not there, routers that object, links that go down.
//!
//! Every host is a network namespace; `namespace` says how. It takes Linux, iproute2 (and nftables for firewalls), and
//! root or the right to make a user namespace. Where something is missing a test is skipped and says so, unless
//! `TICKCAST_REQUIRE_NETWORK=1`. As everywhere, every step of every engine closes the books.

#![cfg(target_os = "linux")]

mod link;
mod namespace;
mod net;
mod path_size;
mod queue;
mod refused;
mod strangers;
mod unreachable;
mod v6;

#[path = "../behaviour/support.rs"]
#[allow(dead_code, reason = "the tests on the loopback and in virtual time need more of it")]
mod support;
