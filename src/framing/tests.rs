//! The format as a whole: the vectors of the documentation, and what must hold for any bytes.

use fastrand::Rng;

use super::*;

const EPOCH: u32 = 0xa1b2_c3d4;

const HELLO: &[&str] =
    &["01 01 00 00 d4 c3 b2 a1 01 00 00 00 00 00 00 00", "02 00 00 00 01 00 00 00 00 00 00 00 68 69"];
const ONE: &[&str] =
    &["01 00 00 00 d4 c3 b2 a1 02 00 00 00 00 00 00 00", "03 00 03 00 02 00 00 00 00 00 00 00 70 6f 73"];
const TWO: &[&str] = &[
    "01 00 00 00 d4 c3 b2 a1 03 00 00 00 00 00 00 00",
    "00 00 01 00 03 00 00 00 00 00 00 00",
    "01 00 1f 00 04 00 00 00 00 00 00 00 ff",
];
const ACK: &[&str] = &[
    "01 02 00 00 d4 c3 b2 a1 04 00 00 00 00 00 00 00",
    "11 00 00 00 05 00 00 00",
    "01 00 00 01 05 00 00 00 00 00 00 00 21",
];

/// Goal: the vectors that other implementations test against are the ones that are tested here.
#[test]
fn vectors_are_those_of_the_documentation() {
    for vector in [HELLO, ONE, TWO, ACK] {
        let text = format!("```text\n//! {}\n//! ```", vector.join("\n//! "));
        assert!(include_str!("mod.rs").contains(&text), "not in the documentation:\n{text}");
    }
}

/// Goal: the encoder writes the vectors, byte for byte, and numbers datagrams and messages from 1.
#[test]
fn encoder_writes_the_vectors() {
    let mut encoder = Encoder::new(EPOCH);
    let hello = encoder.hello(b"hi").unwrap();
    assert_eq!(hello.len(), HELLO_BYTES);
    let (greeting, padding) = hello.split_at(30);
    assert_eq!(greeting, bytes(HELLO));
    assert!(padding.iter().all(|&byte| byte == 0));
    assert_eq!(encoder.message(label(3), b"pos").unwrap(), bytes(ONE));
    assert_eq!(encoder.batch([(label(1), &b""[..]), (label(31), &[0xff])]).unwrap(), bytes(TWO));
}

/// Goal: the decoder reads the vectors, down to the place of each payload.
#[test]
fn decoder_reads_the_vectors() {
    let mut hello = bytes(HELLO);
    hello.resize(HELLO_BYTES, 0xee);
    let decoded = decode(&hello).unwrap();
    assert!(decoded.is_hello());
    assert_eq!(decoded.records().collect::<Vec<_>>(), [record(1, 0, b"hi", 28)], "padding is ignored");

    let (one, two, ack) = (bytes(ONE), bytes(TWO), bytes(ACK));
    assert_eq!(decode(&one).unwrap().header, DatagramHeader::new(EPOCH, 2));
    assert_eq!(decode(&one).unwrap().records().collect::<Vec<_>>(), [record(2, 3, b"pos", 28)]);
    let records = [record(3, 1, b"", 28), record(4, 31, b"\xff", 40)];
    assert_eq!(decode(&two).unwrap().records().collect::<Vec<_>>(), records);

    let decoded = decode(&ack).unwrap();
    let block = AckBlock { sequence: 17, bits: 0b101 };
    assert_eq!(decoded.header, DatagramHeader { flags: Flags::ACK, ack: Some(block), ..DatagramHeader::new(EPOCH, 4) });
    assert_eq!(decoded.records().collect::<Vec<_>>(), [Record { wants_ack: true, ..record(5, 0, b"!", 36) }]);
    assert_eq!([&decoded.header.encode()[..], &block.encode()].concat(), ack[..24], "headers encode themselves");
}

/// Goal: what a version 1 receiver must reject, it rejects for the right reason; what it must ignore, it ignores.
#[test]
fn decode_judges_every_field() {
    let with = |at: usize, byte: u8| {
        let mut datagram = bytes(TWO);
        datagram[at] = byte;
        decode(&datagram).map(|decoded| decoded.records().len())
    };
    assert_eq!(with(0, 2), Err(DecodeError::UnknownVersion(2)));
    assert_eq!(with(1, 4), Err(DecodeError::ReservedFlags(4)));
    assert_eq!(with(18, 32), Err(DecodeError::LabelOutOfRange(32)));
    assert_eq!(with(31, 2), Err(DecodeError::ReservedRecordFlags(2)), "of the second record");
    assert_eq!(with(28, 2), Err(DecodeError::Truncated), "a payload that reaches beyond the end");
    assert_eq!(with(28, 0), Err(DecodeError::Truncated), "a payload that ends before the end");
    for reserved in [2, 3, 12, 13, 14, 15] {
        assert_eq!(with(reserved, 0xff), Ok(2), "byte {reserved} is ignored");
    }
    assert_eq!(decode(&[]).unwrap_err(), DecodeError::Truncated);
    assert_eq!(decode(&[7]).unwrap_err(), DecodeError::UnknownVersion(7), "whatever its length");
    assert_eq!(decode(&DatagramHeader::new(1, 1).encode()).unwrap().records().len(), 0, "no records are valid");
    let hello = DatagramHeader { flags: Flags::HELLO, ..DatagramHeader::new(1, 1) };
    assert_eq!(decode(&hello.encode()).unwrap_err(), DecodeError::Truncated, "a hello has one record");
}

