//! `pba` in a terminal: `script`, which Debian always has, makes one.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::binary;

/// A terminal of a size.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// What a terminal showed, and how the command in it ended.
#[derive(Debug)]
pub struct Shown {
    /// All that was written to it, with its control sequences.
    pub raw: String,
    /// Exit code.
    pub code: Option<i32>,
}

impl Terminal {
    /// Runs `pba` in a directory with variables, and types `input`.
    ///
    /// # Panics
    /// When `script` does not start.
    pub fn pba(self, directory: &Path, variables: &[(&str, &str)], arguments: &[&str], input: &str) -> Shown {
        let pba = binary::command(directory, arguments);
        let quoted = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
        let words = [pba.get_program()].into_iter().chain(pba.get_args());
        let words: Vec<String> =
            words.map(|word| quoted(word.to_str().expect("arguments are text"))).collect();
        let Terminal { columns, rows } = self;
        let line = format!("stty cols {columns} rows {rows} -echo; exec {}", words.join(" "));
        let mut script = std::process::Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        binary::take_surroundings(&mut script, &pba);
        script.env("TERM", "xterm-256color").env_remove("NO_COLOR").envs(variables.iter().copied());
        let mut script = script
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("script is there: it comes with the system");
        let mut keyboard = script.stdin.take().expect("it is piped");
        keyboard.write_all(input.as_bytes()).expect("it is typed");
        // It stays open: its end would be one of what is typed.
        let output = {
            let output = script.wait_with_output().expect("it ends");
            drop(keyboard);
            output
        };
        Shown { raw: String::from_utf8_lossy(&output.stdout).into_owned(), code: output.status.code() }
    }
}

impl Shown {
    /// The lines without control sequences.
    pub fn lines(&self) -> Vec<String> {
        let mut text = String::new();
        let mut rest = self.raw.chars().peekable();
        while let Some(c) = rest.next() {
            match (c, rest.peek()) {
                // Up to its last letter.
                ('\u{1b}', Some('[')) => {
                    while rest.next().is_some_and(|c| !c.is_ascii_alphabetic() || c == '[') {}
                }
                ('\r', _) => {}
                _ => text.push(c),
            }
        }
        text.lines().map(str::to_owned).collect()
    }
}
