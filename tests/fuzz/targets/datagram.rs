//! A datagram of any bytes: it is accepted exactly if the documented format says so, and means what it said.
//!
//! A receiver ignores byte 2 and byte 3 of a datagram. Here they stand for bytes that an input need not hold: with byte 2 set,
//! 64 KiB more follow; with byte 3 set, what is shorter than a hello is padded to the length of one.

use std::ops::Range;

use allocation_counter::measure;
use tickcast::framing::{
    ACK_BLOCK_BYTES, AckBlock, CHALLENGE_BYTES, COOKIE_BYTES, Cookie, DATAGRAM_HEADER_BYTES, DecodeError, Decoded,
    Encoder, Flags, HELLO_BYTES, RECORD_HEADER_BYTES, RECORD_LENGTH_MAX, RecordHeader, decode,
};

/// Judges one input.
pub(crate) fn run(input: &[u8]) {
    check(input);
    let mut longer = input.to_vec();
    if input.get(2).is_some_and(|&byte| byte != 0) {
        longer.resize(input.len() + RECORD_LENGTH_MAX + 1, 0xaa);
        check(&longer);
    }
    if input.get(3).is_some_and(|&byte| byte != 0) {
        longer.resize(HELLO_BYTES.max(input.len()), 0);
        check(&longer);
    }
}

fn check(datagram: &[u8]) {
    let walked = measure(|| {
        let payloads =
            decode(datagram).map(|decoded| decoded.records().map(|record| record.payload.len()).sum::<usize>());
        assert!(payloads.is_ok_and(|bytes| bytes <= datagram.len()) || decode(datagram).is_err());
    });
    assert_eq!(walked.count_total, 0, "decoding allocates nothing");
    match (decode(datagram), payloads_as_documented(datagram)) {
        (Ok(decoded), Some(payloads)) => check_accepted(datagram, &decoded, &payloads),
        (Err(error), None) => check_rejected(datagram, error),
        (verdict, documented) => panic!("{verdict:?}, and by the documents {documented:?}"),
    }
}

/// The documented format, read naively: where the payloads of a valid datagram lie.
fn payloads_as_documented(datagram: &[u8]) -> Option<Vec<Range<usize>>> {
    let (version, flags) = (*datagram.first()?, *datagram.get(1)?);
    let [hello, ack, cookie] = [1, 2, 4].map(|bit| flags & bit != 0);
    let mut at = 16 + if ack { 8 } else { 0 } + if cookie { 24 } else { 0 };
    if version != 1 || flags > 7 || datagram.len() < at || hello && datagram.len() < 1200 {
        return None;
    }
    if cookie && !hello {
        return (!ack && datagram.len() == 40).then(Vec::new);
    }
    let mut payloads = Vec::new();
    while at < datagram.len() || hello {
        let record = datagram.get(at..at + 12)?;
        let length = usize::from(record[0]) + 256 * usize::from(record[1]);
        at += 12;
        let end = match record[3] & 2 != 0 {
            false => at + length,
            true if length == 0 && datagram.len() - at > 65_535 => datagram.len(),
            true => return None,
        };
        if record[2] > 31 || record[3] > 3 || end > datagram.len() {
            return None;
        }
        payloads.push(at..end);
        at = end;
        if hello {
            break;
        }
    }
    Some(payloads)
}

fn check_accepted(datagram: &[u8], decoded: &Decoded<'_>, payloads: &[Range<usize>]) {
    let header = &decoded.header;
    let ranges: Vec<Range<usize>> = decoded.records().map(|record| record.range()).collect();
    assert_eq!(ranges, payloads);
    assert_eq!(decoded.records().len(), payloads.len());
    assert_eq!(decoded.wants_ack(), decoded.records().any(|record| record.wants_ack));
    assert_eq!(decoded.is_hello(), header.flags.contains(Flags::HELLO));
    assert_eq!(decoded.is_challenge(), header.cookie.is_some() && !decoded.is_hello());

    let mut written = header.encode().to_vec();
    written.extend(header.ack.iter().flat_map(AckBlock::encode));
    written.extend(header.cookie.iter().flat_map(Cookie::as_bytes));
    for record in decoded.records() {
        assert_eq!(record.id.epoch, header.epoch);
        assert_eq!(record.payload, &datagram[record.range()]);
        let (length, sequence) = (record.payload.len(), record.id.sequence);
        let (label, wants_ack) = (record.label, record.wants_ack);
        written.extend(RecordHeader { length, label, wants_ack, sequence }.encode());
        written.extend(record.payload);
    }
    assert!(written.len() == datagram.len() || decoded.is_hello(), "without a hello, nothing is left over");
    let mut read = datagram[..written.len()].to_vec();
    for ignored in [2, 3, 12, 13, 14, 15] {
        read[ignored] = 0;
    }
    assert_eq!(written, read, "what was understood is what was there");
    check_encoder(decoded);
}

/// Whoever sends the same messages anew, says the same.
fn check_encoder(decoded: &Decoded<'_>) {
    let messages = || decoded.records().map(|record| (record.label, record.payload));
    let mut encoder = Encoder::new(decoded.header.epoch).datagram_bytes_max(usize::MAX);
    let again = match messages().next().filter(|_| decoded.is_hello()) {
        // A greeting has no label of its own, and room for so much only.
        Some((label, payload)) if label.number() == 0 => encoder.hello(payload, decoded.header.cookie.as_ref()),
        Some(_) => return,
        None => encoder.batch(messages()),
    };
    let Ok(again) = again else {
        return assert!(
            decoded.is_hello() && messages().any(|(_, payload)| payload.len() > 1148),
            "it has been sent before"
        );
    };
    let said = decode(&again).expect("what an encoder has made is valid");
    assert!(said.records().map(|record| (record.label, record.payload)).eq(messages()));
}

/// A reason has to be true of the datagram.
fn check_rejected(datagram: &[u8], error: DecodeError) {
    let byte = |at: usize| datagram.get(at).copied();
    let flags = byte(1).unwrap_or_default();
    let blocks = if flags & 2 != 0 { ACK_BLOCK_BYTES } else { 0 } + if flags & 4 != 0 { COOKIE_BYTES } else { 0 };
    let records = datagram.get(DATAGRAM_HEADER_BYTES + blocks..).unwrap_or_default();
    let is_true = match error {
        DecodeError::UnknownVersion(version) => byte(0) == Some(version) && version != 1,
        DecodeError::ReservedFlags(bits) => bits == flags && bits > 7,
        DecodeError::ShortHello { bytes } => bytes == datagram.len() && bytes < HELLO_BYTES && flags & 1 != 0,
        DecodeError::LongChallenge { bytes } => bytes == datagram.len() && bytes > CHALLENGE_BYTES && flags & 5 == 4,
        DecodeError::Truncated => {
            datagram.len() < DATAGRAM_HEADER_BYTES + blocks || !records.is_empty() || flags & 1 != 0
        }
        DecodeError::ReservedRecordFlags(bits) => bits > 3 && records.contains(&bits),
        DecodeError::LabelOutOfRange(label) => label > 31 && records.contains(&label),
        DecodeError::RestWithLength(length) => {
            length != 0 && records.windows(2).any(|bytes| bytes == length.to_le_bytes().as_slice())
        }
        DecodeError::ShortRest { bytes } => bytes <= RECORD_LENGTH_MAX && bytes + RECORD_HEADER_BYTES <= records.len(),
        _ => false,
    };
    assert!(is_true, "{error}: {datagram:02x?}");
}
