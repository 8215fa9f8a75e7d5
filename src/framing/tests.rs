//! The format as a whole: the vectors of the documentation, and what must hold for any bytes.

use fastrand::Rng;
use tickcast_sim::seeds::cases;

use super::*;

const EPOCH: u32 = 0xa1b2_c3d4;

const HELLO: &[&str] =
    &["01 01 00 00 d4 c3 b2 a1 01 00 00 00 00 00 00 00", "02 00 00 00 01 00 00 00 00 00 00 00 68 69"];
const CHALLENGE: &[&str] = &[
    "01 04 00 00 d4 c3 b2 a1 00 00 00 00 00 00 00 00",
    "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17",
];
const ECHO: &[&str] = &[
    "01 05 00 00 d4 c3 b2 a1 02 00 00 00 00 00 00 00",
    "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17",
    "02 00 00 00 02 00 00 00 00 00 00 00 68 69",
];
const ONE: &[&str] =
    &["01 00 00 00 d4 c3 b2 a1 03 00 00 00 00 00 00 00", "03 00 03 00 03 00 00 00 00 00 00 00 70 6f 73"];
const TWO: &[&str] = &[
    "01 00 00 00 d4 c3 b2 a1 04 00 00 00 00 00 00 00",
    "00 00 01 00 04 00 00 00 00 00 00 00",
    "01 00 1f 00 05 00 00 00 00 00 00 00 ff",
];
const ACK: &[&str] = &[
    "01 02 00 00 d4 c3 b2 a1 05 00 00 00 00 00 00 00",
    "11 00 00 00 05 00 00 00",
    "01 00 00 01 06 00 00 00 00 00 00 00 21",
];
const ACK_ONLY: &[&str] = &["01 02 00 00 d4 c3 b2 a1 06 00 00 00 00 00 00 00", "06 00 00 00 00 00 00 00"];
const REST: &[&str] = &[
    "01 00 00 00 d4 c3 b2 a1 07 00 00 00 00 00 00 00",
    "00 00 00 00 07 00 00 00 00 00 00 00",
    "00 00 00 03 08 00 00 00 00 00 00 00",
];

/// Goal: the vectors that other implementations test against are the ones that are tested here.
#[test]
fn vectors_are_those_of_the_documentation() {
    for vector in [HELLO, CHALLENGE, ECHO, ONE, TWO, ACK, ACK_ONLY, REST] {
        let text = format!("```text\n//! {}\n//! ```", vector.join("\n//! "));
        assert!(include_str!("mod.rs").contains(&text), "not in the documentation:\n{text}");
    }
}

/// Goal: the encoder writes the vectors, byte for byte, and numbers datagrams and messages from 1.
#[test]
fn encoder_writes_the_vectors() {
    let mut encoder = Encoder::new(EPOCH);
    for (vector, cookie) in [(HELLO, None), (ECHO, Some(&cookie()))] {
        let hello = encoder.hello(b"hi", cookie).unwrap();
        assert_eq!(hello, padded(vector, 0));
    }
    assert_eq!(encoder.message(label(3), b"pos").unwrap(), bytes(ONE));
    assert_eq!(encoder.batch([(label(1), &b""[..]), (label(31), &[0xff])]).unwrap(), bytes(TWO));
    assert_eq!(challenge(EPOCH, &cookie())[..], bytes(CHALLENGE));
    assert_eq!(encoder.acknowledge(AckBlock { sequence: 17, bits: 0b101 }), None);
    assert_eq!(encoder.message_wanting_ack(label(0), b"!").unwrap(), bytes(ACK));
    assert_eq!(encoder.ack(AckBlock { sequence: 6, bits: 0 })[..], bytes(ACK_ONLY));
    assert_eq!(acknowledgement(EPOCH, 6, AckBlock { sequence: 6, bits: 0 })[..], bytes(ACK_ONLY));
    let payload = vec![0xaa; RECORD_LENGTH_MAX + 1];
    let header = RecordHeader { length: payload.len(), wants_ack: true, sequence: 8, ..RecordHeader::default() };
    let empty = RecordHeader { sequence: 7, ..RecordHeader::default() };
    let rest = written(&DatagramHeader::new(EPOCH, 7), &[(empty, Vec::new()), (header, payload.clone())]);
    assert_eq!(rest, with_rest(&payload));
    let mut encoder = encoder.datagram_bytes_max(1 << 20);
    let records = [(label(0), &b""[..]), (label(0), &payload)];
    let mut datagram = encoder.batch(records).unwrap();
    datagram[31] |= 1;
    assert_eq!(datagram, rest, "but for the wish of an acknowledgement");
}

