//! Whether a text is well-formed XML, as far as drawings need it.

/// Checks that elements nest and close, attributes are quoted and not given twice, and `<` and `&`
/// are escaped; answers the texts.
///
/// # Panics
/// When the text is not well-formed.
#[track_caller]
pub fn check(text: &str) -> Vec<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut texts = Vec::new();
    let mut rest = text.trim_end();
    let mut roots = 0;
    while !rest.is_empty() {
        let Some(tag) = rest.strip_prefix('<') else {
            let end = rest.find('<').unwrap_or(rest.len());
            let words = unescape(&rest[..end]);
            assert!(!open.is_empty() || words.trim().is_empty(), "text outside the root: {words:?}");
            texts.extend((!words.trim().is_empty()).then_some(words));
            rest = &rest[end..];
            continue;
        };
        let end = tag.find('>').unwrap_or_else(|| panic!("a tag that does not end: {tag:.80}"));
        let (tag, after) = (&tag[..end], &tag[end + 1..]);
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes nothing");
            continue;
        }
        let (tag, is_empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let name_end = tag.find(char::is_whitespace).unwrap_or(tag.len());
        attributes(&tag[name_end..]);
        assert!(!tag[..name_end].is_empty() && !tag.contains('<'), "not a tag: <{tag}>");
        roots += usize::from(open.is_empty());
        if !is_empty {
            open.push(&tag[..name_end]);
        }
    }
    assert_eq!((open, roots), (Vec::new(), 1), "one root, and everything closed");
    texts
}

#[track_caller]
fn attributes(mut text: &str) {
    let mut names: Vec<&str> = Vec::new();
    while !text.trim().is_empty() {
        let (name, after) = text.split_once("=\"").unwrap_or_else(|| panic!("not an attribute: {text:?}"));
        let (value, after) = after.split_once('"').unwrap_or_else(|| panic!("no end quote: {after:?}"));
        assert!(name.starts_with(char::is_whitespace), "no space before {name:?}");
        assert!(!names.contains(&name.trim()), "{name:?} twice");
        names.push(name.trim());
        unescape(value);
        text = after;
    }
}

#[track_caller]
fn unescape(text: &str) -> String {
    let mut parts = text.split('&');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (entity, after) = part.split_once(';').unwrap_or_else(|| panic!("a bare & in {text:?}"));
        plain += match entity {
            "amp" => "&",
            "lt" => "<",
            "gt" => ">",
            "quot" => "\"",
            "apos" | "#39" => "'",
            _ => panic!("an entity that is not XML's: &{entity};"),
        };
        plain += after;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn well_formed() {
        assert_eq!(check("<a b=\"1\" c=\"&lt;\"><d/>x &amp; y<e>z</e></a>\n"), ["x & y", "z"]);
    }

    #[test]
    fn not_well_formed() {
        for text in [
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a b=1/>",
            "<a>&</a>",
            "<a>&nbsp;</a>",
            "<a b=\"1\" b=\"2\"/>",
            "x",
        ] {
            assert!(std::panic::catch_unwind(|| check(text)).is_err(), "{text}");
        }
    }
}
