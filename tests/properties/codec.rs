//! Datagrams: what was said is what is understood, whole; cut or damaged it is refused, or stays within its bounds.

use fastrand::Rng;
use tickcast::framing::{
    ACK_BLOCK_BYTES, AckBlock, COOKIE_BYTES, Cookie, DATAGRAM_BYTES_MAX, DATAGRAM_HEADER_BYTES, Decoded, EncodeError,
    Encoder, FRAMED_PAYLOAD_MAX, HELLO_BYTES, HELLO_PAYLOAD_MAX, Label, MessageId, RECORD_HEADER_BYTES, challenge,
    decode,
};

use crate::for_each_seed;

/// One message, as its sender has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    label: Label,
    payload: Vec<u8>,
    wants_ack: bool,
}

/// One datagram, and what was put into it.
struct Sent {
    datagram: Vec<u8>,
    messages: Vec<Said>,
    ack: Option<AckBlock>,
    cookie: Option<Cookie>,
}

/// Goal: whatever a sender says, in whatever datagrams, is understood: every message in its order, with its label and under
/// its number, every acknowledgement once. What does not fit is refused, exactly then, and leaves no gap in the numbers.
#[test]
fn what_is_said_is_understood() {
    for_each_seed(400, |rng| {
        let epoch = rng.u32(..);
        let bytes_max = *rng.choice([200, 1200, DATAGRAM_BYTES_MAX].iter()).expect("there are three");
        let mut encoder = Encoder::new(epoch).datagram_bytes_max(bytes_max);
        let (mut datagrams, mut messages) = (0, 0);
        let mut owed = None;
        for _ in 0..rng.usize(1..20) {
            if rng.u8(..3) == 0 {
                let block = AckBlock { sequence: rng.u32(..), bits: rng.u32(..) };
                assert_eq!(encoder.acknowledge(block), owed.replace(block));
            }
            let batch = random_batch(rng, bytes_max);
            let bytes = DATAGRAM_HEADER_BYTES
                + batch.iter().map(|said| RECORD_HEADER_BYTES + said.payload.len()).sum::<usize>();
            let made = match &batch[..] {
                [Said { label, payload, wants_ack: true }] => encoder.message_wanting_ack(*label, payload),
                [Said { label, payload, wants_ack: false }] if rng.bool() => encoder.message(*label, payload),
                batch => encoder.batch(batch.iter().map(|said| (said.label, &said.payload[..]))),
            };
            assert_eq!(made.is_ok(), bytes <= bytes_max, "{bytes} bytes of {bytes_max}");
            let Ok(datagram) = made else { continue };
            let carried = if bytes + ACK_BLOCK_BYTES <= bytes_max { owed.take() } else { None };
            datagrams += 1;
            let decoded = decode(&datagram).expect("what was encoded is valid");
            assert_eq!((decoded.header.epoch, decoded.header.sequence), (epoch, datagrams));
            assert_eq!((decoded.header.ack, decoded.header.cookie), (carried, None));
            assert_eq!(heard(&decoded), batch);
            for record in decoded.records() {
                messages += 1;
                assert_eq!(record.id, MessageId { epoch, sequence: messages });
                assert_eq!(&datagram[record.range()], record.payload);
            }
            assert!(datagram.len() <= bytes_max);
        }
    });
}

/// Goal: the same for greetings, with a cookie and without.
#[test]
fn a_greeting_is_understood() {
    for_each_seed(200, |rng| {
        let epoch = rng.u32(..);
        let cookie = rng.bool().then(|| random_cookie(rng));
        let payload = random_bytes(rng, HELLO_PAYLOAD_MAX + 20);
        let hello = Encoder::new(epoch).hello(&payload, cookie.as_ref());
        if payload.len() > HELLO_PAYLOAD_MAX {
            let refused = EncodeError::PayloadTooLarge { bytes: payload.len(), max: HELLO_PAYLOAD_MAX };
            return assert_eq!(hello, Err(refused));
        }
        let hello = hello.expect("it is not too long");
        assert_eq!(hello.len(), HELLO_BYTES);
        let decoded = decode(&hello).expect("what was encoded is valid");
        assert!(decoded.is_hello() && !decoded.is_challenge() && !decoded.wants_ack());
        assert_eq!((decoded.header.epoch, decoded.header.cookie, decoded.header.ack), (epoch, cookie, None));
        assert_eq!(heard(&decoded), [Said { label: Label::default(), payload, wants_ack: false }]);
    });
}

/// Goal: a datagram that is cut anywhere is refused, or has ended where a message does, and then all that it still says was
/// said.
#[test]
fn no_cut_says_what_was_not_said() {
    for_each_seed(150, |rng| {
        let sent = random_datagram(rng);
        let said = heard(&decode(&sent.datagram).expect("it is whole"));
        for length in 0..sent.datagram.len() {
            let Ok(decoded) = decode(&sent.datagram[..length]) else { continue };
            check_bounds(&sent.datagram[..length], &decoded);
            let heard = heard(&decoded);
            assert!(!decoded.is_hello() && !decoded.is_challenge(), "cut to {length}");
            assert!(said.starts_with(&heard) && heard.len() < said.len(), "cut to {length}");
            let whole =
                blocks(&sent) + heard.iter().map(|said| RECORD_HEADER_BYTES + said.payload.len()).sum::<usize>();
            assert_eq!(length, whole);
        }
    });
}