/// Goal: the decoder reads the vectors, down to the place of each payload.
#[test]
fn decoder_reads_the_vectors() {
    let (hello, echo) = (padded(HELLO, 0xee), padded(ECHO, 0xee));
    for (datagram, cookie, record) in
        [(&hello, None, record(1, 0, b"hi", 28)), (&echo, Some(cookie()), record(2, 0, b"hi", 52))]
    {
        let decoded = decode(datagram).unwrap();
        assert_eq!((decoded.is_hello(), decoded.is_challenge(), decoded.header.cookie), (true, false, cookie));
        assert_eq!(decoded.records().collect::<Vec<_>>(), [record], "padding is ignored");
    }

    let challenge = bytes(CHALLENGE);
    let decoded = decode(&challenge).unwrap();
    assert_eq!((decoded.is_hello(), decoded.is_challenge(), decoded.records().len()), (false, true, 0));
    let header = DatagramHeader { flags: Flags::COOKIE, cookie: Some(cookie()), ..DatagramHeader::new(EPOCH, 0) };
    assert_eq!(decoded.header, header);

    let (one, two, ack) = (bytes(ONE), bytes(TWO), bytes(ACK));
    assert_eq!(decode(&one).unwrap().header, DatagramHeader::new(EPOCH, 3));
    assert_eq!(decode(&one).unwrap().records().collect::<Vec<_>>(), [record(3, 3, b"pos", 28)]);
    let records = [record(4, 1, b"", 28), record(5, 31, b"\xff", 40)];
    assert_eq!(decode(&two).unwrap().records().collect::<Vec<_>>(), records);

    let decoded = decode(&ack).unwrap();
    let block = AckBlock { sequence: 17, bits: 0b101 };
    assert_eq!(decoded.header, DatagramHeader { flags: Flags::ACK, ack: Some(block), ..DatagramHeader::new(EPOCH, 5) });
    assert_eq!(decoded.records().collect::<Vec<_>>(), [Record { wants_ack: true, ..record(6, 0, b"!", 36) }]);
    assert_eq!([&decoded.header.encode()[..], &block.encode()].concat(), ack[..24], "headers encode themselves");

    let payload = vec![0xaa; RECORD_LENGTH_MAX + 1];
    let rest = with_rest(&payload);
    let decoded = decode(&rest).unwrap();
    let long = Record { wants_ack: true, ..record(8, 0, &payload, 40) };
    assert_eq!(decoded.records().collect::<Vec<_>>(), [record(7, 0, b"", 28), long]);
    for (vector, wants_ack) in [(bytes(TWO), false), (bytes(ACK), true), (bytes(ACK_ONLY), false), (rest, true)] {
        assert_eq!(decode(&vector).unwrap().wants_ack(), wants_ack);
    }
}

