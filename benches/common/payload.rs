//! What messages consist of, as the server makes and the clients know it.

use tickcast::Bytes;

/// So many bytes, of which the first are given.
pub(crate) fn payload(head: &[u8], bytes: usize) -> Bytes {
    let mut payload = vec![FILL; bytes];
    payload[..head.len()].copy_from_slice(head);
    payload.into()
}

/// Whether this is one of so many bytes; of any number, if that is zero.
pub(crate) fn is_whole(payload: &[u8], bytes: usize) -> bool {
    (bytes == 0 || payload.len() == bytes) && payload.last() == Some(&FILL)
}

const FILL: u8 = 0x5a;
