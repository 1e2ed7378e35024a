//! Calls of a process, as strace writes them.

/// A call, as strace writes it.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) process: u32,
    pub(super) name: String,
    /// The arguments without texts and paths.
    pub(super) words: Vec<String>,
    /// The texts among them.
    pub(super) texts: Vec<Vec<u8>>,
    /// The paths of its descriptors.
    pub(super) paths: Vec<String>,
    /// What it gave.
    pub(super) result: i64,
    /// The path of the descriptor that it gave.
    pub(super) opened: Option<String>,
}

impl Call {
    /// Reads a call, as `write(5</path>, "text", 4) = 4`, or the beginning of one.
    pub(super) fn read(process: u32, line: &[u8]) -> Call {
        let mut call = Call { process, result: -1, ..Call::default() };
        let Some(open) = line.iter().position(|&byte| byte == b'(') else { return call };
        call.name = String::from_utf8_lossy(&line[..open]).into_owned();
        let (mut at, mut word, mut is_over) = (open + 1, String::new(), false);
        while at < line.len() {
            let byte = line[at];
            at += 1;
            match byte {
                b'"' => {
                    let (text, end) = unescaped(line, at);
                    call.texts.push(text);
                    at = end;
                }
                b'<' if !is_over || word.trim_start_matches([' ', '=']).parse::<i64>().is_ok() => {
                    let end =
                        line[at..].iter().position(|&byte| byte == b'>').map_or(line.len(), |end| at + end);
                    let path = String::from_utf8_lossy(&line[at..end]).into_owned();
                    match is_over {
                        true => call.opened = Some(path),
                        false if word.trim() == "AT_FDCWD" => {}
                        false => call.paths.push(path),
                    }
                    at = end + 1;
                }
                b',' if !is_over => call.words.push(std::mem::take(&mut word)),
                b')' if !is_over => {
                    call.words.push(std::mem::take(&mut word));
                    is_over = true;
                }
                byte => word.push(byte.into()),
            }
        }
        let result = word.trim_start_matches([' ', '=']).split(' ').next();
        call.result = result.and_then(|result| result.parse().ok()).unwrap_or(-1);
        call
    }

    /// Whether it sends to a socket, or a pipe.
    pub(super) fn is_sending(&self) -> bool {
        let is_write = ["write", "writev", "sendto", "sendmsg"].contains(&self.name.as_str());
        is_write
            && self.paths.first().is_some_and(|path| path.starts_with("socket:") || path.starts_with("TCP"))
    }
}

/// The process of a line of a trace, and the rest of it.
fn of_process(line: &[u8]) -> Option<(u32, &[u8])> {
    let space = line.iter().position(|&byte| byte == b' ')?;
    Some((std::str::from_utf8(&line[..space]).ok()?.parse().ok()?, line[space..].trim_ascii_start()))
}

/// Whether the first process of a trace has ended.
pub(super) fn has_ended(text: &[u8]) -> bool {
    let mut lines = text.split(|&byte| byte == b'\n').filter_map(of_process);
    let first = lines.next().map(|(process, _)| process);
    lines.any(|(process, line)| Some(process) == first && line.starts_with(b"+++ "))
}

/// A text from after its quotation mark, and where it has ended.
fn unescaped(line: &[u8], mut at: usize) -> (Vec<u8>, usize) {
    let mut text = Vec::new();
    while at < line.len() && line[at] != b'"' {
        if line[at] != b'\\' {
            text.push(line[at]);
            at += 1;
            continue;
        }
        let escape = line.get(at + 1).copied().unwrap_or_default();
        at += 2;
        text.push(match escape {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'v' => 11,
            b'f' => 12,
            b'0'..=b'7' => {
                let digits = line[at - 1..].iter().take(3).take_while(|digit| (b'0'..=b'7').contains(digit));
                let (count, value) = digits.fold((0, 0u8), |(count, value), digit| {
                    (count + 1, value.wrapping_mul(8).wrapping_add(digit - b'0'))
                });
                at += count - 1;
                value
            }
            other => other,
        });
    }
    (text, at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read() {
        let call =
            Call::read(1, br#"openat(AT_FDCWD</here>, "/a/b", O_RDWR|O_CREAT|O_CLOEXEC, 0666) = 7</a/b>"#);
        assert_eq!((call.name.as_str(), call.result, call.opened.as_deref()), ("openat", 7, Some("/a/b")));
        assert!(call.paths.is_empty() && call.words[2].contains("O_CREAT"));
        let call = Call::read(1, br#"write(7</a/b>, "a\n\"\\\0\3771), = ", 9) = 9"#);
        assert_eq!((call.texts[0].as_slice(), call.result), (&b"a\n\"\\\0\xff1), = "[..], 9));
        assert_eq!(call.paths, ["/a/b"]);
        let call = Call::read(
            1,
            br#"writev(9<socket:[5]>, [{iov_base="HTTP", iov_len=4}, {iov_base="/1.1", iov_len=4}], 2) = 8"#,
        );
        assert!(call.is_sending() && call.texts.concat() == b"HTTP/1.1");
        let call = Call::read(1, br#"rename("/a", "/b") = -1 ENOENT (No such file or directory)"#);
        assert_eq!((call.result, call.texts.len()), (-1, 2));
        let call = Call::read(1, br#"pwrite64(7</a/b>, "x", 1, 40) = 1"#);
        assert_eq!(call.words.last().map(|word| word.trim()), Some("40"));
    }
}
