//! Typed payloads: a message made from a value and back, by postcard. Behind the feature `serde`.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::message::NetMessage;

/// A value cannot be a payload, or a payload is not such a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The value cannot be encoded.
    #[error("the value cannot be encoded: {reason}")]
    Encode {
        /// Why, in words.
        reason: String,
    },
    /// The payload is no such value.
    #[error("the payload is no such value: {reason}")]
    Decode {
        /// Why, in words.
        reason: String,
    },
    /// The payload is such a value, and then goes on.
    #[error("{bytes} bytes follow the value")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
}

impl NetMessage {
    /// A message that says this value, in postcard's format.
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use tickcast::direct::NetMessage;
    ///
    /// #[derive(Debug, PartialEq, Serialize, Deserialize)]
    /// struct Order {
    ///     ship: String,
    ///     course: u16,
    /// }
    ///
    /// let order = Order { ship: "Argo".into(), course: 270 };
    /// let message = NetMessage::encode_value(&order)?;
    /// assert_eq!(message.payload.len(), 7);
    /// assert_eq!(message.decode_value::<Order>()?, order);
    /// # Ok::<(), tickcast::direct::ValueError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ValueError::Encode`].
    pub fn encode_value<T: Serialize + ?Sized>(value: &T) -> Result<Self, ValueError> {
        let payload = postcard::to_stdvec(value).map_err(|error| ValueError::Encode { reason: error.to_string() })?;
        Ok(Self::new(payload))
    }

    /// The value that this message says. It may borrow from the payload.
    ///
    /// # Errors
    ///
    /// [`ValueError::Decode`], [`ValueError::TrailingBytes`].
    pub fn decode_value<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ValueError> {
        let (value, rest) = postcard::take_from_bytes(&self.payload)
            .map_err(|error| ValueError::Decode { reason: error.to_string() })?;
        if rest.is_empty() { Ok(value) } else { Err(ValueError::TrailingBytes { bytes: rest.len() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is no such value is told, and so is one that goes on.
    #[test]
    fn what_is_no_such_value_is_told() {
        let message = NetMessage::encode_value(&(7u32, "seven")).unwrap();
        assert_eq!(message.decode_value::<(u32, &str)>(), Ok((7, "seven")));
        assert!(matches!(message.decode_value::<(u32, [u64; 9])>(), Err(ValueError::Decode { .. })));
        assert_eq!(message.decode_value::<u32>(), Err(ValueError::TrailingBytes { bytes: 6 }));
        assert!(matches!(NetMessage::new("").decode_value::<u32>(), Err(ValueError::Decode { .. })));
    }
}
