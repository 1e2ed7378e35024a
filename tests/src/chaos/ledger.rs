//! A client that adds and removes schedules, and remembers what was acknowledged.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::chaos::daemon::{Daemon, send};
use crate::chaos::harm::{Column, Harm};

/// What has to be so of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    There,
    Gone,
    /// The last change was neither acknowledged nor refused as one that changed nothing: it may have been made.
    Either,
}

/// What was acknowledged.
#[derive(Default)]
pub(crate) struct Ledger {
    states: BTreeMap<String, State>,
    made: u32,
}

impl Ledger {
    /// Makes one change: a new schedule, or of three changes one removes what was added before. Whether it was
    /// acknowledged.
    pub(crate) fn change(&mut self, address: SocketAddr) -> bool {
        self.made += 1;
        let there = self.states.iter().find(|(_, state)| **state == State::There);
        let (method, name, body, [before, after]) = match there {
            Some((name, _)) if self.made.is_multiple_of(3) => {
                ("DELETE", name.clone(), None, [State::There, State::Gone])
            }
            _ => {
                let name = format!("change-{}", self.made);
                let body = content(&name);
                ("PUT", name, Some(body), [State::Gone, State::There])
            }
        };
        let target = format!("/v1/schedules/{name}");
        let answer = send(address, method, &target, body.unwrap_or_default().as_bytes());
        let (acknowledged, state) = match answer {
            Ok(answer) if (200..300).contains(&answer.status) => (true, after),
            Ok(answer) if answer.complete && answer.text().contains("nothing was changed") => (false, before),
            _ => (false, State::Either),
        };
        self.states.insert(name, state);
        acknowledged
    }

    /// Removes what was added.
    pub(crate) fn clear(&self, server: &Daemon) -> Result<(), Harm> {
        for (name, _) in self.states.iter().filter(|(_, state)| **state == State::There) {
            let removed = server.send("DELETE", &format!("/v1/schedules/{name}"), b"");
            let status = removed.map_err(|error| Harm::new(Column::Dead, error))?.status;
            if status != 204 {
                return Err(Harm::new(
                    Column::Undone,
                    format!("schedule {name} cannot be removed: {status}"),
                ));
            }
        }
        Ok(())
    }

    /// Checks that all that was acknowledged is so, and nothing that was refused.
    pub(crate) fn check(&self, server: &Daemon) -> Result<(), Harm> {
        let undone = |seen: String| Err(Harm::new(Column::Undone, seen));
        for (name, state) in self.states.iter().filter(|(_, state)| **state != State::Either) {
            let target = format!("/v1/schedules/{name}");
            let answer = server.get(&target).map_err(|error| Harm::new(Column::Dead, error))?;
            match (state, answer.status) {
                (State::There, 200) => {
                    let ours: serde_json::Value = serde_json::from_str(&content(name)).expect("it is JSON");
                    if answer.json()["segments"] != ours["segments"] {
                        return undone(format!("schedule {name} has other content"));
                    }
                }
                (State::Gone, 404) => {}
                (State::There, status) => return undone(format!("schedule {name} was added: {status}")),
                (_, status) => return undone(format!("schedule {name} was removed: {status}")),
            }
        }
        Ok(())
    }
}

/// A published schedule under another name, the same each time.
pub(crate) fn content(name: &str) -> String {
    let schedule = pba_schedules::library::cifar10_pba();
    let mut document: serde_json::Value =
        serde_json::from_str(&pba_schedules::formats::json::write(&schedule)).expect("it is JSON");
    document["name"] = name.into();
    document.to_string()
}
