//! The log of a server: lines on standard error, for which no request ever waits.
//!
//! A thread that logs puts a finished line into a bounded queue, and a thread of its own writes it. A reader that
//! has gone, a full disk, or a pipe that is not read costs lines, which are counted, and nothing else:
//! no thread waits, and nothing panics, as `eprintln!` would.
//!
//! An event is one line, whatever clients put into it: control characters are escaped, and a long line is cut. With
//! `PBA_LOG_FORMAT=json` each line is one JSON object, also what is said before the log is set up, and when the process
//! ends; of one that is too long, the long texts are cut.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::fmt::{self, Display};
use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use serde_json::Value;
use tracing::field::Field;
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::registry::LookupSpan;

use crate::metrics::{LOG_LINES_LOST, PANICS};

/// Lines that wait to be written: a burst of some hundred connections that end at once. With
/// [`LINE_BYTES_MAX`], the log holds at most 16 MiB.
const LINES_MAX: usize = 1024;
/// Longer lines are cut.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Characters to which the texts of a long line of JSON are cut.
const TEXT_MAX: usize = 200;
/// Time that the last lines get when the process ends.
pub(crate) const LAST_LINES: Duration = Duration::from_secs(1);

/// The queue of this process, once it serves.
static QUEUE: OnceLock<Sender<Message>> = OnceLock::new();

enum Message {
    Line(Vec<u8>),
    /// Everything before it has been written when it is dropped.
    Flush(#[expect(dead_code, reason = "it is dropped")] Sender<()>),
}

/// The variable that chooses the format.
pub(crate) const FORMAT: &str = "PBA_LOG_FORMAT";

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

impl Format {
    /// The format that was chosen; text, if what was chosen is none.
    pub(crate) fn chosen() -> Format {
        Format::named(&std::env::var(FORMAT).unwrap_or_default()).unwrap_or(Format::Text)
    }

    /// The one with a name; none has the name of text, too.
    pub(crate) fn named(name: &str) -> Option<Format> {
        match name {
            "json" => Some(Format::Json),
            "text" | "" => Some(Format::Text),
            _ => None,
        }
    }

    /// A line that no event made, as one would look.
    fn line(self, level: Level, message: &str) -> String {
        match self {
            Format::Text if level == Level::ERROR => format!("error: {message}\n"),
            Format::Text => format!("{message}\n"),
            Format::Json => {
                let mut time = String::new();
                // A clock that cannot be read leaves it empty.
                let _ = SystemTime.format_time(&mut Writer::new(&mut time));
                let line = serde_json::json!({
                    "timestamp": time,
                    "level": level.as_str(),
                    "fields": { "message": message },
                    "target": env!("CARGO_CRATE_NAME"),
                });
                format!("{line}\n")
            }
        }
    }
}

/// Where a server's log goes; cheap to clone.
#[derive(Clone)]
pub(crate) struct Log {
    queue: Sender<Message>,
    format: Format,
    /// Whether lines may have colours.
    has_colors: bool,
}

impl Log {
    /// Starts the thread that writes. Call it once.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(format: Format, has_colors: bool) -> io::Result<Log> {
        let queue = start(io::stderr())?;
        let _ = QUEUE.set(queue.clone());
        Ok(Log { queue, format, has_colors })
    }
}

/// The layer that writes events as lines of a format.
pub(crate) fn layer<S>(
    format: Format,
    out: BoxMakeWriter,
    has_colors: bool,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(out);
    match format {
        Format::Json => lines.json().with_span_list(false).boxed(),
        Format::Text => {
            let fields = debug_fn(field).delimited(" ");
            lines.with_target(false).with_ansi(has_colors).fmt_fields(fields).boxed()
        }
    }
}

