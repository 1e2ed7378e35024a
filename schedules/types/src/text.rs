//! Texts of others, as messages repeat them.

use std::borrow::Cow;

/// Characters of a name that a message repeats. No name that is known has more.
pub const NAME_SHOWN: usize = 100;
/// Characters of a value that a message repeats: a policy of 60 integers fits in.
pub const VALUE_SHOWN: usize = 240;

/// The beginning of a text, of so many characters, marked if there is more.
pub fn shortened(text: &str, characters: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters) {
        None => text.into(),
        Some((end, _)) => format!("{}... ({} bytes in total)", &text[..end], text.len()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_long_is_shortened() {
        assert_eq!(shortened("Größe", 5), "Größe");
        assert_eq!(shortened("Größe", 4), "Größ... (7 bytes in total)");
        assert_eq!(shortened("", 0), "");
    }
}