/// Goal: what a version 1 receiver must reject, it rejects for the right reason; what it must ignore, it ignores.
#[test]
fn decode_judges_every_field() {
    let with = |at: usize, byte: u8| {
        let mut datagram = bytes(TWO);
        datagram[at] = byte;
        decode(&datagram).map(|decoded| decoded.records().len())
    };
    for version in (0..=255).filter(|&version| version != VERSION) {
        assert_eq!(with(0, version), Err(DecodeError::UnknownVersion(version)));
    }
    assert_eq!(with(18, 32), Err(DecodeError::LabelOutOfRange(32)));
    for reserved in (0..=255).filter(|flags| flags & !0b11 != 0) {
        assert_eq!(with(31, reserved), Err(DecodeError::ReservedRecordFlags(reserved)), "of the second record");
    }
    assert_eq!(with(31, 1), Ok(2));
    assert_eq!(with(31, 2), Err(DecodeError::RestWithLength(1)));
    assert_eq!(with(19, 2), Err(DecodeError::ShortRest { bytes: 13 }), "of the first record");
    assert_eq!(with(28, 2), Err(DecodeError::Truncated), "a payload that reaches beyond the end");
    assert_eq!(with(28, 0), Err(DecodeError::Truncated), "a payload that ends before the end");
    for reserved in [2, 3, 12, 13, 14, 15] {
        assert_eq!(with(reserved, 0xff), Ok(2), "byte {reserved} is ignored");
    }
    assert_eq!(decode(&[]).unwrap_err(), DecodeError::Truncated);
    assert_eq!(decode(&[7]).unwrap_err(), DecodeError::UnknownVersion(7), "whatever its length");
    assert_eq!(decode(&DatagramHeader::new(1, 1).encode()).unwrap().records().len(), 0, "no records are valid");
    let mut greeting = padded(HELLO, 0);
    (greeting[16], greeting[17]) = (0xff, 0xff);
    assert_eq!(decode(&greeting).unwrap_err(), DecodeError::Truncated, "a greeting that reaches beyond its hello");
}

/// Goal: every combination of flags is either understood, block by block, or rejected by name.
#[test]
fn decode_judges_every_combination_of_flags() {
    for bits in 0..=255 {
        let mut datagram = DatagramHeader::new(EPOCH, 1).encode().to_vec();
        datagram[1] = bits;
        datagram.resize(HELLO_BYTES, 0);
        let verdict = decode(&datagram).map(|decoded| {
            assert_eq!(decoded.header.flags.bits(), bits);
            (decoded.is_hello(), decoded.header.ack.is_some(), decoded.header.cookie.is_some())
        });
        let [hello, ack, cookie] = [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0];
        match bits {
            8.. => assert_eq!(verdict, Err(DecodeError::ReservedFlags(bits))),
            _ if cookie && !hello => assert_eq!(verdict, Err(DecodeError::LongChallenge { bytes: HELLO_BYTES })),
            // 1176 bytes of zeros are 98 empty records; 1184 end within one.
            _ if !hello && ack => assert_eq!(verdict, Ok((false, true, false))),
            _ if !hello => assert_eq!(verdict, Err(DecodeError::Truncated)),
            _ => assert_eq!(verdict, Ok((hello, ack, cookie))),
        }
    }
}

/// Goal: a hello that is shorter than its answer could be is rejected by name, wherever it ends; a longer one is not.
#[test]
fn decode_rejects_every_short_hello() {
    for vector in [HELLO, ECHO] {
        let hello = padded(vector, 0);
        for end in 0..HELLO_BYTES {
            let expected = if end < DATAGRAM_HEADER_BYTES {
                DecodeError::Truncated
            } else {
                DecodeError::ShortHello { bytes: end }
            };
            assert_eq!(decode(&hello[..end]).unwrap_err(), expected);
        }
        for length in [HELLO_BYTES, HELLO_BYTES + 1, DATAGRAM_BYTES_MAX] {
            let mut hello = hello.clone();
            hello.resize(length, 0xee);
            assert_eq!(decode(&hello).unwrap().records().len(), 1);
        }
    }
}

/// Goal: a challenge is a header and a cookie, neither less nor more, not even an acknowledgement.
#[test]
fn decode_rejects_a_challenge_with_anything_else() {
    let mut datagram = bytes(CHALLENGE);
    for length in CHALLENGE_BYTES + 1..=HELLO_BYTES {
        datagram.resize(length, 0);
        assert_eq!(decode(&datagram).unwrap_err(), DecodeError::LongChallenge { bytes: length });
    }
    datagram[1] = (Flags::COOKIE | Flags::ACK).bits();
    datagram.truncate(CHALLENGE_BYTES + ACK_BLOCK_BYTES);
    assert_eq!(decode(&datagram).unwrap_err(), DecodeError::LongChallenge { bytes: datagram.len() });
    datagram.truncate(CHALLENGE_BYTES);
    assert_eq!(decode(&datagram).unwrap_err(), DecodeError::Truncated);
    const { assert!(CHALLENGE_BYTES * 30 == HELLO_BYTES) };
}