/// Goal: no prefix of a valid datagram is taken for the whole, except where a record ends.
#[test]
fn decode_finds_every_truncation() {
    for (vector, valid) in [(HELLO, vec![30]), (ONE, vec![16, 31]), (TWO, vec![16, 28, 41]), (ACK, vec![24, 37])] {
        let datagram = bytes(vector);
        let lengths: Vec<usize> = (0..=datagram.len()).filter(|&end| decode(&datagram[..end]).is_ok()).collect();
        assert_eq!(lengths, valid);
    }
}

/// Goal: the limits hold to the byte, and a refusal uses up no sequence.
#[test]
fn encoder_refuses_what_does_not_fit() {
    let mut encoder = Encoder::new(EPOCH);
    let large = vec![7; FRAMED_PAYLOAD_MAX + 1];
    let too_large = |bytes, max| Err(EncodeError::PayloadTooLarge { bytes, max });
    assert_eq!(encoder.message(label(0), &large), too_large(FRAMED_PAYLOAD_MAX + 1, FRAMED_PAYLOAD_MAX));
    assert_eq!(encoder.hello(&large[..1173]), too_large(1173, 1172));
    let full = &large[..FRAMED_PAYLOAD_MAX];
    assert_eq!(encoder.batch([(label(0), full), (label(0), b"")]), too_large(0, 0));

    let datagram = encoder.message(label(0), full).unwrap();
    assert_eq!(datagram.len(), DATAGRAM_BYTES_MAX);
    let decoded = decode(&datagram).unwrap();
    assert_eq!((decoded.header.sequence, decoded.records().next().unwrap()), (1, record(1, 0, full, 28)));
    assert_eq!(encoder.hello(&large[..1172]).unwrap().len(), HELLO_BYTES);
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
    struct PrintOnPanic(u64);
    impl Drop for PrintOnPanic {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("to repeat: TICKCAST_SEED={}", self.0);
            }
        }
    }
    let given = std::env::var("TICKCAST_SEED").ok().map(|text| text.parse().expect("TICKCAST_SEED is a number"));
    for seed in given.map_or(0..SEEDS, |seed: u64| seed..seed + 1) {
        let _print = PrintOnPanic(seed);
        property(&mut Rng::with_seed(seed));
    }
}

const SEEDS: u64 = 2000;

/// If the bytes are a valid datagram: payloads lie within it, in order, and without a hello nothing is left over.
fn check_ranges(datagram: &[u8]) {
    let Ok(decoded) = decode(datagram) else { return };
    let mut end = DATAGRAM_HEADER_BYTES + decoded.header.ack.map_or(0, |_| ACK_BLOCK_BYTES);
    let count = decoded.records().len();
    assert_eq!(decoded.records().count(), count);
    for record in decoded.records() {
        assert_eq!(record.offset, end + RECORD_HEADER_BYTES);
        assert_eq!(&datagram[record.range()], record.payload);
        end = record.range().end;
    }
    assert!(if decoded.is_hello() { count == 1 } else { end == datagram.len() });
}

fn random_datagram(rng: &mut Rng) -> (DatagramHeader, Vec<(RecordHeader, Vec<u8>)>, Vec<u8>) {
    let ack = rng.bool().then(|| AckBlock { sequence: rng.u32(..), bits: rng.u32(..) });
    let hello = rng.u8(..4) == 0;
    let flags = if hello { Flags::HELLO } else { Flags::NONE } | ack.map_or(Flags::NONE, |_| Flags::ACK);
    let header = DatagramHeader { flags, epoch: rng.u32(..), sequence: rng.u32(..), ack };
    let mut datagram = header.encode().to_vec();
    datagram.extend(ack.iter().flat_map(AckBlock::encode));
    let count = if hello { 1 } else { rng.usize(..5) };
    let records: Vec<(RecordHeader, Vec<u8>)> = (0..count).map(|_| random_record(rng)).collect();
    for (head, payload) in &records {
        datagram.extend(head.encode());
        datagram.extend(payload);
    }
    if hello {
        datagram.extend((0..rng.usize(..40)).map(|_| rng.u8(..)));
    }
    (header, records, datagram)
}

fn random_record(rng: &mut Rng) -> (RecordHeader, Vec<u8>) {
    let payload: Vec<u8> = (0..rng.usize(..40)).map(|_| rng.u8(..)).collect();
    let length = payload.len() as u16;
    (RecordHeader { length, label: label(rng.u8(..32)), wants_ack: rng.bool(), sequence: rng.u64(..) }, payload)
}

fn header_of(record: &Record<'_>) -> RecordHeader {
    let length = record.payload.len() as u16;
    RecordHeader { length, label: record.label, wants_ack: record.wants_ack, sequence: record.id.sequence }
}

fn record(sequence: u64, number: u8, payload: &[u8], offset: usize) -> Record<'_> {
    Record { id: MessageId { epoch: EPOCH, sequence }, label: label(number), wants_ack: false, payload, offset }
}

fn label(number: u8) -> Label {
    Label::new(number).unwrap()
}

fn bytes(vector: &[&str]) -> Vec<u8> {
    let hex = vector.iter().flat_map(|line| line.split(' '));
    hex.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}
