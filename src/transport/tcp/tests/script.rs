//! A network that does what the test says, and a shard on it.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tickcast_components::{Slot, StopCause};

use super::super::accepting::Acceptor;
use super::super::connection::Patience;
use super::super::gate::Gate;
use super::super::lobby::Lobby;
use super::super::net::{Io, Net};
use super::super::ready::Ready;
use super::super::stats::{TcpCounts, TcpStats};
use super::super::table::{Limits, Table};
use crate::framing::frame_prefix;
use crate::transport::{Opening, ReceiveSink, SenderEvent, Transmit, Verdict, Writable};

/// The other side of one connection, and the system in between.
#[derive(Clone, Default)]
pub(super) struct Wire(Arc<Mutex<State>>);

#[derive(Default)]
pub(super) struct State {
    incoming: VecDeque<Incoming>,
    /// Bytes that the system has room for.
    room: usize,
    /// What it has taken.
    pub(super) written: Vec<u8>,
    write_error: Option<ErrorKind>,
    /// Slices of each call that wrote; 0 for a plain one.
    pub(super) calls: Vec<usize>,
    pub(super) finished: bool,
    pub(super) forsaken: bool,
    pub(super) dropped: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Incoming {
    Bytes(Vec<u8>),
    End,
    Error(ErrorKind),
}

impl Wire {
    /// With room for so many bytes.
    pub(super) fn with_room(room: usize) -> Self {
        let wire = Self::default();
        wire.state().room = room;
        wire
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn say(&self, bytes: impl Into<Vec<u8>>) {
        self.come(Incoming::Bytes(bytes.into()));
    }

    pub(super) fn say_frame(&self, frame: impl AsRef<[u8]>) {
        self.say(framed(frame));
    }

    pub(super) fn end(&self) {
        self.come(Incoming::End);
    }

    pub(super) fn fail(&self, kind: ErrorKind) {
        self.come(Incoming::Error(kind));
    }

    /// Makes every write fail from now on.
    pub(super) fn fail_writes(&self, kind: ErrorKind) {
        self.state().write_error = Some(kind);
    }

    fn come(&self, incoming: Incoming) {
        let mut state = self.state();
        state.incoming.push_back(incoming);
        let waker = state.reader.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Has the system take so many bytes more.
    pub(super) fn give_room(&self, bytes: usize) {
        let mut state = self.state();
        state.room += bytes;
        let waker = state.writer.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// What was written since the last look.
    pub(super) fn written(&self) -> Vec<u8> {
        std::mem::take(&mut self.state().written)
    }
}

impl Io for Wire {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        match state.incoming.front_mut() {
            None => {
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
            Some(Incoming::Bytes(bytes)) => {
                let count = bytes.len().min(buffer.len());
                buffer[..count].copy_from_slice(&bytes[..count]);
                bytes.drain(..count);
                if bytes.is_empty() {
                    state.incoming.pop_front();
                }
                Poll::Ready(Ok(count))
            }
            Some(Incoming::End) => Poll::Ready(Ok(0)),
            Some(&mut Incoming::Error(kind)) => Poll::Ready(Err(kind.into())),
        }
    }

    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        if state.incoming.is_empty() {
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        if state.room == 0 && state.write_error.is_none() {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.state().take(0, &[IoSlice::new(bytes)])
    }

    fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.state().take(slices.len(), slices)
    }

    fn finish(&mut self) {
        self.state().finished = true;
    }

    fn forsake(&mut self) {
        self.state().forsaken = true;
    }
}

impl State {
    fn take(&mut self, call: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(kind) = self.write_error {
            return Err(kind.into());
        }
        assert!(!self.finished, "nothing is written after the end");
        if self.room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(self.room).collect();
        self.calls.push(call);
        self.room -= bytes.len();
        self.written.extend(&bytes);
        Ok(bytes.len())
    }
}

/// The shard's side of a [`Wire`]: tells when it is dropped.
pub(super) struct Held(Wire);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state().dropped = true;
    }
}

impl Io for Held {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.poll_read(context, buffer)
    }
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_readable(context)
    }
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_room(context)
    }
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }
    fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }
    fn finish(&mut self) {
        self.0.finish();
    }
    fn forsake(&mut self) {
        self.0.forsake();
    }
}

