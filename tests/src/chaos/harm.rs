//! What a fault did.

use std::fmt;

/// A column of the table that has to be zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Column {
    /// A sample did not come, and there was no error; or an epoch that had to be continued was not.
    Lost,
    /// A sample came twice.
    Repeated,
    /// A sample came with other pixels, or another label, than the library makes.
    WrongPixels,
    /// Something that had to end did not, within a minute.
    Hung,
    /// A process ended that had to live on, or a server did not come back.
    Dead,
    /// A change that was acknowledged was not there later.
    Undone,
    /// Anything else that must not be, as a result that differs without a word.
    Other,
}

impl Column {
    /// All, in the order of the table.
    pub const ALL: [Column; 7] = [
        Column::Lost,
        Column::Repeated,
        Column::WrongPixels,
        Column::Hung,
        Column::Dead,
        Column::Undone,
        Column::Other,
    ];

    /// Its heading.
    pub fn heading(self) -> &'static str {
        match self {
            Column::Lost => "lost",
            Column::Repeated => "repeated",
            Column::WrongPixels => "wrong pixels",
            Column::Hung => "hung",
            Column::Dead => "dead",
            Column::Undone => "acknowledged change lost",
            Column::Other => "other harm",
        }
    }
}

/// Harm that was done.
#[derive(Clone, Debug)]
pub struct Harm {
    /// What kind of it.
    pub column: Column,
    /// What was seen.
    pub seen: String,
}

impl Harm {
    pub(crate) fn new(column: Column, seen: impl fmt::Display) -> Harm {
        // On one line, of a length that is read.
        let seen = seen.to_string().replace(&*crate::repository("").to_string_lossy(), "");
        let words: Vec<&str> = seen.split_whitespace().collect();
        Harm { column, seen: words.join(" ").chars().take(500).collect() }
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.column.heading(), self.seen)
    }
}

/// How a fault ended that did no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Survived {
    /// As if nothing had happened.
    Unnoticed,
    /// It was noticed, and refused, cut or answered with an error, in these words.
    Refused(String),
    /// It did not take effect, for this reason, and counts for nothing.
    NotInjected(String),
}

/// What a fault was and did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was broken, where.
    pub fault: String,
    /// What came of it.
    pub result: Result<Survived, Harm>,
}

/// An error of the harness's own doing: the machine lacks something, or a fault cannot be prepared.
macro_rules! harness {
    ($($says:tt)*) => { $crate::chaos::harm::Harm::new($crate::chaos::harm::Column::Other, format!($($says)*)) };
}
pub(crate) use harness;