/// Goal: no prefix of a valid datagram is taken for the whole, except where a record ends.
#[test]
fn decode_finds_every_truncation() {
    let vectors = [
        (padded(HELLO, 0), vec![HELLO_BYTES]),
        (padded(ECHO, 0), vec![HELLO_BYTES]),
        (bytes(CHALLENGE), vec![CHALLENGE_BYTES]),
        (bytes(ONE), vec![16, 31]),
        (bytes(TWO), vec![16, 28, 41]),
        (bytes(ACK), vec![24, 37]),
    ];
    for (datagram, valid) in vectors {
        let lengths: Vec<usize> = (0..=datagram.len()).filter(|&end| decode(&datagram[..end]).is_ok()).collect();
        assert_eq!(lengths, valid);
    }
}

/// Goal: a payload that takes the rest is longer than a length could say, by one byte at least, and a prefix of it that is
/// still so long is what it seems to be: only the transport knows where a datagram ends.
#[test]
fn decode_knows_how_short_a_rest_may_be() {
    let payload = vec![0xaa; RECORD_LENGTH_MAX + 3];
    let whole = with_rest(&payload);
    for cut in 0..=3 {
        let decoded =
            decode(&whole[..whole.len() - cut]).map(|decoded| decoded.records().last().unwrap().payload.len());
        let bytes = RECORD_LENGTH_MAX + 3 - cut;
        let expected = if cut == 3 { Err(DecodeError::ShortRest { bytes }) } else { Ok(bytes) };
        assert_eq!(decoded, expected);
    }
    let mut with_length = whole;
    with_length[28..30].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(decode(&with_length).unwrap_err(), DecodeError::RestWithLength(0xffff));
}

/// Goal: an acknowledgement waits for a datagram that has room for it, is carried once, costs no message its place, and is
/// not lost if another one takes its place.
#[test]
fn an_acknowledgement_waits_for_room() {
    let mut encoder = Encoder::new(EPOCH);
    let (first, second) = (AckBlock { sequence: 1, bits: 0 }, AckBlock { sequence: 40, bits: 7 });
    assert_eq!((encoder.acknowledge(first), encoder.acknowledge(second)), (None, Some(first)));
    let hello = encoder.hello(b"hi", None).unwrap();
    assert_eq!(decode(&hello).unwrap().header.ack, None);
    for (bytes, ack) in
        [(FRAMED_PAYLOAD_MAX, None), (FRAMED_PAYLOAD_MAX - 7, None), (FRAMED_PAYLOAD_MAX - 8, Some(second))]
    {
        let payload = vec![7; bytes];
        let datagram = encoder.message(label(0), &payload).unwrap();
        let decoded = decode(&datagram).unwrap();
        assert_eq!((decoded.header.ack, decoded.records().next().unwrap().payload), (ack, &payload[..]));
    }
    assert_eq!(decode(&encoder.batch([]).unwrap()).unwrap().header.ack, None, "it has been carried");
}

