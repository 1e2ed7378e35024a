//! The tokens of a configuration, by their hashes.
//!
//! They stand in `[[tokens]]` tables, in `pba.toml` or in a file of their own. Errors name the table and what is wrong
//! with it, and never show a value of it that may be a token.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail, ensure};
use pba_types::{check_name, names_allowed};
use pba_wire::Role;
use serde::Serialize;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use toml::{Table, Value};

use crate::access::secret::{Hash, is_token, redacted};

/// The key of the tables.
const KEY: &str = "tokens";
/// The keys of a table.
const KEYS: [&str; 4] = ["name", "role", "sha256", "streams_max"];
/// Most tokens: every request is compared with each.
const TOKENS_MAX: usize = 10_000;
/// Most streams of a token that can be configured.
const STREAMS_MAX: i64 = 65_536;
/// Longest file of tokens.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A token that is let in.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Token {
    pub(crate) name: String,
    pub(crate) role: Role,
    #[serde(skip)]
    pub(crate) hash: Hash,
    /// Most streams at a time, if this token has a limit of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) streams_max: Option<usize>,
}

/// Tokens, of which no two have the same name or hash.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Tokens(Vec<Arc<Token>>);

impl Tokens {
    /// Reads the value of `tokens`: an array of tables.
    ///
    /// # Errors
    /// When a key is missing, unknown or has a wrong value, or two tokens have the same name or hash.
    pub(crate) fn read(value: &Value) -> anyhow::Result<Tokens> {
        let tables = value.as_array().with_context(|| {
            format!("{KEY} is {}; expected tables that begin with [[{KEY}]]", kind_of(value))
        })?;
        let tokens = tables.iter().enumerate().map(|(at, table)| token(at, table).map(Arc::new));
        Tokens(Vec::new()).with(Tokens(tokens.collect::<Result<_, _>>()?))
    }

    /// Reads a file that holds the tables and nothing else. One that holds none says so: `tokens = []`, so that a file
    /// which is being written, or was cut, revokes none.
    ///
    /// # Errors
    /// As [`Tokens::read`]; when it is not TOML, or has other keys.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Tokens> {
        let table: Table = text.parse().map_err(|error| unshown(text, &error))?;
        if let Some(key) = table.keys().find(|key| *key != KEY) {
            bail!("{:?} is unknown here; the file holds [[{KEY}]] tables only", redacted(key));
        }
        let value = table.get(KEY).with_context(|| {
            format!("it holds no token; expected [[{KEY}]] tables, or {KEY} = [] to revoke them all")
        })?;
        Tokens::read(value)
    }

    /// Reads such a file. Waits for the disk.
    ///
    /// # Errors
    /// As [`Tokens::parse`]; when it cannot be read.
    pub(crate) fn read_file(path: &Path) -> anyhow::Result<Tokens> {
        let shown = path.display();
        let text = read_text(path)?;
        Tokens::parse(&text).with_context(|| format!("{shown} is not a valid file of tokens"))
    }

    /// These tokens and others.
    ///
    /// # Errors
    /// When two of them have the same name or hash, or they are too many.
    pub(crate) fn with(&self, others: Tokens) -> anyhow::Result<Tokens> {
        let all = [self.0.as_slice(), &others.0].concat();
        ensure!(all.len() <= TOKENS_MAX, "{KEY}: there are {}; allowed are {TOKENS_MAX}", all.len());
        let (mut names, mut hashes) = (HashSet::new(), HashMap::new());
        for token in &all {
            let name = token.name.as_str();
            ensure!(names.insert(name), "{KEY}: the name {name:?} is there twice");
            if let Some(known) = hashes.insert(token.hash.bytes(), name) {
                bail!("{KEY}: {known:?} and {name:?} have the same sha256; each token has one name");
            }
        }
        Ok(Tokens(all))
    }

    /// The token that was presented. All are compared, whichever it is: how long that takes tells nothing.
    pub(crate) fn find(&self, presented: &[u8]) -> Option<&Arc<Token>> {
        let presented = Hash::of(presented);
        self.find_by(|known| known.ct_eq(&presented))
    }

    /// The token whose hash is found equal; the hash of each is looked at once.
    fn find_by(&self, mut is_it: impl FnMut(&Hash) -> Choice) -> Option<&Arc<Token>> {
        // One more than its place; 0 when it is none.
        let mut place = 0_u32;
        for (number, token) in (1..).zip(&self.0) {
            place.conditional_assign(&number, is_it(&token.hash));
        }
        (place as usize).checked_sub(1).and_then(|place| self.0.get(place))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, in the order of the configuration.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Token> {
        self.0.iter().map(Arc::as_ref)
    }
}

/// The text of a file of tokens. Waits for the disk.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read_text(path: &Path) -> anyhow::Result<String> {
    pba_files::read_text(path, FILE_BYTES_MAX)
        .with_context(|| format!("tokens_file: cannot read {}", path.display()))
}