/// Writes a field in text. A value in which a reader could lose its end is quoted, whichever way it was recorded.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let (name, text) = (field.name(), format!("{value:?}"));
    if name == "message" {
        return writer.write_str(&escaped(&text));
    }
    let (before, between) = match writer.has_ansi_escapes() {
        true => ("\x1b[3m", "\x1b[0m\x1b[2m=\x1b[0m"),
        false => ("", "="),
    };
    let name = name.strip_prefix("r#").unwrap_or(name);
    write!(writer, "{before}{name}{between}")?;
    let is_quoted = text.len() > 1 && text.starts_with('"') && text.ends_with('"');
    match !is_quoted && (text.is_empty() || text.contains(|c: char| c.is_whitespace() || c == '"')) {
        true => write!(writer, "{text:?}"),
        false => writer.write_str(&escaped(&text)),
    }
}

/// A text without control characters.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

/// Has panics logged and counted instead of printed.
pub(crate) fn take_panics() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.inc();
        let thread = std::thread::current();
        let message = panic.payload_as_str().unwrap_or("a value that is no text");
        let place = panic.location().map(ToString::to_string);
        let backtrace = Backtrace::capture();
        let is_wanted = backtrace.status() == BacktraceStatus::Captured;
        tracing::error!(
            thread = thread.name(),
            place,
            backtrace = is_wanted.then(|| tracing::field::display(backtrace)),
            "panicked: {message}"
        );
    }));
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

impl Write for Log {
    /// Takes a whole line, as `tracing_subscriber` writes them. Never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        put(&self.queue, &one_line(line, self.format, self.has_colors), self.format);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says why the command failed, and waits a moment for the last lines of the log. The process must not be
/// kept from ending by the reader of its standard error.
pub(crate) fn last_words(error: impl Display) {
    say(Level::ERROR, error);
    flush();
}

/// The same with a line as it is.
pub(crate) fn last_line(line: impl Display) {
    put_line(&format!("{line}\n"));
    flush();
}

/// Says something on standard error that no filter keeps back.
pub(crate) fn say(level: Level, message: impl Display) {
    put_line(&Format::chosen().line(level, &message.to_string()));
}

fn put_line(line: &str) {
    match QUEUE.get() {
        Some(queue) => put(queue, line.as_bytes(), Format::chosen()),
        // Standard error may be closed or full, which is no reason for another error.
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// A line in which nothing but its end ends it: control characters are escaped, but those of colours where these are
/// seen. The formatter has escaped those that came with values.
fn one_line(line: &[u8], format: Format, has_colors: bool) -> Cow<'_, [u8]> {
    let (text, end) = line.strip_suffix(b"\n").map_or((line, &b""[..]), |text| (text, b"\n"));
    let text = String::from_utf8_lossy(text);
    let is_wrong =
        |c: char| c.is_control() && !(has_colors && c == '\x1b') || matches!(c, '\u{2028}' | '\u{2029}');
    if !text.contains(is_wrong) {
        return Cow::Borrowed(line);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match format {
            _ if !is_wrong(c) => escaped.push(c),
            // None of them is beyond the first 65,536 characters.
            Format::Json => escaped += &format!("\\u{:04x}", u32::from(c)),
            Format::Text => escaped.extend(c.escape_default()),
        }
    }
    Cow::Owned([escaped.as_bytes(), end].concat())
}

/// Waits until everything that was logged is written, but not long.
pub(crate) fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let deadline = Instant::now() + LAST_LINES;
    let (written, is_written) = bounded(0);
    if queue.send_deadline(Message::Flush(written), deadline).is_ok() {
        // Either way nothing is left to do.
        let _ = is_written.recv_deadline(deadline);
    }
}

fn put(queue: &Sender<Message>, line: &[u8], format: Format) {
    let line = match line.get(..LINE_BYTES_MAX) {
        None => line.to_vec(),
        Some(_) if format == Format::Json => cut(line),
        Some(beginning) => [beginning, b"...\n"].concat(),
    };
    if queue.try_send(Message::Line(line)).is_err() {
        LOG_LINES_LOST.inc();
    }
}

/// A line of JSON with its texts cut, or if that is not enough, with its message only: it is still JSON.
fn cut(line: &[u8]) -> Vec<u8> {
    let shorten = |text: &mut String| {
        if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
            text.replace_range(end.., "...");
        }
    };
    let mut line: Value = serde_json::from_slice(line).unwrap_or_default();
    for value in line.as_object_mut().into_iter().flat_map(|line| line.values_mut()) {
        let within = value.as_object_mut().into_iter().flat_map(|fields| fields.values_mut());
        for text in within.filter(|value| value.is_string() || value.is_object() || value.is_array()) {
            match text {
                Value::String(text) => shorten(text),
                nested => {
                    let mut text = nested.to_string();
                    shorten(&mut text);
                    *nested = text.into();
                }
            }
        }
    }
    if line.to_string().len() > LINE_BYTES_MAX {
        line["fields"] = serde_json::json!({ "message": line["fields"]["message"] });
        line["span"] = Value::Null;
    }
    format!("{line}\n").into_bytes()
}