/// Who can be dialled, and who connects.
#[derive(Clone, Default)]
pub(super) struct Script(Arc<Mutex<World>>);

#[derive(Default)]
struct World {
    /// What becomes of dialling an address; hung if nothing is said.
    answers: HashMap<SocketAddr, Result<Wire, ErrorKind>>,
    /// No socket can be had.
    no_sockets: Option<ErrorKind>,
    dialing: usize,
    connecting: VecDeque<Result<(Wire, SocketAddr), io::Error>>,
    listener: Option<Waker>,
    accepts: usize,
}

impl Script {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Whoever dials this address gets there.
    pub(super) fn answer(&self, addr: SocketAddr, wire: &Wire) {
        self.world().answers.insert(addr, Ok(wire.clone()));
    }

    /// Whoever dials this address does not.
    pub(super) fn turn_away(&self, addr: SocketAddr, kind: ErrorKind) {
        self.world().answers.insert(addr, Err(kind));
    }

    /// The system has no sockets.
    pub(super) fn no_sockets(&self, kind: Option<ErrorKind>) {
        self.world().no_sockets = kind;
    }

    /// How many connections are being made.
    pub(super) fn dialing(&self) -> usize {
        self.world().dialing
    }

    /// How often the system was asked for a connection and had one, or an error.
    pub(super) fn accepts(&self) -> usize {
        self.world().accepts
    }

    /// Somebody connects.
    pub(super) fn connect(&self, addr: SocketAddr) -> Wire {
        let wire = Wire::with_room(1 << 20);
        self.arrive(Ok((wire.clone(), addr)));
        wire
    }

    /// The system has an error for who accepts.
    pub(super) fn fail_accept(&self, error: io::Error) {
        self.arrive(Err(error));
    }

