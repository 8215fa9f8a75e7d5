//! A seeded simulator: one number decides a whole run of an engine, faults of its network included.
//!
//! Everything of the engine is real: components, systems, the logic of its socket tasks. Replaced are the three things that a
//! test cannot hold still: the clock, which is tokio's and paused ([`time`]); the network, which is in memory and fails on
//! command ([`weather`]); and chance, which comes from the seed ([`seeds`]). After every tick the books must close ([`law`]), and
//! a run that fails is made smaller ([`shrink`]) before anybody is told of it ([`failure`]).
//!
//! What a host does, and what it expects, stays in its own test: here is all that such a test shares with others.
//!
//! ```
//! use std::time::Duration;
//! use tickcast::transport::memory::MemoryNetwork;
//! use tickcast::{Message, Target, Tickcast};
//! use tickcast_sim::seeds::{Seeds, Tally};
//! use tickcast_sim::weather::{FaultKind, Weather};
//! use tickcast_sim::{law, time};
//!
//! let server = "10.0.0.1:4000".parse()?;
//! let client = "10.0.0.2:5000".parse()?;
//! let tally = Seeds::first(50).run("cargo test --doc", |seed| {
//!     time::run(async {
//!         let network = MemoryNetwork::new(seed);
//!         let socket = network.endpoint(client);
//!         let mut net = time::virtual_time(Tickcast::<u32>::builder(), seed)
//!             .build(network.transport(server))
//!             .map_err(|error| error.to_string())?;
//!         net.admit(1, client).map_err(|error| error.to_string())?;
//!         // Until the tenth tick a datagram in three is lost; what is written is counted all the same.
//!         let mut weather = Weather::new(network.clone());
//!         weather.set(client, FaultKind::Loss, 0.33);
//!         for tick in 0..20 {
//!             if tick == 10 {
//!                 weather.clear();
//!             }
//!             net.send(Target::All, Message::new("tick")).map_err(|error| error.to_string())?;
//!             let report = net.step();
//!             law::check::<u32>(net.world_mut(), &report).map_err(|broken| broken.to_string())?;
//!             time::pass(Duration::from_millis(10)).await;
//!         }
//!         let arrived = socket.received().len() as u64;
//!         if arrived < 10 { Err(format!("only {arrived} arrived")) } else { Ok(Tally::of(20, 0)) }
//!     })
//! });
//! assert_eq!(tally.legs, 50 * 20);
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

pub mod failure;
pub mod law;
pub mod scenario;
pub mod seeds;
pub mod shrink;
pub mod time;
pub mod weather;