/// An error of TOML's parser without the line that it shows, which may hold a token.
pub(crate) fn unshown(text: &str, error: &toml::de::Error) -> anyhow::Error {
    let message = redacted(error.message());
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            anyhow!("line {line}, column {column}: {message}")
        }
        None => anyhow!("{message}"),
    }
}

/// Reads a table; `at` is its place among the tables.
fn token(at: usize, value: &Value) -> anyhow::Result<Token> {
    let place = format!("{KEY}[{at}]");
    let table = value.as_table().with_context(|| {
        format!("{place} is {}; expected a table with {}", kind_of(value), KEYS.join(", "))
    })?;
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        bail!("{place}: {:?} is not a key; allowed are {}", redacted(key), KEYS.join(", "));
    }
    let text = |place: &str, key: &str| {
        let value = table.get(key).with_context(|| format!("{place}: {key} is missing"))?;
        value.as_str().with_context(|| format!("{place}: {key} is {}; expected a text", kind_of(value)))
    };
    let name = text(&place, "name")?;
    check_name(name).map_err(|_| {
        anyhow!("{place}: name: {:?} is not a name; allowed are {}", redacted(name), names_allowed())
    })?;
    // From here on it is known by its name.
    let place = format!("{place} {name:?}");
    let role = text(&place, "role")?;
    let role = role.parse::<Role>().map_err(|error| {
        let error = error.to_string();
        anyhow!("{place}: role: {}", redacted(&error))
    })?;
    let digits = text(&place, "sha256")?;
    ensure!(
        !is_token(digits),
        "{place}: sha256 holds a token itself, not its hash, so that all who can read this file have it; make \
         another one with: pba token new"
    );
    let hash = Hash::read(digits).with_context(|| {
        format!(
            "{place}: sha256 has {} characters and is not a hash; expected the 64 hexadecimal digits that pba token new \
             prints below the token",
            digits.chars().count()
        )
    })?;
    let streams_max = table.get("streams_max").map(|value| match value {
        Value::Integer(count @ 1..=STREAMS_MAX) => Ok(*count as usize),
        Value::Integer(count) => {
            Err(anyhow!("{place}: streams_max: {count} is out of range; allowed are 1..={STREAMS_MAX}"))
        }
        other => Err(anyhow!("{place}: streams_max is {}; expected an integer", kind_of(other))),
    });
    Ok(Token { name: name.to_owned(), role, hash, streams_max: streams_max.transpose()? })
}

