//! What the corpora begin with: inputs that are valid, and some that just are not.

use std::time::{Duration, SystemTime};

use tickcast::direct::NetMessage;
use tickcast::framing::{
    AckBlock, Cookie, DatagramHeader, Encoder, Flags, RECORD_HEADER_BYTES, RecordHeader, acknowledgement, challenge,
    frame_prefix,
};
use tickcast::{Label, MessageId};

type Seeds = Vec<(&'static str, Vec<u8>)>;

/// The seeds of every target, by name.
pub(crate) fn all() -> [(&'static str, Seeds); 5] {
    [
        ("datagram", datagrams()),
        ("stream", streams()),
        ("cookie", cookies()),
        ("trace", traces()),
        ("envelope", envelopes()),
    ]
}

const EPOCH: u32 = 0xa1b2_c3d4;

fn label(number: u8) -> Label {
    Label::new(number).expect("a label below the limit")
}

/// The padding of a hello is the target's to add: what is said here is that it has to.
fn greeting(payload: &[u8], cookie: Option<&Cookie>) -> Vec<u8> {
    let mut hello = Encoder::new(EPOCH).hello(payload, cookie).expect("it fits");
    hello.truncate(16 + cookie.map_or(0, |_| 24) + RECORD_HEADER_BYTES + payload.len());
    hello[3] = 1;
    hello
}

fn datagrams() -> Seeds {
    let cookie = Cookie::from_bytes(std::array::from_fn(|n| n as u8));
    let block = AckBlock { sequence: 17, bits: 0b101 };
    let mut encoder = Encoder::new(EPOCH);
    let mut encode = |messages: &[(u8, &[u8])]| {
        encoder.batch(messages.iter().map(|&(number, payload)| (label(number), payload))).expect("it fits")
    };
    let nothing = encode(&[]);
    let one = encode(&[(3, b"pos")]);
    let two = encode(&[(1, b""), (31, b"\xff")]);
    let many = encode(&[(0, b"left"), (1, b"right"), (2, b"jump"), (3, &[7; 40])]);
    let mut rest = one.clone();
    rest[2] = 1;
    let long = RecordHeader { length: 65_536, label: label(3), wants_ack: true, sequence: 8 };
    rest.extend(long.encode());
    let mut wanting = Encoder::new(EPOCH);
    let wants_ack = wanting.message_wanting_ack(label(0), b"bought").expect("it fits");
    wanting.acknowledge(block);
    let acknowledges = wanting.message_wanting_ack(label(0), b"!").expect("it fits");
    let all_flags =
        DatagramHeader { flags: Flags::HELLO, ack: Some(block), cookie: Some(cookie), ..DatagramHeader::new(1, 2) };
    let mut whole = all_flags.encode().to_vec();
    whole[3] = 1;
    whole.extend(block.encode());
    whole.extend(cookie.as_bytes());
    whole.extend(RecordHeader { length: 2, ..RecordHeader::default() }.encode());
    whole.extend(b"hi");
    let mut short = greeting(b"hi", None);
    short[3] = 0;
    let mut long_challenge = challenge(EPOCH, &cookie).to_vec();
    long_challenge.push(0);
    vec![
        ("nothing", nothing),
        ("one", one),
        ("two", two),
        ("many", many),
        ("rest", rest),
        ("wants-ack", wants_ack),
        ("acknowledges", acknowledges),
        ("acknowledgement", acknowledgement(EPOCH, 6, block).to_vec()),
        ("hello", greeting(b"hi", None)),
        ("hello-with-cookie", greeting(b"hi", Some(&cookie))),
        ("hello-with-everything", whole),
        ("hello-too-short", short),
        ("challenge", challenge(EPOCH, &cookie).to_vec()),
        ("challenge-too-long", long_challenge),
    ]
}

/// A stream of frames of these lengths behind the two bytes that say how it is read, and where it is cut.
fn stream(cap: u8, cuts: &[u8], lengths: &[usize], tail: &[u8]) -> Vec<u8> {
    let mut input = vec![cap, cuts.len() as u8];
    input.extend(cuts);
    for &length in lengths {
        input.extend(frame_prefix(length, 1 << 20).expect("it is allowed"));
        input.extend((0..length).map(|n| n as u8));
    }
    input.extend(tail);
    input
}

fn streams() -> Seeds {
    vec![
        ("empty", stream(255, &[], &[], &[])),
        ("one", stream(255, &[], &[5], &[])),
        ("three-in-pieces", stream(255, &[3, 1, 7], &[5, 1, 20], &[])),
        ("cut-in-prefixes", stream(255, &[1, 3, 2, 2], &[4, 4, 4, 4], &[])),
        ("pieces-of-nothing", stream(255, &[0, 6, 0, 0], &[9, 9], &[])),
        ("one-that-grows", stream(255, &[1, 2, 4, 8, 16, 32, 64, 128], &[250], &[])),
        ("as-long-as-allowed", stream(39, &[9], &[40, 1, 40], &[])),
        ("longer-than-allowed", stream(39, &[9], &[3, 41], &[])),
        ("length-zero", stream(255, &[], &[3], &[0, 0, 0, 0, 1])),
        ("length-of-a-liar", stream(255, &[2], &[3], &[0, 0, 16, 0, 1, 2, 3])),
        ("length-beyond-all", stream(255, &[], &[], &[255; 9])),
        ("ends-in-a-prefix", stream(255, &[], &[3], &[9, 0])),
        ("ends-in-a-frame", stream(255, &[4], &[3], &[9, 0, 0, 0, 1, 2])),
    ]
}

/// Steps of the target: 0 and 1 let time pass, 2 is a greeting, 3 to 5 echo a cookie.
fn cookies() -> Seeds {
    let hour = 3_600_000_000_000_u64.to_le_bytes();
    let at = |kind: u8, server: u8, rest: &[u8]| [&[kind, server], rest].concat();
    let greet = |server, addr: u8| at(2, server, &[addr, 1, 2]);
    let echo = |server| at(3, server, &[0, 0]);
    vec![
        ("echoed", [greet(0, 0), echo(0)].concat()),
        ("echoed-late", [greet(0, 0), at(0, 0, &[16]), echo(0), at(0, 0, &[16]), echo(0)].concat()),
        ("echoed-to-a-twin", [greet(0, 0), echo(1), at(1, 1, &hour), echo(1)].concat()),
        ("echoed-to-a-stranger", [greet(0, 0), echo(2)].concat()),
        ("from-the-future", [at(1, 0, &hour), greet(0, 3), echo(1), at(1, 1, &hour), echo(1)].concat()),
        ("from-elsewhere", [greet(0, 0), at(3, 0, &[0, 1, 16, 1]), at(3, 0, &[0, 1, 64, 1])].concat()),
        ("from-the-same-in-other-words", [greet(0, 0), at(3, 0, &[0, 1, 1, 1]), at(3, 0, &[0, 1, 0, 1])].concat()),
        ("with-another-epoch", [greet(0, 0), at(3, 0, &[0, 1, 0, 2])].concat()),
        ("changed", [greet(0, 0), at(4, 0, &[0, 9, 1, 0]), at(4, 0, &[0, 1, 1, 0]), at(4, 0, &[0, 9, 0, 0])].concat()),
        ("made-up", at(5, 0, &[[0, 1].as_slice(), &[7; 24]].concat())),
        (
            "over-a-change-of-secrets",
            [at(0, 0, &[95]), greet(0, 0), at(0, 0, &[2]), echo(0), greet(0, 0), echo(1)].concat(),
        ),
        ("greeting-too-long", at(2, 0, &[0, 1, 255])),
        ("end-of-time", [at(1, 0, &[255; 8]), greet(0, 0), echo(0), echo(1), at(1, 0, &[255; 8]), echo(0)].concat()),
    ]
}

fn traces() -> Seeds {
    const HEADER: &str = "t_us,dir,peer,bytes\n";
    let input = |choice: u8, text: &str| [&[choice], text.replace("H\n", HEADER).as_bytes()].concat();
    let mut not_text = input(0, "# fine\n");
    not_text.extend([0xff, 0xfe, b'\n']);
    let mut too_long = input(0, "H\n");
    too_long.resize(too_long.len() + 4097, b'#');
    vec![
        ("two", input(3, "H\n0,c,0,48\n174,s,0,47\n")),
        ("comments", input(7, "# tickcast trace v1\nH\n0,c,0,48\n# between\n10,s,3,65507\n10,s,65535,1")),
        ("line-ends-of-windows", input(0, "# v1\r\nt_us,dir,peer,bytes\r\n0,c,0,48\r\n")),
        ("empty", input(0, "")),
        ("only-comments", input(0, "# only\n# comments\n")),
        ("no-datagram", input(0, "H\n# no more\n")),
        ("too-few-fields", input(1, "H\n0,c,0,48\n0,c,0\n")),
        ("too-many-fields", input(0, "H\n0,c,0,48,1\n")),
        ("no-number", input(0, "H\n0,c,0,48\nx,c,0,48\n")),
        ("largest-number", input(0, "H\n18446744073709551615,c,0,48\n18446744073709551616,c,0,48\n")),
        ("peer-too-large", input(0, "H\n0,c,65536,48\n")),
        ("size-too-large", input(0, "H\n0,s,0,65508\n")),
        ("no-direction", input(0, "H\n0,x,0,48\n")),
        ("backwards", input(1, "H\n5,c,0,48\n# later\n4,c,0,48\n0,c,0,48\n")),
        ("no-text", not_text),
        ("line-too-long", too_long),
        ("line-without-end", input(255, "H\n0,c,0,4")),
    ]
}

/// An envelope behind the two bytes that say how long a payload may be.
fn envelopes() -> Seeds {
    let input = |max: u16, envelope: &[u8]| [&max.to_le_bytes(), envelope].concat();
    let message = |payload: &[u8]| {
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let message = NetMessage::new(payload.to_vec()).id(MessageId { epoch: EPOCH, sequence: 7 });
        message.label(label(3)).started_at(began).encode().expect("it fits").to_vec()
    };
    let hi = message(b"hi");
    let with = |at: usize, byte: u8| {
        let mut envelope = hi.clone();
        envelope[at] = byte;
        input(100, &envelope)
    };
    // One LZ4 block: a seven, then a match of the byte before, 399 bytes long, and the five literals of every end.
    let block = [0x1f, 7, 1, 0, 255, 120, 0x50, 7, 7, 7, 7, 7];
    let compressed = |bytes: u32| {
        let mut envelope = hi[..28].to_vec();
        envelope[1] = 1;
        envelope[24..28].copy_from_slice(&bytes.to_le_bytes());
        envelope.extend(block);
        envelope
    };
    vec![
        ("hi", input(100, &hi)),
        ("nothing", input(0, &message(b""))),
        ("as-long-as-allowed", input(40, &message(&[7; 40]))),
        ("longer-than-allowed", input(39, &message(&[7; 40]))),
        ("payload-to-compress", input(0xffff, &message(&[7; 300]))),
        ("another-version", with(0, 2)),
        ("unknown-flags", with(1, 2)),
        ("label-out-of-range", with(2, 32)),
        ("shorter-than-it-is", with(24, 1)),
        ("longer-than-it-is", with(24, 3)),
        ("length-of-a-liar", with(27, 255)),
        ("latest-time", with(23, 255)),
        ("header-cut", input(100, &hi[..27])),
        ("compressed", input(0xffff, &compressed(400))),
        ("compressed-says-less", input(0xffff, &compressed(399))),
        ("compressed-says-more", input(0xffff, &compressed(401))),
        ("compressed-says-too-much", input(0xffff, &compressed(1 << 20))),
    ]
}
