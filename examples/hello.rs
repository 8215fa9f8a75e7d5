//! The smallest useful program: a server that admits whoever says hello, and a client that is answered.

use std::error::Error;
use std::thread::sleep;
use std::time::Duration;

use tickcast::client::{Client, ClientOptions};
use tickcast::transport::udp::Udp;
use tickcast::{InboundKind, Message, Target, Tickcast};

fn main() -> Result<(), Box<dyn Error>> {
    let mut net = Tickcast::<u64>::builder().build(Udp::bind("127.0.0.1:0".parse()?))?;
    let mut client = Client::connect(net.local_addrs()[0], ClientOptions::default())?;
    client.hello(b"let me in")?;
    let mut answered = false;
    while !answered {
        // One frame: what has come in, what is to go out, and one step that never waits.
        let received: Vec<_> = net.received().collect();
        for hello in received.iter().filter(|received| matches!(received.kind, InboundKind::Hello { .. })) {
            net.admit(1, hello.from)?;
            net.send(Target::Peer(1), Message::new("welcome"))?;
        }
        net.step();
        client.receive(|message| {
            println!("the server says: {}", String::from_utf8_lossy(message.payload));
            answered = true;
        })?;
        sleep(Duration::from_millis(10));
    }
    println!("{}", net.step().legs);
    Ok(())
}
