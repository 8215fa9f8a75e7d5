//! A long time at ten times of what leaves, with everything changing meanwhile, over real sockets: whether memory stays as it is,
//! and what a step costs beside a run without faults.
//!
//! `cargo bench --bench soak` is a minute of it, `-- --minutes 30` as many as are wanted; `-- --test`, or a run without
//! `--bench`, some seconds with few peers, as CI does. A sixth of the time is added before, and again after it, without faults.
//! Linux only.
//!
//! The server is one process with two engines, one over UDP and one over TCP, each stepped 60 times a second, in turn; the
//! readers are another process, as in `tcp` and `udp`. The same messages are offered in every tick of all stretches.
//!
//! *Ten times* means that one leg of ten can leave. Over TCP it is the readers who do not keep up: each takes a tenth of the
//! bytes that it took without faults, and a twentieth of them take none, so that the kernel's buffers are full, then the engine's
//! queues, and the policies drop. Over UDP no reader can hold up a sender; what is too slow there is the way out, and loopback
//! has none: a datagram is delivered before its send returns, and no socket is ever full. So the engine's UDP transport
//! is put behind an uplink that answers as a full socket does once a tenth of the bytes has been sent. What it came to is printed
//! as offered by written legs, once buffers are full.
//!
//! Meanwhile, in each second, one of a hundred peers of either engine changes its address: its reader closes and opens another
//! socket, and the directory says so. As many connections are reset by their readers, as many peers go from one group into the
//! other, and half as many go for two seconds, every other of them removed. All of it at random times. Who was stopped by policy is
//! started again a second later. The host takes all events and receipts in every tick. The books must close in
//! every tick, and after the shutdown at the end every leg and every receipt must have been told.
//!
//! Steps are timed by the clock and by the processor time of the frame thread, since machines are noisy; memory is
//! what the kernel says is resident, once a second, after a warm-up of a tenth of the time.
//!
//! - `servers`: the engines, and what is offered.
//! - `readers`: the second process.
//! - `uplink`: the way out for datagrams.
//! - `churn`: what changes.
//! - `figures`: samples and tables.

#[cfg(target_os = "linux")]
mod churn;
#[cfg(target_os = "linux")]
mod figures;
#[cfg(target_os = "linux")]
mod readers;
#[cfg(target_os = "linux")]
mod servers;
#[cfg(target_os = "linux")]
mod uplink;

#[cfg(target_os = "linux")]
#[path = "../common"]
mod common {
    pub(crate) mod beat;
    pub(crate) mod child;
    pub(crate) mod measure;
    pub(crate) mod once;
    pub(crate) mod payload;
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the processes and their clocks need Linux");
}

#[cfg(target_os = "linux")]
fn main() {
    bench::main();
}

#[cfg(target_os = "linux")]
mod bench {
    use std::thread::sleep;
    use std::time::Duration;

    use tickcast::LegCounts;

    use crate::churn::Churn;
    use crate::common::beat::Beat;
    use crate::common::measure::part;
    use crate::common::{child, once};
    use crate::figures::{Load, Resident, Row, Steps, Trend, print_rows, resident, verdict};
    use crate::readers::{Readers, Sinks};
    use crate::servers::{Kind, Server};

    /// How much of it is done.
    #[derive(Clone, Copy)]
    struct Extent {
        peers: usize,
        /// Of either stretch without faults.
        clean_ticks: usize,
        overloaded_ticks: usize,
        /// Of the overloaded ones, those before memory is looked at.
        warm_ticks: usize,
    }

    impl Extent {
        const ONCE: Self = Self { peers: 16, clean_ticks: 30, overloaded_ticks: 240, warm_ticks: 120 };

        fn of(minutes: usize) -> Self {
            let overloaded_ticks = minutes * 3600;
            let warm_ticks = (overloaded_ticks / 10).max(WARM_TICKS_MIN);
            Self { peers: 500, clean_ticks: overloaded_ticks / 6, overloaded_ticks, warm_ticks }
        }
    }

    pub(super) fn main() {
        if child::run(Sinks::open) {
            return;
        }
        let extent = if once::is_once() { Extent::ONCE } else { Extent::of(minutes()) };
        // Before anything is started: all threads of the server go to its core.
        let core = part();
        let readers = Readers::start(extent.peers, core);
        println!(
            "{} peers of either engine at 60 Hz, {} s overloaded between {} s without faults; {}",
            extent.peers,
            extent.overloaded_ticks / 60,
            extent.clean_ticks / 60,
            if core.is_some() {
                "server on one core, readers on another"
            } else {
                "server and readers share the only core"
            }
        );
        Soak::start(extent, readers).run();
    }

    /// What stands behind `--minutes`; one without.
    fn minutes() -> usize {
        let mut arguments = std::env::args().skip_while(|argument| argument != "--minutes").skip(1);
        arguments.next().map_or(1, |minutes| minutes.parse().expect("--minutes takes a number"))
    }

