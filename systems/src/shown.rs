//! Ids as logs show them: a host's `Display` may say nothing, a kilobyte, or a line's end.

use std::fmt::{self, Display, Write};

/// Bytes of an id that a log line shows; what is longer ends in `…`.
pub const SHOWN_BYTES_MAX: usize = 64;

/// Shows what a host calls a peer: shortened, without control characters, and never as nothing.
///
/// ```
/// use tickcast_systems::shown::Shown;
///
/// assert_eq!(Shown(&"ship-1").to_string(), "ship-1");
/// assert_eq!(Shown(&"").to_string(), "''");
/// assert_eq!(Shown(&"two\nlines").to_string(), "two\\nlines");
/// ```
pub struct Shown<'a, T: ?Sized>(pub &'a T);

impl<T: Display + ?Sized> Display for Shown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut short = Short { out: f, left: SHOWN_BYTES_MAX, is_cut: false };
        // Cut off, it answers with an error, so that what is endless ends.
        let result = write!(short, "{}", self.0);
        let (left, is_cut) = (short.left, short.is_cut);
        match () {
            () if is_cut => f.write_str("…"),
            () if left == SHOWN_BYTES_MAX => f.write_str("''"),
            () => result,
        }
    }
}

impl<T: Display + ?Sized> fmt::Debug for Shown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

/// Passes on what there is room for.
struct Short<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    left: usize,
    is_cut: bool,
}

impl Write for Short<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|char| self.write_char(char))
    }

    fn write_char(&mut self, char: char) -> fmt::Result {
        let bytes = if char.is_control() { char.escape_default().len() } else { char.len_utf8() };
        if self.is_cut || bytes > self.left {
            self.is_cut = true;
            return Err(fmt::Error);
        }
        self.left -= bytes;
        if char.is_control() { write!(self.out, "{}", char.escape_default()) } else { self.out.write_char(char) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whatever an id says of itself, a line shows some of it, at most so many bytes, on one line.
    #[test]
    fn an_id_is_shown_short_and_on_one_line() {
        let long = "é".repeat(1000);
        let shown = Shown(&long).to_string();
        assert_eq!((shown.len(), shown.ends_with("é…")), (SHOWN_BYTES_MAX + "…".len(), true));
        assert_eq!(Shown(&"x".repeat(SHOWN_BYTES_MAX)).to_string(), "x".repeat(SHOWN_BYTES_MAX));
        assert_eq!(Shown(&format!("{}y", "x".repeat(SHOWN_BYTES_MAX))).to_string(), "x".repeat(SHOWN_BYTES_MAX) + "…");
        assert_eq!(Shown(&"\u{1b}[2J\r\n").to_string(), "\\u{1b}[2J\\r\\n");
        assert_eq!(Shown("").to_string(), "''");
    }

    /// Goal: an id that never ends does not keep the tick.
    #[test]
    fn an_endless_id_is_cut_off() {
        struct Endless;
        impl Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("on and ")?;
                }
            }
        }
        assert!(Shown(&Endless).to_string().starts_with("on and on and "));
    }
}