/// What a value is, without the value.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::access::secret::generate;

    /// A table of a token.
    fn table(name: &str, role: &str, token: &str) -> String {
        let hash = Hash::of(token.as_bytes());
        format!("[[tokens]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{hash}\"\n")
    }

    #[test]
    fn a_token_is_found_by_itself_alone() {
        let file = table("a", "reader", "pba_one") + &table("b", "admin", "pba_two") + "streams_max = 3\n";
        let tokens = Tokens::parse(&file).unwrap();
        let found = |token: &str| tokens.find(token.as_bytes()).map(|token| token.name.as_str());
        assert_eq!(
            ["pba_one", "pba_two", "pba_tw", "pba_two ", ""].map(found),
            [Some("a"), Some("b"), None, None, None]
        );
        let found = tokens.find(b"pba_two").unwrap();
        assert_eq!((found.role, found.streams_max), (Role::Admin, Some(3)));
        assert!(Tokens::parse("tokens = []").unwrap().is_empty());
        assert!(Tokens::default().find(b"").is_none());
        assert_eq!(
            serde_json::to_string(&tokens).unwrap(),
            r#"[{"name":"a","role":"reader"},{"name":"b","role":"admin","streams_max":3}]"#
        );
    }

    #[test]
    fn every_hash_is_compared_whichever_is_right() {
        let secrets: Vec<String> = (0..20).map(|_| generate().unwrap()).collect();
        let tables = secrets.iter().enumerate().map(|(at, token)| table(&format!("t{at}"), "reader", token));
        let tokens = Tokens::parse(&tables.collect::<String>()).unwrap();
        let compared = |presented: &str| {
            let (presented, mut count) = (Hash::of(presented.as_bytes()), 0);
            let found = tokens.find_by(|known| {
                count += 1;
                known.ct_eq(&presented)
            });
            (found.map(|token| token.name.clone()), count)
        };
        for right in [0, 7, 19] {
            assert_eq!(compared(&secrets[right]), (Some(format!("t{right}")), 20));
        }
        assert_eq!(compared(&generate().unwrap()), (None, 20));
    }

    #[track_caller]
    fn refuse(file: &str, says: &[&str]) {
        let error = format!("{:#}", Tokens::parse(file).unwrap_err());
        for says in says {
            assert!(error.contains(says), "{error:?} does not say {says:?}");
        }
    }

    #[test]
    fn wrong_tables_are_refused_by_name() {
        let good = table("a", "reader", "one");
        refuse("", &["it holds no token", "tokens = []"]);
        refuse("token = 1", &["\"token\" is unknown here"]);
        refuse("tokens = \"x\"", &["tokens is a text", "[[tokens]]"]);
        refuse("tokens = [1]", &["tokens[0] is an integer"]);
        refuse("[[tokens]]\nname = \"a\"", &["tokens[0] \"a\": role is missing"]);
        refuse(
            &good.replace("reader", "boss"),
            &["tokens[0] \"a\": role: \"boss\" is not a role", "researcher"],
        );
        refuse(&good.replace("\"a\"", "\"a b\""), &["tokens[0]: name: \"a b\" is not a name"]);
        refuse(&good.replace("\"a\"", "7"), &["tokens[0]: name is an integer; expected a text"]);
        refuse(&(good.clone() + "streams_max = 0"), &["streams_max: 0 is out of range; allowed are 1..="]);
        refuse(&(good.clone() + "streams_max = true"), &["streams_max is a boolean"]);
        refuse(&(good.clone() + "limit = 1"), &["\"limit\" is not a key; allowed are name, role"]);
        refuse(&good.replace("sha256 = \"", "sha256 = \"0"), &["sha256 has 65 characters", "64 hexadecimal"]);
        refuse(&(good.clone() + &table("a", "admin", "two")), &["the name \"a\" is there twice"]);
        refuse(&(good + &table("b", "admin", "one")), &["\"a\" and \"b\" have the same sha256"]);
    }

    #[test]
    fn as_many_tokens_as_are_allowed_differ_in_names_and_hashes() {
        let table = |number: usize| table(&format!("t{number}"), "reader", &number.to_string());
        let all: String = (0..TOKENS_MAX).map(table).collect();
        let tokens = Tokens::parse(&all).unwrap();
        assert_eq!(tokens.len(), TOKENS_MAX);
        assert_eq!(tokens.find(b"9999").unwrap().name, "t9999");
        refuse(&(all.clone() + &table(TOKENS_MAX)), &["there are 10001; allowed are 10000"]);
        // The last is the same as the first.
        refuse(&all.replace("\"t9999\"", "\"t0\""), &["the name \"t0\" is there twice"]);
        let [first, last] = ["0", "9999"].map(|secret| Hash::of(secret.as_bytes()).to_string());
        refuse(&all.replace(&last, &first), &["\"t0\" and \"t9999\" have the same sha256"]);
    }

    #[test]
    fn no_error_shows_a_token() {
        let token = generate().unwrap();
        let good = table("a", "reader", "one");
        let hash = Hash::of(b"one").to_string();
        for (file, says) in [
            (good.replace(&hash, &token), "sha256 holds a token itself"),
            (good.replace(&hash, &token[4..67]), "sha256 has 63 characters"),
            (good.replace("\"a\"", &format!("\"{token} x\"")), "is not a name"),
            (good.replace("reader", &token), "is not a role"),
            (good.replace("role", &token), "is not a key"),
            (format!("{good}\n{token} = 1"), "is not a key"),
            (format!("{token} = 1"), "is unknown here"),
            (format!("tokens = \"{token}\""), "tokens is a text"),
            (good.replace(&format!("{hash}\""), &token), "line 4, column"),
            (good.replace(&format!("\"{hash}\""), &token), "line 4, column"),
        ] {
            let error = format!("{:#}", Tokens::parse(&file).unwrap_err());
            assert!(error.contains(says), "{error:?} does not say {says:?}");
            assert!(!error.contains(&token[4..40]), "{error}");
        }
    }

    /// Prints how long a check takes for the first, the last and no token of many, which must be the same within noise.
    #[test]
    #[ignore = "measures times, which no test asserts: run it by its name with --ignored --nocapture"]
    fn right_and_wrong_tokens_take_as_long() {
        const TOKENS: usize = 64;
        let secrets: Vec<String> = (0..TOKENS).map(|_| generate().unwrap()).collect();
        let tables = secrets.iter().enumerate().map(|(at, token)| table(&format!("t{at}"), "reader", token));
        let tokens = Tokens::parse(&tables.collect::<String>()).unwrap();
        let wrong = generate().unwrap();
        let asked = [("first", &secrets[0]), ("last", &secrets[TOKENS - 1]), ("wrong", &wrong)];
        let mut nanoseconds: [Vec<u128>; 3] = Default::default();
        for _ in 0..300 {
            for (at, (_, token)) in asked.iter().enumerate() {
                let begin = Instant::now();
                for _ in 0..200 {
                    std::hint::black_box(tokens.find(std::hint::black_box(token.as_bytes())));
                }
                nanoseconds[at].push(begin.elapsed().as_nanos() / 200);
            }
        }
        for ((name, _), times) in asked.iter().zip(&mut nanoseconds) {
            times.sort_unstable();
            let [low, median, high] =
                [times.len() / 4, times.len() / 2, 3 * times.len() / 4].map(|at| times[at]);
            eprintln!("{name} of {TOKENS} tokens: {median} ns (quartiles {low} to {high})");
        }
    }
}
