//! A server with tokens, and what its tests ask of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pba_wire::Role;
use pba_wire::audit::{AuditEntry, AuditList};

use crate::metrics::Metrics;
use crate::server::data_folder;
use crate::{Answer, Download, Pba, Server, binary, pba};

/// A stream that takes a moment only.
pub const SHORT: &str = "/v1/datasets/shapes/epochs/0/batches?split=test&shard=0/50";
/// One that takes long enough to be looked at.
pub const LONG: &str = "/v1/datasets/shapes/epochs/0/batches?schedule=cifar10-pba";

/// A new token, and its table.
pub fn token(role: Role, name: &str) -> (String, String) {
    let new = pba(&["token", "new", "--role", role.name(), "--name", name, "--json"]).json();
    let text = |key: &str| new[key].as_str().unwrap().to_owned();
    let table =
        format!("[[tokens]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{}\"\n", text("sha256"));
    (text("token"), table)
}

/// A server with tokens, one of each role, which has its name.
pub struct Guarded {
    /// The server itself.
    pub server: Server,
    /// The tokens.
    pub tokens: BTreeMap<Role, String>,
    /// Their tables.
    pub tables: BTreeMap<Role, String>,
    /// Its tokens_file.
    pub file: PathBuf,
}

impl Guarded {
    /// Starts it with further flags.
    pub fn start(flags: &[&str]) -> Guarded {
        Guarded::run(flags, &[])
    }

    /// Starts it with further flags and variables.
    pub fn run(flags: &[&str], variables: &[(&str, &str)]) -> Guarded {
        let data = data_folder();
        let file = data.path().join("tokens.toml");
        let (mut tokens, mut tables) = (BTreeMap::new(), BTreeMap::new());
        for role in Role::ALL {
            let (token, table) = token(role, role.name());
            tokens.insert(role, token);
            tables.insert(role, table);
        }
        std::fs::write(&file, tables.values().cloned().collect::<String>()).unwrap();
        let flags = [&["--tokens-file", file.to_str().unwrap()], flags].concat();
        let mut command = Server::command(data.path(), &flags);
        command.envs(variables.iter().copied());
        Guarded { server: Server::run(command, data), tokens, tables, file }
    }

    /// The answer to a request with headers, of which one may be a token.
    #[track_caller]
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let answer = Download::open(self.server.address(), method, target, headers, body);
        answer.expect("the server answers").finish()
    }

    /// The answer to a request of the holder of a role.
    #[track_caller]
    pub fn ask_as(&self, role: Role, method: &str, target: &str, body: &[u8]) -> Answer {
        self.ask(method, target, &[("authorization", &bearer(&self.tokens[&role]))], body)
    }

    /// The audit log, oldest entry first.
    #[track_caller]
    pub fn audit(&self) -> Vec<AuditEntry> {
        let answer = self.ask_as(Role::Admin, "GET", "/v1/audit?n=1000", b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let list: AuditList = serde_json::from_slice(&answer.body).unwrap();
        list.entries.into_iter().rev().collect()
    }

    /// A number of its metrics.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.ask_as(Role::Reader, "GET", "/metrics", b"").text();
        Metrics::parse(&text).get(series)
    }

    /// Runs a command of `pba` against it, with a token or without.
    pub fn pba(&self, token: Option<&str>, arguments: &[&str]) -> Pba {
        let directory = tempfile::tempdir().unwrap();
        let mut command = binary::command(directory.path(), arguments);
        command.env("PBA_SERVER", self.server.url()).env("RUST_LOG", "trace");
        command.envs(token.map(|token| ("PBA_TOKEN", token)));
        command.output().expect("pba starts").into()
    }
}

/// The value of the header that carries a token.
pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Checks that an answer is to a client that is not known.
#[track_caller]
pub fn unknown(answer: &Answer) {
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"pba\""));
    assert_eq!(answer.problem().kind, "urn:pba:problem:unauthenticated");
}