fn start(out: impl Write + Send + 'static) -> io::Result<Sender<Message>> {
    let (queue, lines) = bounded(LINES_MAX);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write(lines, out))?;
    Ok(queue)
}

fn write(lines: Receiver<Message>, mut out: impl Write) {
    let mut told = 0;
    for message in lines {
        let Message::Line(line) = message else { continue };
        if out.write_all(&line).is_err() {
            LOG_LINES_LOST.inc();
            continue;
        }
        // The log is read again: it says what it lacks.
        let lost = LOG_LINES_LOST.get();
        if lost > told {
            tracing::warn!(lines = lost - told, "lines of the log were lost");
            told = lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// A reader that takes one line for each word of permission.
    struct Reader {
        may: Receiver<()>,
        lines: Sender<Vec<u8>>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.may.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.lines.send(line.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_never_waits_and_lost_lines_are_counted() {
        let before = LOG_LINES_LOST.get();
        let (permit, may) = bounded(0);
        let (lines, read) = bounded(2 * LINES_MAX);
        let queue = start(Reader { may, lines }).unwrap();
        // Nothing is read: one line is being written, LINES_MAX wait, and the rest is lost.
        let count = LINES_MAX + 100;
        for number in 0..count {
            put(&queue, format!("{number}\n").as_bytes(), Format::Text);
        }
        let lost = LOG_LINES_LOST.get() - before;
        assert!((99..=100).contains(&lost), "{lost}");
        permit.send(()).unwrap();
        assert_eq!(read.recv().unwrap(), b"0\n");
        put(&queue, &vec![b'x'; 2 * LINE_BYTES_MAX], Format::Text);
        // The reader has gone: all that waits is lost, and so is what comes.
        drop((permit, read));
        while !queue.is_empty() {
            std::thread::yield_now();
        }
        put(&queue, b"the last\n", Format::Text);
        let all = LOG_LINES_LOST.get() - before;
        assert!(all >= lost + LINES_MAX as u64 - 2, "{all}");
    }

    #[test]
    fn an_event_is_one_line() {
        let check = |line: &str, expected: &str| {
            assert_eq!(String::from_utf8_lossy(&one_line(line.as_bytes(), Format::Text, false)), expected);
        };
        check("plain, ü\n", "plain, ü\n");
        check("a\nb\r\n\x1b[2J\u{85}\u{2028}\n", "a\\nb\\r\\n\\u{1b}[2J\\u{85}\\u{2028}\n");
        check("no end\t", "no end\\t");
        assert_eq!(&*one_line(b"\x1b[31mred\x1b[0m\n", Format::Text, true), b"\x1b[31mred\x1b[0m\n");
        let odd = "a\u{7f}b\u{85}c\u{2028}d";
        let line = format!("{{\"field\":\"{odd}\"}}\n");
        let line = one_line(line.as_bytes(), Format::Json, false).into_owned();
        assert_eq!(serde_json::from_slice::<Value>(&line).unwrap()["field"], odd);
        assert!(!String::from_utf8(line).unwrap().contains(['\u{7f}', '\u{85}', '\u{2028}']));
        let line = Format::Json.line(Level::ERROR, "two\nlines \"quoted\"");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((line.lines().count(), &value["fields"]["message"]), (1, &"two\nlines \"quoted\"".into()));
    }

    #[test]
    fn a_value_with_spaces_is_quoted() {
        let (queue, written) = bounded(2);
        let log = Log { queue, format: Format::Text, has_colors: false };
        let lines = layer(Format::Text, BoxMakeWriter::new(log), false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            let _span = tracing::info_span!("request", client = %"user 0, process 7", id = %"a").entered();
            let (text, why) = ("two words", format_args!("signal: 9 (\"KILL\")"));
            tracing::info!(text, %why, number = 1.5, plain = %"127.0.0.1:80", empty = %"", "it \x1b[2J ended");
        });
        let Ok(Message::Line(line)) = written.try_recv() else { panic!("nothing was logged") };
        let line = String::from_utf8(line).unwrap();
        let expected = r#"request{client="user 0, process 7" id=a}: it \u{1b}[2J ended text="two words" why="signal: 9 (\"KILL\")" number=1.5 plain=127.0.0.1:80 empty="""#;
        assert_eq!(line.split_once("INFO ").unwrap().1.trim_end(), expected);
    }

    #[test]
    fn a_panic_is_one_line() {
        for format in [Format::Json, Format::Text] {
            let (queue, written) = bounded(1);
            let log = Log { queue, format, has_colors: false };
            let subscriber =
                tracing_subscriber::registry().with(layer(format, BoxMakeWriter::new(log), false));
            let others = std::panic::take_hook();
            take_panics();
            let before = PANICS.get();
            let caught = tracing::subscriber::with_default(subscriber, || {
                std::panic::catch_unwind(|| panic!("two\nlines"))
            });
            std::panic::set_hook(others);
            assert!(caught.is_err() && PANICS.get() > before);
            let Ok(Message::Line(line)) = written.try_recv() else { panic!("nothing was logged") };
            let line = String::from_utf8(line).unwrap();
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(line.contains("panicked: two\\nlines") && line.contains("log.rs"), "{line}");
            if format == Format::Json {
                let value: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert_eq!(value["level"], "ERROR");
            }
        }
    }

    #[test]
    fn long_lines_are_cut() {
        let (permit, may) = bounded(1);
        let (lines, read) = bounded(1);
        let queue = start(Reader { may, lines }).unwrap();
        put(&queue, &vec![b'x'; 2 * LINE_BYTES_MAX], Format::Text);
        permit.send(()).unwrap();
        let line = read.recv().unwrap();
        assert_eq!((line.len(), line.ends_with(b"x...\n")), (LINE_BYTES_MAX + 4, true));
        // JSON stays JSON.
        let long = "ü".repeat(LINE_BYTES_MAX);
        let many: Vec<_> = (0..LINE_BYTES_MAX).collect();
        for fields in [
            serde_json::json!({ "message": "said", "names": long }),
            serde_json::json!({ "message": "said", "names": [long], "numbers": many }),
            (0..1000)
                .map(|number| (format!("field-{number}"), long.as_str().into()))
                .chain([("message".to_owned(), "said".into())])
                .collect::<serde_json::Map<_, Value>>()
                .into(),
        ] {
            let line = cut(serde_json::json!({ "level": "INFO", "fields": fields }).to_string().as_bytes());
            let value: Value = serde_json::from_slice(&line).unwrap();
            assert!(line.len() <= LINE_BYTES_MAX && line.ends_with(b"\n"), "{}", line.len());
            assert_eq!((&value["level"], &value["fields"]["message"]), (&"INFO".into(), &"said".into()));
        }
    }
}