    /// Both engines and their readers.
    struct Soak {
        extent: Extent,
        servers: [Server; 2],
        readers: Readers,
    }

    /// One stretch of the run.
    struct Stretch {
        title: &'static str,
        steps: [Steps; 2],
        /// Those of its ticks that count, of either engine.
        legs: [LegCounts; 2],
        load: f64,
        late: usize,
    }

    impl Soak {
        fn start(extent: Extent, readers: Readers) -> Self {
            let servers = Kind::ALL.map(|kind| Server::start(kind, extent.peers, &readers));
            Self { extent, servers, readers }
        }

        fn run(mut self) {
            let Extent { peers, clean_ticks, overloaded_ticks, .. } = self.extent;
            // All of it before anything is measured.
            let [before, overloaded, after] =
                [clean_ticks, overloaded_ticks, clean_ticks].map(|ticks| Kind::ALL.map(|_| Steps::new(ticks)));
            for _ in 0..WARM_UP_TICKS {
                for server in &mut self.servers {
                    server.tick();
                }
            }
            let (before, bytes) = self.clean("before", before);
            let mut churn = Churn::new(peers);
            let (overloaded, resident) = self.overloaded(overloaded, &mut churn, bytes);
            self.calm(&mut churn);
            let (after, _) = self.clean("after", after);
            self.servers.iter_mut().for_each(Server::end);

            let stretches = [before, overloaded, after];
            print(&stretches);
            println!("\nsince the start, after the shutdown");
            for server in &self.servers {
                println!("{:<4} {}", server.kind.name(), server.net.report().legs);
                println!("     {:?}", server.heard);
            }
            println!("     {:?}", churn.changes);
            resident.print();
            println!();
            verdicts(&stretches, &resident);
        }

        /// Everybody reads and nothing changes. Answers also how many bytes either engine has written in a second.
        fn clean(&mut self, title: &'static str, steps: [Steps; 2]) -> (Stretch, [u64; 2]) {
            self.servers.iter_mut().for_each(Server::settle);
            self.readers.count_from(self.servers[0].ticks);
            let io = self.servers.each_ref().map(|server| server.net.report().io);
            let ended = self.ended();
            let mut stretch = Stretch { title, steps, legs: self.legs(), load: 0.0, late: 0 };
            let (load, mut beat) = (Load::begin(), Beat::new(2 * 60));
            for _ in 0..self.extent.clean_ticks {
                self.step(&mut beat, &mut stretch.steps);
            }
            stretch.load = load.share();
            stretch.late = beat.late;
            self.servers.iter_mut().for_each(Server::settle);
            stretch.legs = self.legs_since(&stretch.legs);
            self.await_arrival(&stretch.legs, ended);
            let seconds = self.extent.clean_ticks as u64;
            let bytes = [0, 1].map(|index: usize| {
                self.servers[index].net.report().io.since(&io[index]).datagram_bytes * 60 / seconds
            });
            (stretch, bytes)
        }

        /// A tenth of that leaves, and everything changes.
        fn overloaded(&mut self, steps: [Steps; 2], churn: &mut Churn, bytes: [u64; 2]) -> (Stretch, Resident) {
            let Extent { peers, overloaded_ticks, warm_ticks, .. } = self.extent;
            let mut resident_memory = Resident::new((overloaded_ticks - warm_ticks) / 60 + 1);
            self.servers[0].limit(Some(bytes[0] / SHARE));
            self.readers.pace(Some(bytes[1] / SHARE / peers as u64));
            let mut stretch = Stretch { title: "overloaded", steps, legs: self.legs(), load: 0.0, late: 0 };
            let mut trend = Trend::new(&stretch.legs);
            let line_ticks = (overloaded_ticks / LINES).max(LINE_TICKS_MIN);
            let (load, mut beat) = (Load::begin(), Beat::new(2 * 60));
            for tick in 0..overloaded_ticks {
                churn.tick(tick, &mut self.servers, &mut self.readers);
                self.step(&mut beat, &mut stretch.steps);
                if tick == warm_ticks {
                    stretch.legs = self.legs();
                    resident_memory.warm = resident();
                }
                if tick >= warm_ticks && tick % 60 == 0 {
                    resident_memory.samples.push(resident() as f64);
                }
                if (tick + 1) % line_ticks == 0 {
                    trend.print(&self.legs(), &stretch.steps, Kind::ALL.map(Kind::name), resident());
                }
            }
            stretch.load = load.share();
            stretch.late = beat.late;
            stretch.legs = self.legs_since(&stretch.legs);
            for (server, legs) in self.servers.iter().zip(&stretch.legs) {
                assert!(legs.dropped.total() > legs.written, "{:?} is not overloaded: {legs}", server.kind);
            }
            let bytes_max: u64 = self.servers.iter().map(Server::bytes_max).sum();
            let grown = resident_memory.most() - resident_memory.warm as f64;
            assert!(grown <= bytes_max as f64, "memory has grown by {grown} bytes, and queues may have {bytes_max}");
            (stretch, resident_memory)
        }

