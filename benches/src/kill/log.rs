//! What a worker tells its parent, through a pipe.
//!
//! ```text
//!   0      1                    9                   17
//!  ├ kind ─┼ key (u64, LE) ─────┼ version (u64, LE) ┤
//! ```
//! A record is written by one system call of fewer bytes than a pipe takes at once, so a killed
//! worker leaves whole records.

use std::io;

/// How a key gets its next version.
///
/// ```
/// use tierce_bench::kill::log::Change;
/// assert_ne!(Change::Insert, Change::Remove);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// By an insert of the value derived from key and version.
    Insert,
    /// By a remove: this version has no value.
    Remove,
}

/// One event of a worker.
///
/// ```
/// use tierce_bench::kill::log::{Change, Record};
/// let record = Record::Started { key: 7, version: 3, change: Change::Insert };
/// assert_eq!(Record::decode(&record.encode()).unwrap(), record);
/// let error = Record::decode(&[9; Record::BYTES]).unwrap_err().to_string();
/// assert_eq!(error, "log record: found kind 9, wanted 0 to 5");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    /// A change is about to begin.
    Started {
        /// Of this key.
        key: u64,
        /// The version it makes.
        version: u64,
        /// What it does.
        change: Change,
    },
    /// The change has returned.
    Acknowledged {
        /// Of this key.
        key: u64,
        /// The version it made.
        version: u64,
    },
    /// A flush is about to begin.
    FlushStarted,
    /// The flush that began last has returned.
    FlushEnded,
    /// A get in mid-run returned what it must not.
    Wrong {
        /// Of this key.
        key: u64,
        /// The key's last version then; 0 if the worker had not changed it yet.
        version: u64,
    },
}

impl Record {
    /// Bytes of an encoded record.
    pub const BYTES: usize = 17;

    /// The record as it goes through the pipe.
    #[must_use]
    pub fn encode(self) -> [u8; Self::BYTES] {
        let (kind, key, version) = match self {
            Self::Started { key, version, change: Change::Insert } => (0, key, version),
            Self::Started { key, version, change: Change::Remove } => (1, key, version),
            Self::Acknowledged { key, version } => (2, key, version),
            Self::FlushStarted => (3, 0, 0),
            Self::FlushEnded => (4, 0, 0),
            Self::Wrong { key, version } => (5, key, version),
        };
        let mut bytes = [0; Self::BYTES];
        bytes[0] = kind;
        bytes[1..9].copy_from_slice(&u64::to_le_bytes(key));
        bytes[9..].copy_from_slice(&u64::to_le_bytes(version));
        bytes
    }

    /// The record that these bytes are.
    ///
    /// # Errors
    /// `InvalidData` if they are none.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> io::Result<Self> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let (key, version) = (word(1), word(9));
        match bytes[0] {
            0 => Ok(Self::Started { key, version, change: Change::Insert }),
            1 => Ok(Self::Started { key, version, change: Change::Remove }),
            2 => Ok(Self::Acknowledged { key, version }),
            3 => Ok(Self::FlushStarted),
            4 => Ok(Self::FlushEnded),
            5 => Ok(Self::Wrong { key, version }),
            kind => {
                let found = format!("log record: found kind {kind}, wanted 0 to 5");
                Err(io::Error::new(io::ErrorKind::InvalidData, found))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        let (key, version) = (u64::MAX - 1, 1 << 40);
        for record in [
            Record::Started { key, version, change: Change::Insert },
            Record::Started { key, version, change: Change::Remove },
            Record::Acknowledged { key, version },
            Record::FlushStarted,
            Record::FlushEnded,
            Record::Wrong { key, version },
        ] {
            assert_eq!(Record::decode(&record.encode()).unwrap(), record);
        }
    }
}