    fn arrive(&self, arrival: Result<(Wire, SocketAddr), io::Error>) {
        let mut world = self.world();
        world.connecting.push_back(arrival);
        let waker = world.listener.take();
        drop(world);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Net for Script {
    type Io = Held;
    type Dialing = Dialing;

    fn dial(&mut self, addr: SocketAddr) -> io::Result<Dialing> {
        let mut world = self.world();
        if let Some(kind) = world.no_sockets {
            return Err(kind.into());
        }
        world.dialing += 1;
        drop(world);
        Ok(Dialing { script: self.clone(), addr })
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(Held, SocketAddr)>> {
        let mut world = self.world();
        match world.connecting.pop_front() {
            None => {
                world.listener = Some(context.waker().clone());
                Poll::Pending
            }
            Some(arrival) => {
                world.accepts += 1;
                Poll::Ready(arrival.map(|(wire, addr)| (Held(wire), addr)))
            }
        }
    }
}

/// A connection that is being made.
pub(super) struct Dialing {
    script: Script,
    addr: SocketAddr,
}

impl Future for Dialing {
    type Output = io::Result<Held>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<Held>> {
        match self.script.world().answers.get(&self.addr) {
            None => Poll::Pending,
            Some(Ok(wire)) => Poll::Ready(Ok(Held(wire.clone()))),
            Some(&Err(kind)) => Poll::Ready(Err(kind.into())),
        }
    }
}

impl Drop for Dialing {
    fn drop(&mut self) {
        self.script.world().dialing -= 1;
    }
}

/// A shard and what it has told, polled as the shard's task polls it: only when it was woken.
pub(super) struct Shard {
    pub(super) table: Table<Script>,
    task: Arc<Task>,
    pub(super) events: Vec<SenderEvent>,
    pub(super) frames: Vec<(SocketAddr, Option<Slot>, Vec<u8>)>,
    pub(super) writable: Vec<Slot>,
    /// Frames that there is room for.
    pub(super) room: usize,
    /// The frame has no room, so that nothing is read.
    pub(super) starved: bool,
    pub(super) turns: usize,
}

#[derive(Default)]
struct Task(AtomicBool);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Several shards over one script.
pub(super) struct Setup {
    pub(super) script: Script,
    pub(super) limits: Limits,
    pub(super) connections_max: usize,
    pub(super) per_address_max: usize,
    pub(super) stats: TcpStats,
}

/// The longest frame.
pub(super) const FRAME_BYTES_MAX: usize = 100_000;

impl Default for Setup {
    fn default() -> Self {
        let patience = Patience { first_frame: None, idle: None, write: None };
        Self {
            script: Script::default(),
            limits: Limits { frame_bytes_max: FRAME_BYTES_MAX, linger: Duration::from_secs(2), patience },
            connections_max: 1000,
            per_address_max: 1000,
            stats: TcpStats::default(),
        }
    }
}

impl Setup {
    /// So many shards; the first accepts.
    pub(super) fn shards<const N: usize>(&self) -> [Shard; N] {
        let mut lobby = None;
        std::array::from_fn(|number| {
            let ready = Ready::default();
            let acceptor = (number == 0)
                .then(|| Acceptor::new(Gate::new(self.connections_max, self.per_address_max, ready.queue())));
            let lobby = Arc::clone(lobby.get_or_insert_with(|| Arc::new(Lobby::new(ready.queue()))));
            let task = Arc::new(Task(AtomicBool::new(true)));
            let table = Table::new(self.script.clone(), self.limits, self.stats.clone(), ready, lobby, acceptor);
            Shard {
                table,
                task,
                events: Vec::new(),
                frames: Vec::new(),
                writable: Vec::new(),
                room: usize::MAX,
                starved: false,
                turns: 0,
            }
        })
    }

    pub(super) fn shard(&self) -> Shard {
        let [shard] = self.shards();
        shard
    }

    pub(super) fn counts(&self) -> TcpCounts {
        self.stats.counts()
    }
}

impl Shard {
    /// As many turns as it asks for.
    pub(super) fn run(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.task.0.swap(false, Ordering::Relaxed) {
                return;
            }
            self.turn();
        }
        panic!("the shard does not come to rest");
    }

    /// One turn in the order of the shard's task, woken or not.
    pub(super) fn turn(&mut self) {
        self.turns += 1;
        let waker = Waker::from(Arc::clone(&self.task));
        let mut context = Context::from_waker(&waker);
        self.take_events(&mut context);
        if !self.starved {
            let mut sink = Sink { frames: &mut self.frames, room: &mut self.room };
            if self.table.poll_receive(&mut context, &mut sink).is_ready() {
                self.starved = self.room == 0;
                self.task.0.store(!self.starved, Ordering::Relaxed);
            }
        }
        while let Poll::Ready(writable) = self.table.poll_writable(&mut context) {
            let Writable::Slot(slot) = writable else { panic!("a stream speaks for itself") };
            self.writable.push(slot);
        }
        self.take_events(&mut context);
    }

    /// A turn in which the shard holds nothing that was blocked, and so does not ask.
    pub(super) fn turn_without_writing(&mut self) {
        let waker = Waker::from(Arc::clone(&self.task));
        self.take_events(&mut Context::from_waker(&waker));
    }

    fn take_events(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(event) = self.table.poll_event(context) {
            self.events.push(event);
        }
    }

    /// The frame has room for so many frames again, and says so.
    pub(super) fn make_room(&mut self, frames: usize) {
        self.room = frames;
        self.starved = false;
        self.task.0.store(true, Ordering::Relaxed);
    }

    /// As when something else has woken the task. Whatever is asked of a shard is asked within a turn of its task.
    pub(super) fn wake(&mut self) {
        self.task.0.store(true, Ordering::Relaxed);
    }

    /// Lets virtual time pass, and the shard do what it is woken for.
    pub(super) async fn pass(&mut self, duration: Duration) {
        tokio::time::advance(duration).await;
        self.run();
    }

    pub(super) fn open(&mut self, slot: Slot, addr: SocketAddr, opening: Opening) {
        self.table.open(slot, addr, opening);
        self.wake();
    }

    pub(super) fn close(&mut self, slot: Slot) {
        self.table.close(slot);
        self.wake();
    }

    pub(super) fn refuse(&mut self, addr: SocketAddr) {
        self.table.refuse(addr);
        self.wake();
    }

    /// Sends each of these frames, each in one part.
    pub(super) fn send(&mut self, frames: &[(Slot, &[u8])]) -> Vec<Verdict> {
        let parts: Vec<[IoSlice<'_>; 1]> = frames.iter().map(|(_, frame)| [IoSlice::new(frame)]).collect();
        let transmits: Vec<Transmit<'_>> = frames
            .iter()
            .zip(&parts)
            .map(|(&(slot, frame), parts)| Transmit { slot, addr: addr(1), parts, bytes: frame.len() })
            .collect();
        self.send_transmits(&transmits)
    }

    pub(super) fn send_transmits(&mut self, transmits: &[Transmit<'_>]) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        self.table.send(transmits, &mut verdicts);
        assert_eq!(verdicts.len(), transmits.len(), "one verdict for each");
        self.wake();
        verdicts
    }

    /// What was told since the last look.
    pub(super) fn events(&mut self) -> Vec<SenderEvent> {
        self.run();
        std::mem::take(&mut self.events)
    }

    /// The frames that were handed on since the last look.
    pub(super) fn frames(&mut self) -> Vec<Vec<u8>> {
        self.run();
        std::mem::take(&mut self.frames).into_iter().map(|(_, _, frame)| frame).collect()
    }

    /// The slots that can be written to again since the last look.
    pub(super) fn writable(&mut self) -> Vec<Slot> {
        self.run();
        std::mem::take(&mut self.writable)
    }
}

/// A shard with a connection that was dialled, as slot 0.
pub(super) fn dialled(setup: &Setup, wire: &Wire) -> Shard {
    let mut shard = setup.shard();
    setup.script.answer(addr(1), wire);
    shard.open(0, addr(1), Opening::Dial);
    assert_eq!(shard.events(), [SenderEvent::Connected(0, None)]);
    shard
}

/// A shard with two connections that were dialled, as slots 0 and 1.
pub(super) fn both_dialled(setup: &Setup, wires: &[Wire; 2]) -> Shard {
    let mut shard = setup.shard();
    for (slot, wire) in [0, 1].into_iter().zip(wires) {
        setup.script.answer(addr(slot as u16), wire);
        shard.open(slot, addr(slot as u16), Opening::Dial);
    }
    assert_eq!(shard.events(), [SenderEvent::Connected(0, None), SenderEvent::Connected(1, None)]);
    shard
}

struct Sink<'a> {
    frames: &'a mut Vec<(SocketAddr, Option<Slot>, Vec<u8>)>,
    room: &'a mut usize,
}

impl ReceiveSink for Sink<'_> {
    fn push(&mut self, from: SocketAddr, slot: Option<Slot>, frame: &[u8]) -> bool {
        assert!(*self.room > 0, "nothing is pushed into a full sink");
        self.frames.push((from, slot, frame.to_vec()));
        *self.room -= 1;
        *self.room > 0
    }
}

/// An address of the test's.
pub(super) fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

/// A frame behind its length.
pub(super) fn framed(frame: impl AsRef<[u8]>) -> Vec<u8> {
    let frame = frame.as_ref();
    let prefix = frame_prefix(frame.len(), usize::MAX).unwrap();
    prefix.iter().chain(frame).copied().collect()
}

pub(super) fn stopped(slot: Slot, cause: StopCause) -> SenderEvent {
    SenderEvent::Stopped(slot, cause)
}

/// Turns in one go; far more than any test needs.
const TURNS_MAX: usize = 10_000;
