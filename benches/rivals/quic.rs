//! quinn: QUIC datagrams, sent from the frame's thread and encrypted by tasks of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use tickcast::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::yield_now;

use crate::common::side::Side;
use crate::crowd::{Clients, Crowd, Tally};
use crate::datagrams::socket;

/// Whom the certificate names.
const NAME: &str = "localhost";
/// As many turns as all tasks of a thousand clients need to do what is due.
const TURNS: usize = 256;

/// A server.
pub(crate) struct Quic {
    connections: Vec<Connection>,
    /// The room of a connection that has sent all.
    room: usize,
    endpoint: Endpoint,
    runtime: Runtime,
}

impl Quic {
    pub(crate) fn start(clients: &mut Clients, bytes: usize) -> Self {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a name");
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::with_single_cert(vec![certificate.clone()], key.into()).expect("its own key");
        // One thread, as this engine has.
        let runtime =
            Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread can be started");
        let endpoint = {
            let _inside = runtime.enter();
            Endpoint::server(config, "127.0.0.1:0".parse().expect("an address")).expect("any port")
        };
        clients.open("quinn", bytes, endpoint.local_addr().expect("it is bound"), &to_text(&certificate));
        let number = clients.number();
        let connections: Vec<Connection> = runtime.block_on(async {
            let mut connections = Vec::new();
            while connections.len() < number {
                let incoming = endpoint.accept().await.expect("the endpoint is open");
                connections.push(incoming.await.expect("a client that knows the certificate"));
            }
            connections
        });
        while clients.connected() < number {
            sleep(Duration::from_millis(2));
        }
        let room = connections[0].datagram_send_buffer_space();
        Self { connections, room, endpoint, runtime }
    }
}

impl Side for Quic {
    fn tick(&mut self, payloads: &[Bytes]) {
        for payload in payloads {
            for connection in &self.connections {
                connection.send_datagram(payload.clone()).expect("it is small, and the client is there");
            }
        }
    }

    fn settle(&mut self) {
        while self.connections.iter().any(|connection| connection.datagram_send_buffer_space() < self.room) {
            sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Quic {
    fn drop(&mut self) {
        self.endpoint.close(0u32.into(), b"over");
        self.runtime.block_on(self.endpoint.wait_idle());
    }
}

/// Its clients, each with a socket of its own. Their tasks run when they are swept, so that nobody waits in the kernel.
pub(crate) struct Players {
    runtime: Runtime,
    messages: mpsc::UnboundedReceiver<Bytes>,
    connected: Arc<AtomicUsize>,
}

impl Players {
    pub(crate) fn connect(number: usize, server: SocketAddr, certificate: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(from_text(certificate))).expect("the server's own");
        let config = ClientConfig::with_root_certificates(Arc::new(roots)).expect("a certificate");
        let runtime = Builder::new_current_thread().enable_all().build().expect("no thread of its own");
        let (sender, messages) = mpsc::unbounded_channel();
        let connected = Arc::new(AtomicUsize::new(0));
        for _ in 0..number {
            let (sender, connected, config) = (sender.clone(), Arc::clone(&connected), config.clone());
            runtime.spawn(async move {
                let runtime = Arc::new(TokioRuntime);
                let endpoint =
                    Endpoint::new(EndpointConfig::default(), None, socket(), runtime).expect("a bound socket");
                let connecting = endpoint.connect_with(config, server, NAME).expect("a name");
                let connection = connecting.await.expect("the server is there");
                connected.fetch_add(1, Ordering::Relaxed);
                while let Ok(message) = connection.read_datagram().await {
                    let _ = sender.send(message);
                }
            });
        }
        Self { runtime, messages, connected }
    }
}

impl Crowd for Players {
    fn sweep(&mut self, tally: &mut Tally) {
        self.runtime.block_on(async {
            for _ in 0..TURNS {
                yield_now().await;
            }
        });
        while let Ok(message) = self.messages.try_recv() {
            tally.take(&message);
        }
    }

    fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }
}

/// Bytes, in decimal numbers.
fn to_text(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(",")
}

fn from_text(text: &str) -> Vec<u8> {
    text.split(',').map(|number| number.parse().expect("a byte")).collect()
}
