//! A server that stands still (SIGSTOP), and goes on later, or is left.

use std::time::Duration;

use crate::chaos::daemon::{Daemon, Launch};
use crate::chaos::fault::{Fault, Inject, Kind, outcome};
use crate::chaos::harm::{Harm, Outcome, Survived};
use crate::chaos::oracle::{Order, shapes};
use crate::chaos::readers::{Language, Reading};

pub(super) fn kind() -> Kind {
    Kind {
        name: "stopped",
        title: "stopped for a while (SIGSTOP)",
        times: 30,
        few: 2,
        at_once: 1,
        open: || Ok(Box::new(Stage::open()?)),
    }
}

struct Stage {
    server: Daemon,
    replica: Daemon,
    dataset: pba_datasets::Dataset,
}

impl Stage {
    fn open() -> Result<Stage, Harm> {
        let (server, replica) = (Launch::new(&[]).start()?, Launch::new(&[]).start()?);
        let dataset = shapes(server.data.path());
        Ok(Stage { server, replica, dataset })
    }
}

impl Inject for Stage {
    fn inject(&self, fault: Fault) -> Outcome {
        let mut dice = fault.dice();
        let language = dice.pick(&[Language::Rust, Language::Python]);
        let left = dice.once_in(2);
        let pause = Duration::from_millis(dice.between(300, 1500));
        let what = if left { "longer than its client waits" } else { "for a while" };
        outcome(format!("a server that stands still {what}, {language:?}"), || {
            let query = format!(
                "split=test&shuffle=true&schedule=cifar10-pba&seed={}&batch_size=100&base=pad_crop:4,flip",
                dice.below(1 << 40)
            );
            let order = Order::new(&self.dataset, 150, &query)?;
            let at = dice.between(1, 15) as usize;
            let urls = [self.server.url(), self.replica.url()];
            let reading = Reading::of(language, urls);
            let reading = if left { reading.stalling(Duration::from_millis(700)) } else { reading };
            let mut resumer = None;
            let read = reading.read_whole_with(&order, &mut |received| {
                if received == at {
                    self.server.process.signal("STOP");
                    let process = self.server.process.id();
                    let pause = if left { Duration::from_secs(4) } else { pause };
                    resumer = Some(std::thread::spawn(move || {
                        std::thread::sleep(pause);
                        crate::search::signal(process, "CONT");
                    }));
                }
            });
            // It has to run again for the next fault.
            crate::search::signal(self.server.process.id(), "CONT");
            resumer.map(std::thread::JoinHandle::join);
            read?;
            Reading::of(language, [self.server.url()]).read_whole(&order)?;
            Ok(Survived::Unnoticed)
        })
    }
}
