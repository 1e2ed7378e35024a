//! The table: how often each kind of fault was injected, and what harm it did.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::chaos::harm::{Column, Outcome, Survived};

/// A kind of fault.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub kind: &'static str,
    /// The same in words.
    pub title: &'static str,
    /// Faults that took effect.
    pub times: u32,
    /// Those that were refused, cut or answered with an error.
    pub refused: u32,
    /// Faults that did not take effect, by reason.
    pub not_injected: BTreeMap<String, u32>,
    /// Faults that did harm, by column: index, what was broken, what was seen.
    pub harm: BTreeMap<Column, Vec<(u32, String, String)>>,
}

impl Row {
    pub(crate) fn new(kind: &'static str, title: &'static str) -> Row {
        let (not_injected, harm) = (BTreeMap::new(), BTreeMap::new());
        Row { kind, title, times: 0, refused: 0, not_injected, harm }
    }

    pub(crate) fn add(&mut self, index: u32, outcome: &Outcome) {
        match &outcome.result {
            Ok(Survived::NotInjected(why)) => {
                *self.not_injected.entry(why.clone()).or_default() += 1;
                return;
            }
            Ok(Survived::Unnoticed) => {}
            Ok(Survived::Refused(_)) => self.refused += 1,
            Err(harm) => {
                let told = (index, outcome.fault.clone(), harm.seen.clone());
                self.harm.entry(harm.column).or_default().push(told);
            }
        }
        self.times += 1;
    }

    /// How many faults did harm of a kind.
    pub fn count(&self, column: Column) -> usize {
        self.harm.get(&column).map_or(0, Vec::len)
    }

    /// How many did not take effect.
    pub fn not_injected(&self) -> u32 {
        self.not_injected.values().sum()
    }

    /// Whether none did harm.
    pub fn is_clean(&self) -> bool {
        self.harm.is_empty()
    }
}

/// All kinds.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The rows, in order.
    pub rows: Vec<Row>,
}

impl Table {
    /// Faults that took effect.
    pub fn times(&self) -> u32 {
        self.rows.iter().map(|row| row.times).sum()
    }

    /// Whether none did harm.
    pub fn is_clean(&self) -> bool {
        self.rows.iter().all(Row::is_clean)
    }

    /// As Markdown, with what did harm below, and how to repeat it.
    pub fn markdown(&self, seed: u64) -> String {
        let mut text = String::from("| kind | times | of these refused, cut or answered with an error |");
        Column::ALL.iter().for_each(|column| text += &format!(" {} |", column.heading()));
        text += " not injected |\n| --- |";
        text += &" ---: |".repeat(Column::ALL.len() + 3);
        text.push('\n');
        let mut line = |title: &str, numbers: &[u64]| {
            let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "| {title} | {} |", numbers.join(" | "));
        };
        let mut sums = vec![0; Column::ALL.len() + 3];
        for row in &self.rows {
            let harm = Column::ALL.iter().map(|&column| row.count(column) as u64);
            let numbers = [u64::from(row.times), u64::from(row.refused)].into_iter().chain(harm);
            let numbers: Vec<u64> = numbers.chain([u64::from(row.not_injected())]).collect();
            line(row.title, &numbers);
            sums.iter_mut().zip(&numbers).for_each(|(sum, number)| *sum += number);
        }
        line("**all**", &sums);
        for row in &self.rows {
            for (column, faults) in &row.harm {
                for (index, fault, seen) in faults {
                    let _ = writeln!(
                        text,
                        "\n- **{}**, {fault}: {}. Again: `make chaos KIND={} SEED={seed} ONLY={index}`",
                        column.heading(),
                        seen.replace('\n', " "),
                        row.kind
                    );
                }
            }
            for (why, times) in &row.not_injected {
                let _ = writeln!(text, "\n- {}: {times} not injected: {why}", row.kind);
            }
        }
        text
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let harm = Column::ALL.iter().map(|&column| {
                let faults = row.harm.get(&column).into_iter().flatten();
                let faults = faults
                    .map(|(index, fault, seen)| json!({ "index": index, "fault": fault, "seen": seen }));
                (column.heading().to_owned(), json!(faults.collect::<Vec<_>>()))
            });
            json!({
                "kind": row.kind, "title": row.title, "times": row.times, "refused": row.refused,
                "not_injected": row.not_injected, "harm": harm.collect::<serde_json::Map<_, _>>(),
            })
        });
        json!(rows.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::harm::Harm;

    #[test]
    fn harm_is_counted_where_it_belongs() {
        let mut row = Row::new("kill", "killed");
        let mut add = |index, result| row.add(index, &Outcome { fault: "f".to_owned(), result });
        add(0, Ok(Survived::Unnoticed));
        add(1, Ok(Survived::Refused("no".to_owned())));
        add(2, Ok(Survived::NotInjected("too late".to_owned())));
        add(3, Err(Harm::new(Column::Undone, "gone")));
        let table = Table { rows: vec![row] };
        let row = &table.rows[0];
        assert_eq!((row.times, row.refused, row.not_injected()), (3, 1, 1));
        assert_eq!((row.count(Column::Undone), row.count(Column::Lost)), (1, 0));
        assert!(!table.is_clean());
        let text = table.markdown(7);
        assert!(text.contains("| killed | 3 | 1 | 0 | 0 | 0 | 0 | 0 | 1 | 0 | 1 |"), "{text}");
        assert!(text.contains("make chaos KIND=kill SEED=7 ONLY=3"), "{text}");
        assert_eq!(table.json()[0]["harm"]["acknowledged change lost"][0]["index"], 3);
    }
}