/// Goal: a datagram of which any one bit is wrong is refused, or all that it says lies within it, one thing behind the
/// other. Where the bit is in a payload, nothing else changes.
#[test]
fn no_wrong_bit_leads_out_of_bounds() {
    for_each_seed(60, |rng| {
        let Sent { mut datagram, messages, .. } = random_datagram(rng);
        let payloads: Vec<_> = decode(&datagram).expect("it is whole").records().map(|record| record.range()).collect();
        for bit in 0..8 * datagram.len() {
            datagram[bit / 8] ^= 1 << (bit % 8);
            let decoded = decode(&datagram);
            if let Ok(decoded) = &decoded {
                check_bounds(&datagram, decoded);
            }
            if let Some(hit) = payloads.iter().position(|payload| payload.contains(&(bit / 8))) {
                let mut expected = messages.clone();
                expected[hit].payload[bit / 8 - payloads[hit].start] ^= 1 << (bit % 8);
                assert_eq!(heard(&decoded.expect("payloads are not judged")), expected, "bit {bit}");
            }
            datagram[bit / 8] ^= 1 << (bit % 8);
        }
    });
}

/// Goal: the same for any damage, however much of it.
#[test]
fn no_damage_leads_out_of_bounds() {
    for_each_seed(20_000, |rng| {
        let mut datagram = random_datagram(rng).datagram;
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(..=datagram.len());
            match rng.u8(..4) {
                0 => datagram.truncate(at),
                1 => datagram.splice(at..at, random_bytes(rng, 30)).for_each(drop),
                _ if at < datagram.len() => datagram[at] = rng.u8(..),
                _ => datagram.push(rng.u8(..)),
            }
        }
        if let Ok(decoded) = decode(&datagram) {
            check_bounds(&datagram, &decoded);
        }
    });
}

/// All that a datagram says lies within it, one thing behind the other, and only a hello has anything left over.
fn check_bounds(datagram: &[u8], decoded: &Decoded<'_>) {
    let header = &decoded.header;
    let blocks = header.ack.map_or(0, |_| ACK_BLOCK_BYTES) + header.cookie.map_or(0, |_| COOKIE_BYTES);
    let mut end = DATAGRAM_HEADER_BYTES + blocks;
    for record in decoded.records() {
        assert_eq!(record.range().start, end + RECORD_HEADER_BYTES);
        assert_eq!(datagram.get(record.range()), Some(record.payload));
        end = record.range().end;
    }
    assert_eq!(decoded.records().count(), decoded.records().len());
    assert!(end == datagram.len() || decoded.is_hello() && end < datagram.len() && decoded.records().len() == 1);
}

fn heard(decoded: &Decoded<'_>) -> Vec<Said> {
    let said = decoded.records().map(|record| {
        let (label, payload, wants_ack) = (record.label, record.payload.to_vec(), record.wants_ack);
        Said { label, payload, wants_ack }
    });
    said.collect()
}

/// Bytes before the first message.
fn blocks(sent: &Sent) -> usize {
    DATAGRAM_HEADER_BYTES + sent.ack.map_or(0, |_| ACK_BLOCK_BYTES) + sent.cookie.map_or(0, |_| COOKIE_BYTES)
}

/// A datagram of any kind.
fn random_datagram(rng: &mut Rng) -> Sent {
    let mut encoder = Encoder::new(rng.u32(..));
    let ack = (rng.bool()).then(|| AckBlock { sequence: rng.u32(..), bits: rng.u32(..) });
    let cookie = rng.bool().then(|| random_cookie(rng));
    let label = Label::default();
    match rng.u8(..10) {
        0 => {
            let payload = random_bytes(rng, 40);
            let datagram = encoder.hello(&payload, cookie.as_ref()).expect("it fits");
            Sent { datagram, messages: vec![Said { label, payload, wants_ack: false }], ack: None, cookie }
        }
        1 => {
            let cookie = random_cookie(rng);
            let datagram = challenge(encoder.epoch(), &cookie).to_vec();
            Sent { datagram, messages: Vec::new(), ack: None, cookie: Some(cookie) }
        }
        2 => {
            let said = Said { label, payload: random_bytes(rng, 40), wants_ack: true };
            let datagram = encoder.message_wanting_ack(label, &said.payload).expect("it fits");
            Sent { datagram, messages: vec![said], ack: None, cookie: None }
        }
        _ => {
            let messages: Vec<Said> = (0..rng.usize(..6)).map(|_| random_message(rng, 40)).collect();
            ack.map(|block| encoder.acknowledge(block));
            let datagram = encoder.batch(messages.iter().map(|said| (said.label, &said.payload[..])));
            Sent { datagram: datagram.expect("it fits"), messages, ack, cookie: None }
        }
    }
}

/// Messages that fit into a datagram, or just do not.
fn random_batch(rng: &mut Rng, bytes_max: usize) -> Vec<Said> {
    if rng.u8(..4) == 0 {
        let most = bytes_max.min(DATAGRAM_BYTES_MAX) - DATAGRAM_HEADER_BYTES - RECORD_HEADER_BYTES;
        let payload = vec![rng.u8(..); (most + 2).min(FRAMED_PAYLOAD_MAX + 2) - rng.usize(..16)];
        return vec![Said { payload, wants_ack: rng.bool(), ..random_message(rng, 1) }];
    }
    (0..rng.usize(..8)).map(|_| random_message(rng, 40)).collect()
}

fn random_message(rng: &mut Rng, bytes_max: usize) -> Said {
    let label = Label::new(rng.u8(..32)).expect("it is below the limit");
    Said { label, payload: random_bytes(rng, bytes_max), wants_ack: false }
}

fn random_cookie(rng: &mut Rng) -> Cookie {
    Cookie::from_bytes(std::array::from_fn(|_| rng.u8(..)))
}

fn random_bytes(rng: &mut Rng, bytes_max: usize) -> Vec<u8> {
    let bytes = rng.usize(..=bytes_max);
    (0..bytes).map(|_| rng.u8(..)).collect()
}