        /// Ends all faults, and waits until everybody is there and nothing waits.
        fn calm(&mut self, churn: &mut Churn) {
            churn.end(&mut self.servers, &mut self.readers);
            self.servers[0].limit(None);
            self.readers.pace(None);
            self.servers.iter_mut().for_each(Server::settle);
        }

        /// A tick of either engine, half a tick apart, so that none is in the way of the other.
        fn step(&mut self, beat: &mut Beat, steps: &mut [Steps; 2]) {
            for (server, steps) in self.servers.iter_mut().zip(steps) {
                beat.wait();
                steps.add(server.tick());
                beat.end();
            }
        }

        fn legs(&self) -> [LegCounts; 2] {
            self.servers.each_ref().map(|server| server.net.report().legs)
        }

        fn legs_since(&self, earlier: &[LegCounts; 2]) -> [LegCounts; 2] {
            let now = self.legs();
            [now[0].since(&earlier[0]), now[1].since(&earlier[1])]
        }

        /// Everything that was written arrives, once and whole. Where a connection has ended, as one does that a policy stops when
        /// its reader was held up for long, what was written may be lost with it, and what is indeterminate may arrive.
        fn await_arrival(&mut self, legs: &[LegCounts; 2], ended_before: [u64; 2]) {
            let written = legs.map(|legs| legs.written);
            let mut total = self.readers.total();
            for _ in 0..ARRIVAL_LOOKS_MAX {
                if total.messages[0] >= written[0] && total.messages[1] >= written[1] {
                    break;
                }
                sleep(Duration::from_millis(10));
                total = self.readers.total();
            }
            assert_eq!(total.malformed, 0, "every message that arrives is whole");
            let ended = self.ended();
            for kind in Kind::ALL.map(|kind| kind as usize) {
                let (arrived, legs) = (total.messages[kind], &legs[kind]);
                let is_whole = ended[kind] > ended_before[kind] || arrived >= legs.written;
                assert!(is_whole, "{arrived} of what was written without faults have arrived: {legs}");
                let is_once = arrived <= legs.written + legs.indeterminate;
                assert!(is_once, "{arrived} have arrived, which is more than was written: {legs}");
            }
        }

        /// Endpoints of either engine that have ended so far.
        fn ended(&self) -> [u64; 2] {
            self.servers.each_ref().map(|server| server.heard.stopped + server.heard.down)
        }
    }

    /// Prints what the stretches came to, engine by engine.
    fn print(stretches: &[Stretch]) {
        let rows = Kind::ALL.into_iter().flat_map(|kind| {
            stretches.iter().map(move |stretch| Row {
                title: stretch.title,
                name: kind.name(),
                legs: stretch.legs[kind as usize],
                steps: &stretch.steps[kind as usize],
                load: stretch.load,
            })
        });
        print_rows(&rows.collect::<Vec<_>>());
        let late: Vec<String> = stretches.iter().map(|of| format!("{} {}", of.title, of.late)).collect();
        println!("late ticks: {}", late.join(", "));
    }

    /// Prints what was asked for: of the engines, and of the run itself.
    fn verdicts([before, overloaded, after]: &[Stretch; 3], resident: &Resident) {
        for kind in Kind::ALL {
            let (index, name) = (kind as usize, kind.name());
            let factor = overloaded.legs[index].accepted as f64 / overloaded.legs[index].written as f64;
            verdict(&format!("{name}: offered by written legs, at least"), OVERLOAD, factor, factor >= OVERLOAD);
            let clean = before.steps[index].joined(&after.steps[index]).p999();
            let ratios = overloaded.steps[index].p999().into_iter().zip(clean).map(|(with, without)| with / without);
            for (ratio, of) in ratios.zip(["clock", "processor"]) {
                verdict(&format!("{name}: step p99.9 by that without faults, {of}"), 2.0, ratio, ratio <= 2.0);
            }
        }
        let growth = resident.growth() * 100.0;
        verdict("resident memory, most by that after the warm-up, %", 10.0, growth, growth <= 10.0);
    }

    /// Legs offered for each that is written.
    const OVERLOAD: f64 = 10.0;
    /// What part the uplink, or each reader, takes of the bytes that were written without faults: fuller datagrams have fewer headers,
    /// and new connections have empty buffers, so that it is a little more of the legs.
    const SHARE: u64 = 11;
    /// Ticks before the first stretch, which nobody looks at.
    const WARM_UP_TICKS: usize = 60;
    /// Ten seconds.
    const WARM_TICKS_MIN: usize = 600;
    /// Lines of the trend, and how many ticks one has at least.
    const LINES: usize = 20;
    const LINE_TICKS_MIN: usize = 60;
    /// Looks, 10 ms apart, within which what was written must have arrived.
    const ARRIVAL_LOOKS_MAX: usize = 1_000;
}