/// Goal: the limits hold to the byte, and a refusal uses up no sequence.
#[test]
fn encoder_refuses_what_does_not_fit() {
    let mut encoder = Encoder::new(EPOCH);
    let large = vec![7; FRAMED_PAYLOAD_MAX + 1];
    let too_large = |bytes, max| Err(EncodeError::PayloadTooLarge { bytes, max });
    assert_eq!(encoder.message(label(0), &large), too_large(FRAMED_PAYLOAD_MAX + 1, FRAMED_PAYLOAD_MAX));
    for cookie in [None, Some(&cookie())] {
        assert_eq!(encoder.hello(&large[..1149], cookie), too_large(1149, 1148));
    }
    let mut streaming = Encoder::new(EPOCH).datagram_bytes_max(DATAGRAM_HEADER_BYTES + RECORD_HEADER_BYTES + 70_000);
    let long = vec![7; 70_001];
    assert_eq!(streaming.message(label(0), &long), too_large(70_001, 70_000));
    assert_eq!(streaming.batch([(label(0), &long[..66_000]), (label(0), b"")]), too_large(0, 0), "nothing follows");
    assert_eq!(decode(&streaming.message(label(0), &long[1..]).unwrap()).unwrap().header.sequence, 1);
    let full = &large[..FRAMED_PAYLOAD_MAX];
    assert_eq!(encoder.batch([(label(0), full), (label(0), b"")]), too_large(0, 0));

    let datagram = encoder.message(label(0), full).unwrap();
    assert_eq!(datagram.len(), DATAGRAM_BYTES_MAX);
    let decoded = decode(&datagram).unwrap();
    assert_eq!((decoded.header.sequence, decoded.records().next().unwrap()), (1, record(1, 0, full, 28)));
    for cookie in [None, Some(&cookie())] {
        let hello = encoder.hello(&large[..1148], cookie).unwrap();
        assert_eq!(hello.len(), HELLO_BYTES);
        assert_eq!(decode(&hello).unwrap().records().next().unwrap().payload, &large[..1148]);
    }
}

/// Goal: whatever is encoded decodes to itself, with every payload where it is said to be.
#[test]
fn decode_inverts_encode() {
    for_each_seed(|rng| {
        let (header, records, datagram) = random_datagram(rng);
        let decoded = decode(&datagram).unwrap();
        assert_eq!(decoded.header, header);
        let read: Vec<(RecordHeader, &[u8])> = decoded.records().map(|read| (header_of(&read), read.payload)).collect();
        let written: Vec<(RecordHeader, &[u8])> = records.iter().map(|(head, body)| (*head, &body[..])).collect();
        assert_eq!(read, written);
        check_ranges(&datagram);
    });
}

/// Goal: bytes of any origin are judged without a panic, and what is accepted lies within the datagram.
#[test]
fn decode_survives_random_and_mutated_bytes() {
    for_each_seed(|rng| {
        let noise: Vec<u8> = (0..rng.usize(..200)).map(|_| rng.u8(..)).collect();
        check_ranges(&noise);
        let (_, _, mut datagram) = random_datagram(rng);
        for _ in 0..rng.usize(1..8) {
            match rng.u8(..3) {
                0 => datagram.truncate(rng.usize(..=datagram.len())),
                // Flags of a record are rarely hit by chance.
                1 if datagram.len() > 19 && rng.bool() => datagram[19] ^= 1 << rng.u8(..3),
                1 => datagram.push(rng.u8(..)),
                _ if datagram.is_empty() => {}
                _ => {
                    let at = rng.usize(..datagram.len());
                    datagram[at] ^= 1 << rng.u8(..8);
                }
            }
            check_ranges(&datagram);
        }
    });
}

/// Runs a property for many seeds, or for the one in the environment variable `TICKCAST_SEED`. A failure prints its
/// own.
pub(super) fn for_each_seed(property: impl Fn(&mut Rng)) {
    for case in cases(SEEDS) {
        property(&mut case.random());
    }
}

const SEEDS: u64 = 2000;

/// If the bytes are a valid datagram: payloads lie within it, in order, and without a hello nothing is left over. What
/// was read, written again, is what was there, but for what a receiver ignores.
fn check_ranges(datagram: &[u8]) {
    let Ok(decoded) = decode(datagram) else { return };
    let blocks = decoded.header.ack.map_or(0, |_| ACK_BLOCK_BYTES) + decoded.header.cookie.map_or(0, |_| COOKIE_BYTES);
    let mut end = DATAGRAM_HEADER_BYTES + blocks;
    let count = decoded.records().len();
    assert_eq!(decoded.records().count(), count);
    for record in decoded.records() {
        assert_eq!(record.offset, end + RECORD_HEADER_BYTES);
        assert_eq!(&datagram[record.range()], record.payload);
        end = record.range().end;
    }
    assert!(if decoded.is_hello() { count == 1 && datagram.len() >= HELLO_BYTES } else { end == datagram.len() });

    let records: Vec<_> = decoded.records().map(|read| (header_of(&read), read.payload.to_vec())).collect();
    let mut original = datagram[..end].to_vec();
    for ignored in [2, 3, 12, 13, 14, 15] {
        original[ignored] = 0;
    }
    assert_eq!(written(&decoded.header, &records), original);
}

