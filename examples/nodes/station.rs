//! How a service uses a [`DirectSender`]: channels, and a task that runs it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tickcast::direct::{
    DirectReceiver, DirectSender, IncomingMessage, IncomingSender, NetMessage, NetMetrics, RunReport,
};
use tickcast::transport::tcp::Tcp;
use tickcast::{NetworkConfig, PeerMap};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

use crate::payload::Payload;

/// One address at which a node listens, and from which it sends and answers.
pub(crate) struct Station {
    name: String,
    shutdown: watch::Sender<bool>,
    messages: mpsc::UnboundedSender<(DirectReceiver<String>, NetMessage, Instant)>,
    task: JoinHandle<Result<RunReport, String>>,
}

impl Station {
    /// Listens at an address. What comes goes to `incoming`, with the number of this station.
    pub(crate) fn start(
        name: &str,
        number: usize,
        addr: SocketAddr,
        directory: watch::Receiver<PeerMap<String>>,
        incoming: mpsc::Sender<(usize, IncomingMessage<String>)>,
    ) -> Self {
        let (shutdown, shutdown_rx) = watch::channel(false);
        let config = NetworkConfig {
            // Who starts is found soon: there are few nodes, and they are near.
            resolve_retry_timeout: RETRY_FIRST,
            resolve_retry_max: RETRY_MAX,
            // Whatever is sent to one that has not started waits until it has.
            parked_legs_max: WAITING_MAX,
            parked_bytes_max: WAITING_BYTES_MAX,
            ..NetworkConfig::default()
        };
        let (_, config_rx) = watch::channel(config);
        let (messages, messages_rx) = mpsc::unbounded_channel();
        // Nobody listens to what goes to a bare address, so it is sent from here: answers go back as they came.
        let (outgoing, _) = broadcast::channel(1);
        let (replies, mut arrivals) = mpsc::channel(ARRIVALS_MAX);
        let sender = DirectSender::new(
            shutdown_rx,
            config_rx,
            Tcp::listen(addr),
            Some(NetMetrics::new()),
            messages_rx,
            outgoing,
            IncomingSender::from(replies),
            directory,
        )
        .with_local_id(name.to_owned());
        let task = tokio::spawn(async move { sender.run().await.map_err(|error| error.to_string()) });
        tokio::spawn(async move {
            while let Some(arrival) = arrivals.recv().await {
                if incoming.send((number, arrival)).await.is_err() {
                    return;
                }
            }
        });
        Self { name: name.to_owned(), shutdown, messages, task }
    }

    /// Sends a message to a node, wherever it is.
    pub(crate) fn send(&self, to: &str, payload: Payload) {
        self.submit(DirectReceiver::Peer(to.to_owned()), payload);
    }

    /// Answers over the connection that comes from an address.
    pub(crate) fn answer(&self, to: SocketAddr, payload: Payload) {
        self.submit(DirectReceiver::Addr(to), payload);
    }

    fn submit(&self, to: DirectReceiver<String>, payload: Payload) {
        let message = NetMessage::new(payload.encode(&self.name));
        // A station that has ended for some reason says so when it is closed.
        let _ = self.messages.send((to, message, Instant::now()));
    }

    /// Lets what is there leave, and tells what became of everything.
    pub(crate) async fn close(self) -> Result<RunReport, String> {
        self.shutdown.send_replace(true);
        self.task.await.map_err(|error| error.to_string())?
    }
}

/// The first delay of a backoff, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Messages that may wait for one node, and their bytes.
const WAITING_MAX: usize = 1 << 20;
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Arrivals that wait for the node. Full: the newest is dropped, and counted.
const ARRIVALS_MAX: usize = 65_536;
