//! What nodes say to each other: a number, or that one has arrived.

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// A numbered message.
    Number(u64),
    /// That this number has arrived.
    Answer(u64),
}

impl Payload {
    /// As bytes: a kind, the sender's name, a number.
    pub(crate) fn encode(self, from: &str) -> Vec<u8> {
        let (kind, number) = match self {
            Self::Number(number) => (0, number),
            Self::Answer(number) => (1, number),
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(from.as_bytes());
        bytes
    }

    /// From bytes: what is said, and by whom. `None` if it makes no sense.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, &str)> {
        let (&kind, rest) = bytes.split_first()?;
        let (number, from) = rest.split_first_chunk::<8>()?;
        let number = u64::from_le_bytes(*number);
        let payload = match kind {
            0 => Self::Number(number),
            1 => Self::Answer(number),
            _ => return None,
        };
        Some((payload, str::from_utf8(from).ok()?))
    }
}