/// The datagram of these parts, without padding.
fn written(header: &DatagramHeader, records: &[(RecordHeader, Vec<u8>)]) -> Vec<u8> {
    let mut datagram = header.encode().to_vec();
    datagram.extend(header.ack.iter().flat_map(AckBlock::encode));
    datagram.extend(header.cookie.iter().flat_map(Cookie::as_bytes));
    for (head, payload) in records {
        datagram.extend(head.encode());
        datagram.extend(payload);
    }
    datagram
}

fn random_datagram(rng: &mut Rng) -> (DatagramHeader, Vec<(RecordHeader, Vec<u8>)>, Vec<u8>) {
    let hello = rng.u8(..4) == 0;
    let cookie = (rng.u8(..4) == 0).then(|| Cookie::from_bytes(std::array::from_fn(|_| rng.u8(..))));
    let challenge = cookie.is_some() && !hello;
    let ack = (rng.bool() && !challenge).then(|| AckBlock { sequence: rng.u32(..), bits: rng.u32(..) });
    let (ack_flag, cookie_flag) = (ack.map(|_| Flags::ACK), cookie.map(|_| Flags::COOKIE));
    let flags = if hello { Flags::HELLO } else { Flags::NONE } | ack_flag.unwrap_or_default();
    let flags = flags | cookie_flag.unwrap_or_default();
    let header = DatagramHeader { flags, epoch: rng.u32(..), sequence: rng.u32(..), ack, cookie };
    let count = if hello { 1 } else { rng.usize(..5) * usize::from(!challenge) };
    let mut records: Vec<(RecordHeader, Vec<u8>)> = (0..count).map(|_| random_record(rng)).collect();
    if let Some((header, payload)) = records.last_mut().filter(|_| !hello && rng.u8(..50) == 0) {
        payload.resize(RECORD_LENGTH_MAX + rng.usize(1..100), rng.u8(..));
        header.length = payload.len();
    }
    let mut datagram = written(&header, &records);
    if hello {
        let padding = rng.u8(..);
        datagram.resize(HELLO_BYTES + rng.usize(..40), padding);
    }
    (header, records, datagram)
}

fn random_record(rng: &mut Rng) -> (RecordHeader, Vec<u8>) {
    let payload: Vec<u8> = (0..rng.usize(..40)).map(|_| rng.u8(..)).collect();
    let length = payload.len();
    (RecordHeader { length, label: label(rng.u8(..32)), wants_ack: rng.bool(), sequence: rng.u64(..) }, payload)
}

fn header_of(record: &Record<'_>) -> RecordHeader {
    let length = record.payload.len();
    RecordHeader { length, label: record.label, wants_ack: record.wants_ack, sequence: record.id.sequence }
}

fn record(sequence: u64, number: u8, payload: &[u8], offset: usize) -> Record<'_> {
    Record { id: MessageId { epoch: EPOCH, sequence }, label: label(number), wants_ack: false, payload, offset }
}

fn label(number: u8) -> Label {
    Label::new(number).unwrap()
}

/// The cookie of the vectors.
fn cookie() -> Cookie {
    Cookie::from_bytes(std::array::from_fn(|n| n as u8))
}

/// A hello as long as it has to be.
fn padded(vector: &[&str], padding: u8) -> Vec<u8> {
    let mut hello = bytes(vector);
    hello.resize(HELLO_BYTES, padding);
    hello
}

/// The vector of a payload that takes the rest, with this one.
fn with_rest(payload: &[u8]) -> Vec<u8> {
    [&bytes(REST)[..], payload].concat()
}

fn bytes(vector: &[&str]) -> Vec<u8> {
    let hex = vector.iter().flat_map(|line| line.split(' '));
    hex.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}
