//! The text of a token, and its hash.

use std::borrow::Cow;
use std::fmt;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What each token of `pba token new` begins with, so that people and scanners know one when they see it.
pub(crate) const PREFIX: &str = "pba_";
/// Random bytes of a token.
const RANDOM_BYTES: usize = 32;
/// Hexadecimal digits after the prefix from which on a text is taken for a token: no name that people choose has as many.
const DIGITS_MIN: usize = 32;

/// A new token: `pba_` and 64 hexadecimal digits, 256 bits from the system's random numbers.
///
/// # Errors
/// When the system has none.
pub(crate) fn generate() -> Result<String, getrandom::Error> {
    Ok(format!("{PREFIX}{}", random_digits()?))
}

/// 64 random hexadecimal digits: what a page says once, and is no token.
///
/// # Errors
/// As [`generate`].
pub(crate) fn random_digits() -> Result<String, getrandom::Error> {
    let mut bytes = [0; RANDOM_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(Hash(bytes).to_string())
}

/// Whether a text looks like a token, and not like the hash of one.
pub(crate) fn is_token(text: &str) -> bool {
    text.trim().starts_with(PREFIX)
}

/// A text in which the digits of what looks like a token are hidden.
pub(crate) fn redacted(text: &str) -> Cow<'_, str> {
    let mut shown = Cow::Borrowed("");
    let mut rest = text;
    while let Some(at) = rest.find(PREFIX) {
        let (before, token) = rest.split_at(at + PREFIX.len());
        let end = token.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(token.len());
        shown += before;
        shown += if end >= DIGITS_MIN { "..." } else { &token[..end] };
        rest = &token[end..];
    }
    shown + rest
}

/// The same of the path of an address, in which characters may be encoded.
pub(crate) fn redacted_path(path: &str) -> Cow<'_, str> {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    match redacted(&decoded) {
        Cow::Borrowed(same) if same == decoded => Cow::Borrowed(path),
        hidden if hidden == decoded => Cow::Borrowed(path),
        hidden => Cow::Owned(hidden.into_owned()),
    }
}

/// The SHA-256 of a token. As a token is 256 random bits, nothing slower is needed: there is no guessing one.
#[derive(Clone, Copy)]
pub(crate) struct Hash([u8; 32]);

impl Hash {
    /// The hash of what was presented as a token.
    pub(crate) fn of(token: &[u8]) -> Hash {
        Hash(Sha256::digest(token).into())
    }

    /// Reads 64 hexadecimal digits.
    pub(crate) fn read(text: &str) -> Option<Hash> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok();
        let mut bytes = [0; 32];
        for (at, place) in bytes.iter_mut().enumerate() {
            *place = byte(at)?;
        }
        Some(Hash(bytes))
    }

    /// Its bytes, to compare hashes of the configuration with each other. Those of what clients present are compared in
    /// constant time instead.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl ConstantTimeEq for Hash {
    fn ct_eq(&self, other: &Hash) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// So that no log shows one.
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_random_and_their_hash_is_sha256() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, other);
        assert_eq!((one.len(), is_token(&one)), (4 + 64, true));
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Hash::of(b"abc").to_string(), known);
        assert_eq!(Hash::read(&known.to_uppercase()).unwrap().to_string(), known);
        for wrong in ["", "abc", &known[1..], &format!("{known}0"), &known.replace('7', "g"), &"é".repeat(32)]
        {
            assert!(Hash::read(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_looks_like_a_token_is_hidden() {
        let token = generate().unwrap();
        assert_eq!(redacted(&format!("/x/{token}/y?{token}")), "/x/pba_.../y?pba_...");
        for plain in ["", "/v1/schedules/pba_best", "pba_", "/pba_/pba_0123456789abcdef0123456789abcde"] {
            assert_eq!(redacted(plain), plain);
        }
    }
}
