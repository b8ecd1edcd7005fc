//! Keys and values as bytes.

use std::borrow::Cow;
use std::fmt;

/// A type whose values are stored as bytes.
///
/// Bytes, strings and little-endian integers are at hand; a format of your own, by serde, zerocopy
/// or by hand, is these two functions:
///
/// ```
/// use std::borrow::Cow;
/// use tierce_cache::{BadCode, Code};
///
/// #[derive(Debug, PartialEq)]
/// struct Profile { age: u8, name: String }
///
/// impl Code for Profile {
///     type Owned = Self;
///     fn encode(&self) -> Cow<'_, [u8]> {
///         let mut bytes = vec![self.age];
///         bytes.extend_from_slice(self.name.as_bytes());
///         Cow::Owned(bytes)
///     }
///     fn decode(bytes: Vec<u8>) -> Result<Self, BadCode> {
///         let (&age, name) = bytes.split_first().ok_or(BadCode::new("a profile", &bytes))?;
///         let name = String::from_utf8(name.to_vec()).map_err(|_| BadCode::new("a name", name))?;
///         Ok(Self { age, name })
///     }
/// }
///
/// let profile = Profile { age: 7, name: "Ada".to_owned() };
/// assert_eq!(Profile::decode(profile.encode().into_owned())?, profile);
/// # Ok::<(), BadCode>(())
/// ```
pub trait Code {
    /// What comes back.
    type Owned;

    /// The bytes.
    fn encode(&self) -> Cow<'_, [u8]>;

    /// The value again.
    ///
    /// # Errors
    ///
    /// [`BadCode`] if these bytes are no value.
    fn decode(bytes: Vec<u8>) -> Result<Self::Owned, BadCode>;
}

/// Bytes that are not what they should be.
///
/// ```
/// use tierce_cache::{BadCode, Code};
/// let error = u32::decode(vec![1, 2]).unwrap_err();
/// assert_eq!(error, BadCode::new("4 bytes of an integer", &[1, 2]));
/// assert_eq!(error.to_string(), "found 2 bytes, wanted 4 bytes of an integer");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadCode {
    wanted: &'static str,
    found: usize,
}

impl BadCode {
    /// `bytes` are not `wanted`.
    #[must_use]
    pub const fn new(wanted: &'static str, bytes: &[u8]) -> Self {
        Self { wanted, found: bytes.len() }
    }
}

impl fmt::Display for BadCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "found {} bytes, wanted {}", self.found, self.wanted)
    }
}

impl std::error::Error for BadCode {}

impl Code for [u8] {
    type Owned = Vec<u8>;

    fn encode(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self)
    }

    fn decode(bytes: Vec<u8>) -> Result<Vec<u8>, BadCode> {
        Ok(bytes)
    }
}

impl Code for str {
    type Owned = String;

    fn encode(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.as_bytes())
    }

    fn decode(bytes: Vec<u8>) -> Result<String, BadCode> {
        String::from_utf8(bytes).map_err(|e| BadCode::new("UTF-8", e.as_bytes()))
    }
}

impl Code for Vec<u8> {
    type Owned = Self;

    fn encode(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self)
    }

    fn decode(bytes: Vec<u8>) -> Result<Self, BadCode> {
        Ok(bytes)
    }
}

impl Code for String {
    type Owned = Self;

    fn encode(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.as_bytes())
    }

    fn decode(bytes: Vec<u8>) -> Result<Self, BadCode> {
        str::decode(bytes)
    }
}

macro_rules! integers {
    ($($integer:ty: $wanted:literal),*) => {$(
        impl Code for $integer {
            type Owned = Self;

            fn encode(&self) -> Cow<'_, [u8]> {
                Cow::Owned(self.to_le_bytes().to_vec())
            }

            fn decode(bytes: Vec<u8>) -> Result<Self, BadCode> {
                let whole = <[u8; size_of::<$integer>()]>::try_from(&bytes[..]);
                let bytes = whole.map_err(|_| BadCode::new($wanted, &bytes))?;
                Ok(Self::from_le_bytes(bytes))
            }
        }
    )*};
}

integers!(
    u32: "4 bytes of an integer",
    u64: "8 bytes of an integer",
    u128: "16 bytes of an integer"
);
