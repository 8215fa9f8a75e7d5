//! What server and clients say to each other: the payloads of this game's messages.
//!
//! Little-endian throughout. Reading never trusts a length; whoever gets `None` counts a malformed message.

use tickcast::framing::Label;

/// What a client says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FromClient {
    /// How the ship is steered from now on.
    Input(Input),
    /// A word to everyone.
    Chat(String),
    /// The client leaves.
    Goodbye,
    /// The client that was given this token sends from another address now. It is a greeting, since the server must know
    /// that the client is there before it writes to that address.
    Moved { token: u64 },
}

/// How a ship is steered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Input {
    /// From -1 to 1, counter-clockwise.
    pub(crate) turn: f32,
    /// From 0 to 1.
    pub(crate) thrust: f32,
    /// Whether it shoots as soon as it can.
    pub(crate) fires: bool,
}

/// What the server says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FromServer<'a> {
    /// The client is admitted, its ship has this number, and by this token it is known if it moves.
    Welcome { ship: u32, token: u64 },
    /// The ships of one cell.
    Snapshot { tick: u32, cell: u32, ships: u16 },
    /// One ship has shot down another.
    Kill { by: u32, victim: u32 },
    /// A word from another client.
    Chat { from: u32, text: &'a str },
}

/// One ship of a snapshot, in [`SHIP_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ShipState {
    pub(crate) ship: u32,
    pub(crate) x: f32,
    pub(crate) y: f32,
    pub(crate) heading: f32,
}

/// Classes of messages, for statistics.
pub(crate) const WELCOME: Label = label(0);
pub(crate) const SNAPSHOT: Label = label(1);
pub(crate) const KILL: Label = label(2);
pub(crate) const CHAT: Label = label(3);
pub(crate) const INPUT: Label = label(8);

impl FromClient {
    #[expect(clippy::cast_sign_loss, reason = "a thrust is never negative")]
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Input(input) => {
                let turn = ((input.turn * 127.0) as i8).cast_unsigned();
                vec![0, turn, (input.thrust * 255.0) as u8, u8::from(input.fires)]
            }
            Self::Chat(text) => [&[1], text.as_bytes()].concat(),
            Self::Goodbye => vec![2],
            Self::Moved { token } => [&[3][..], &token.to_le_bytes()].concat(),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&kind, body) = bytes.split_first()?;
        match (kind, body) {
            (0, &[turn, thrust, fires]) => {
                let turn = f32::from(turn.cast_signed()) / 127.0;
                Some(Self::Input(Input { turn, thrust: f32::from(thrust) / 255.0, fires: fires != 0 }))
            }
            (1, text) if text.len() <= CHAT_BYTES_MAX => str::from_utf8(text).ok().map(|text| Self::Chat(text.into())),
            (2, []) => Some(Self::Goodbye),
            (3, token) => Some(Self::Moved { token: u64::from_le_bytes(token.try_into().ok()?) }),
            _ => None,
        }
    }
}

impl<'a> FromServer<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (&kind, body) = bytes.split_first()?;
        match kind {
            0 => {
                let (ship, token) = body.split_at_checked(4)?;
                Some(Self::Welcome { ship: word(ship)?, token: u64::from_le_bytes(token.try_into().ok()?) })
            }
            1 => {
                let (tick, rest) = body.split_at_checked(4)?;
                let (cell, rest) = rest.split_at_checked(4)?;
                let (ships, rest) = rest.split_at_checked(2)?;
                let ships = u16::from_le_bytes(ships.try_into().ok()?);
                // What follows the ships is padding.
                let whole = rest.len() >= usize::from(ships) * SHIP_BYTES;
                whole.then_some(Self::Snapshot { tick: word(tick)?, cell: word(cell)?, ships })
            }
            2 => {
                let (by, victim) = body.split_at_checked(4)?;
                Some(Self::Kill { by: word(by)?, victim: word(victim)? })
            }
            3 => {
                let (from, text) = body.split_at_checked(4)?;
                Some(Self::Chat { from: word(from)?, text: str::from_utf8(text).ok()? })
            }
            _ => None,
        }
    }

    /// Everything but a snapshot, whose ships [`encode_snapshot`] takes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match *self {
            Self::Welcome { ship, token } => [&[0][..], &ship.to_le_bytes(), &token.to_le_bytes()].concat(),
            Self::Snapshot { tick, cell, .. } => encode_snapshot(tick, cell, &[], 0),
            Self::Kill { by, victim } => [&[2][..], &by.to_le_bytes(), &victim.to_le_bytes()].concat(),
            Self::Chat { from, text } => [&[3][..], &from.to_le_bytes(), text.as_bytes()].concat(),
        }
    }
}

/// The state of one cell, with `padding` more bytes.
#[expect(clippy::cast_sign_loss, reason = "coordinates and headings are never negative")]
pub(crate) fn encode_snapshot(tick: u32, cell: u32, ships: &[ShipState], padding: usize) -> Vec<u8> {
    let ships = &ships[..ships.len().min(SNAPSHOT_SHIPS_MAX)];
    let mut bytes = Vec::with_capacity(SNAPSHOT_HEADER_BYTES + ships.len() * SHIP_BYTES + padding);
    bytes.push(1);
    bytes.extend_from_slice(&tick.to_le_bytes());
    bytes.extend_from_slice(&cell.to_le_bytes());
    bytes.extend_from_slice(&(ships.len() as u16).to_le_bytes());
    for ship in ships {
        bytes.extend_from_slice(&ship.ship.to_le_bytes());
        for coordinate in [ship.x, ship.y] {
            bytes.extend_from_slice(&((coordinate * COORDINATE_STEPS) as u16).to_le_bytes());
        }
        bytes.push((ship.heading / std::f32::consts::TAU * 256.0) as u8);
    }
    bytes.resize(bytes.len() + padding, 0);
    bytes
}

fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

const fn label(number: u8) -> Label {
    match Label::new(number) {
        Ok(label) => label,
        Err(_) => panic!("labels are small numbers"),
    }
}

/// A longer word to everyone is not passed on.
pub(crate) const CHAT_BYTES_MAX: usize = 200;

/// Kind, tick, cell, number of ships.
const SNAPSHOT_HEADER_BYTES: usize = 11;

/// Number, two coordinates, heading.
const SHIP_BYTES: usize = 9;

/// More ships in one cell are not shown, so that a snapshot is always far below the largest datagram.
const SNAPSHOT_SHIPS_MAX: usize = 2000;

/// Coordinates travel in steps of 1/8.
const COORDINATE_STEPS: f32 = 8.0;
