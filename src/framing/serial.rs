//! Serial numbers: which of two sequences comes first, although they wrap (RFC 1982).

/// Half of the sequence space.
pub(crate) const SERIAL_HALF: u32 = 1 << 31;

/// Whether a sequence is behind another. The exact opposite, which RFC 1982 leaves undefined, counts as behind.
pub(crate) const fn is_behind(sequence: u32, other: u32) -> bool {
    sequence.wrapping_sub(other) >= SERIAL_HALF
}
