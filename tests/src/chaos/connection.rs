//! Connections that are cut, reset, held up, or bring one byte a second.

use std::time::Duration;

use crate::chaos::fault::{Fault, Inject, Kind, outcome};
use crate::chaos::harm::{Outcome, Survived};
use crate::chaos::proxied::Proxied;
use crate::chaos::readers::{Language, Reading};
use crate::chaos::wire::{Trouble, TroubleKind};

pub(super) fn kind() -> Kind {
    Kind {
        name: "connection",
        title: "cut, reset, delay, one byte a second (TCP, Unix socket)",
        times: 150,
        few: 8,
        at_once: 4,
        open: || Ok(Box::new(Stage { server: Proxied::open()? })),
    }
}

struct Stage {
    server: Proxied,
}

impl Inject for Stage {
    fn inject(&self, fault: Fault) -> Outcome {
        let mut dice = fault.dice();
        let is_unix = dice.once_in(2);
        let shares_memory = is_unix && dice.once_in(2);
        let language = dice.pick(&[Language::Rust, Language::Python]);
        let seed = dice.below(1 << 40);
        let query = format!(
            "split=test&shuffle=true&schedule=cifar10-pba&seed={seed}&batch_size=10&shard={}/20\
             &base=pad_crop:4,flip,cutout:16",
            dice.below(20)
        );
        // The answer's head and the schema, the pixels, or the very end; through memory, 24 bytes a batch.
        let (head, bytes) = if shares_memory { (300, 700) } else { (3000, 320_000) };
        let troubles: Vec<Trouble> = (0..dice.pick(&[1, 1, 2, 4]))
            .map(|_| {
                let places = [dice.below(head), dice.below(bytes)];
                let after = dice.pick(&places);
                let milliseconds = Duration::from_millis(dice.between(50, 1500));
                let second = Duration::from_secs(1);
                let kind = match dice.below(10) {
                    0..3 => TroubleKind::Cut,
                    3..6 => TroubleKind::Reset,
                    6..8 => TroubleKind::Delay(milliseconds),
                    8 => TroubleKind::Drip(dice.between(1, 3), second),
                    _ => TroubleKind::Silence,
                };
                Trouble { after, kind }
            })
            .collect();
        let way = if is_unix { "a Unix socket" } else { "TCP" };
        let memory = if shares_memory { " with shared memory" } else { "" };
        outcome(format!("{troubles:?} on {way}{memory}, {language:?}"), || {
            let order = self.server.order(150, &query)?;
            let (wire, at) = self.server.wire(is_unix, fault.index);
            wire.plan(troubles);
            let reading = Reading::of(language, [wire.url(), wire.url()]);
            let read = reading.sharing(shares_memory).stalling(Duration::from_secs(3)).read_patiently(&order);
            at.map(std::fs::remove_file);
            match read? {
                // The answer was shorter than the place of the fault.
                Survived::Unnoticed if wire.done() == 0 => {
                    Ok(Survived::NotInjected("the answer ended before".to_owned()))
                }
                read => Ok(read),
            }
        })
    }
}
