//! Text inside markup.

/// A text as it stands in HTML and SVG, between tags and in quotes of either kind.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_a_tag_or_a_value() {
        assert_eq!(escaped("\"><b a='&amp;'>ä"), "&quot;&gt;&lt;b a=&#39;&amp;amp;&#39;&gt;ä");
    }
}
