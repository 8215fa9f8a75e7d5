//! What threads agree on, in every order of their steps that the memory model allows.
//!
//! The modules are the engine's own files. They take atomics, mutexes and wakers from a module `sync` beside them, which is the
//! standard library's there and loom's here. A program rather than tests, since the files' own tests know of no model.
//!
//! Arguments: the names of those to run, else all. Orders in which a thread is interrupted more than three times are left out
//! unless `LOOM_MAX_PREEMPTIONS` says otherwise.

// Of each file only what is agreed on between threads is used here.
#![allow(dead_code)]

use std::time::Instant;

use loom::model::Builder;

#[path = "../../../src/transport/tcp/gate.rs"]
mod gate;
mod orders;
#[path = "../../../src/transport/tcp/post.rs"]
mod post;
#[path = "../../../src/transport/tcp/ready.rs"]
mod ready;
#[path = "../../../components/src/room.rs"]
mod room;
mod sync;

const PREEMPTIONS: usize = 3;

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    for name in asked.iter().filter(|asked| orders::ALL.iter().all(|(name, _)| name != asked)) {
        panic!("there is no {name}");
    }
    for (name, order) in orders::ALL {
        if !asked.is_empty() && !asked.iter().any(|asked| asked == name) {
            continue;
        }
        let mut model = Builder::new();
        model.preemption_bound = model.preemption_bound.or(Some(PREEMPTIONS));
        let began = Instant::now();
        model.check(order);
        println!("{name}: every order kept it, {:.1} s", began.elapsed().as_secs_f64());
    }
}
