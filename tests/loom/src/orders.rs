//! One model for each agreement. Loom fails where somebody waits whom nobody wakes.
//!
//! What the threads do beside the agreement is relaxed wherever it can be, so that only the agreement makes one see what the other
//! did. Queues are a library's, and a mutex stands for them here.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::task::Poll;

use loom::future::block_on;
use loom::thread::{spawn, yield_now};

use crate::gate::Gate;
use crate::post::Post;
use crate::ready::Ready;
use crate::room::{Reservations, RoomWanted};
use crate::sync::{AtomicUsize, AtomicWaker, Mutex, Ordering};

const RELAXED: Ordering = Ordering::Relaxed;

/// All of them, by name.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("what_wakes_a_place_is_seen_by_who_looks_at_it", what_wakes_a_place_is_seen_by_who_looks_at_it),
    ("places_woken_at_once_are_all_found", places_woken_at_once_are_all_found),
    ("who_waits_for_room_is_woken", who_waits_for_room_is_woken),
    ("nothing_comes_after_the_end", nothing_comes_after_the_end),
    ("reservations_made_at_once_keep_to_the_bound", reservations_made_at_once_keep_to_the_bound),
    ("what_is_put_into_a_box_is_found", what_is_put_into_a_box_is_found),
    ("a_listener_that_waits_gets_a_permit", a_listener_that_waits_gets_a_permit),
];

/// Goal: whatever was done before a place was woken is seen by whoever takes the place, also if the place had been woken before
/// and not been looked at yet.
fn what_wakes_a_place_is_seen_by_who_looks_at_it() {
    let mut ready = Ready::default();
    let done = Arc::new(AtomicUsize::new(0));
    let waker = ready.waker(0).clone();
    let io = spawn({
        let done = Arc::clone(&done);
        move || {
            for step in 1..=2 {
                done.store(step, RELAXED);
                waker.wake_by_ref();
            }
        }
    });
    block_on(poll_fn(|context| {
        let taken = ready.take(context);
        let finished = !taken.is_empty() && done.load(RELAXED) == 2;
        ready.give_back(taken);
        if finished { Poll::Ready(()) } else { Poll::Pending }
    }));
    io.join().unwrap();
}

/// Goal: of places that different threads wake none is forgotten.
fn places_woken_at_once_are_all_found() {
    let mut ready = Ready::default();
    let threads: Vec<_> = (0..2)
        .map(|index| {
            let waker = ready.waker(index).clone();
            spawn(move || waker.wake_by_ref())
        })
        .collect();
    let mut found = Vec::new();
    block_on(poll_fn(|context| {
        let taken = ready.take(context);
        found.extend_from_slice(&taken);
        ready.give_back(taken);
        if found.len() < 2 { Poll::Pending } else { Poll::Ready(()) }
    }));
    found.sort_unstable();
    assert_eq!(found, [0, 1]);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Goal: whoever waits for room is woken when there is some, however often room comes and goes.
fn who_waits_for_room_is_woken() {
    let full = Arc::new((AtomicUsize::new(2), RoomWanted::default(), AtomicWaker::default()));
    let reader = spawn({
        let full = Arc::clone(&full);
        move || {
            for _ in 0..2 {
                full.0.fetch_sub(1, RELAXED);
                if full.1.answer() {
                    full.2.wake();
                }
            }
        }
    });
    let (waiting, wanted, waker) = &*full;
    block_on(poll_fn(|context| {
        waker.register(context.waker());
        for left in [1, 0] {
            if waiting.load(RELAXED) > left {
                wanted.ask();
                if waiting.load(RELAXED) > left {
                    return Poll::Pending;
                }
                wanted.withdraw();
            }
        }
        Poll::Ready(())
    }));
    reader.join().unwrap();
}

/// Goal: nothing that was let in comes after a queue was found closed and empty. What is tried is in which order handles and frame
/// take their steps; that the frame's is this one, a test of the engine sees (`src/handle.rs`).
fn nothing_comes_after_the_end() {
    let ingress = Arc::new((Reservations::default(), Mutex::new(0)));
    let handles: Vec<_> = (0..2)
        .map(|_| {
            let ingress = Arc::clone(&ingress);
            spawn(move || {
                let taken = ingress.0.reserve(0, 10).is_ok();
                *ingress.1.lock().unwrap() += usize::from(taken);
                usize::from(taken)
            })
        })
        .collect();
    let (room, queue) = &*ingress;
    room.close();
    let mut heard = 0;
    while !room.is_empty() {
        for _ in 0..std::mem::take(&mut *queue.lock().unwrap()) {
            room.release(0);
            heard += 1;
        }
        yield_now();
    }
    let taken: usize = handles.into_iter().map(|handle| handle.join().unwrap()).sum();
    assert_eq!(taken, heard);
}

/// Goal: as much is reserved as the bound allows, however many reserve at once, and what was denied leaves nothing behind.
fn reservations_made_at_once_keep_to_the_bound() {
    let room = Arc::new(Reservations::default());
    let other = spawn({
        let room = Arc::clone(&room);
        move || usize::from(room.reserve(6, 10).is_ok())
    });
    let taken = usize::from(room.reserve(6, 10).is_ok()) + other.join().unwrap();
    assert!(taken < 2, "twelve of ten bytes");
    for _ in 0..taken {
        room.release(6);
    }
    assert!(room.is_empty());
}

/// Goal: what is put into a box is found by its owner, whoever puts at the same time.
fn what_is_put_into_a_box_is_found() {
    let mut ready = Ready::default();
    let post = Arc::new(Post::new(ready.queue()));
    let shards: Vec<_> = (0..2)
        .map(|thing| {
            let post = Arc::clone(&post);
            spawn(move || post.put(thing))
        })
        .collect();
    let mut found = Vec::new();
    block_on(poll_fn(|context| {
        let taken = ready.take(context);
        ready.give_back(taken);
        found.append(&mut post.take());
        if found.len() < 2 { Poll::Pending } else { Poll::Ready(()) }
    }));
    found.sort_unstable();
    assert_eq!(found, [0, 1]);
    shards.into_iter().for_each(|shard| shard.join().unwrap());
}

/// Goal: a listener that waits for a permit gets the next one that is given back.
fn a_listener_that_waits_gets_a_permit() {
    let mut ready = Ready::default();
    let gate = Gate::new(1, 1, ready.queue());
    let permit = gate.enter().unwrap().for_source(IpAddr::from(Ipv4Addr::LOCALHOST)).unwrap();
    let shard = spawn(move || drop(permit));
    block_on(poll_fn(|context| {
        let taken = ready.take(context);
        ready.give_back(taken);
        if gate.enter().is_some() { Poll::Ready(()) } else { Poll::Pending }
    }));
    shard.join().unwrap();
}
