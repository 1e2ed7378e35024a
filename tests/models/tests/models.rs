//! Every model holds: in `make test` with one interruption, in `make models` with two.

use std::process::{Command, Stdio};
use std::time::Instant;

/// Says which model a child of the test runs.
const CHILD: &str = "PBA_MODEL_OF_CHILD";

/// Of the child: how many orders a model has.
#[test]
fn one_model() {
    let Ok(property) = std::env::var(CHILD) else { return };
    let model = pba_models::all().iter().find(|model| model.property == property).expect("there is one");
    println!("orders: {}", model.check(interruptions()));
}

fn interruptions() -> usize {
    std::env::var("PBA_INTERRUPTIONS").map_or(1, |number| number.parse().expect("a number"))
}

/// Each in a process of its own: a model whose threads all wait ends its process.
#[test]
fn every_property_holds_in_every_order() {
    let (wanted, test) = (std::env::var("PBA_MODEL").unwrap_or_default(), std::env::current_exe().unwrap());
    let mut failed = Vec::new();
    for model in pba_models::all().iter().filter(|model| model.property.contains(&wanted)) {
        let start = Instant::now();
        let mut child = Command::new(&test);
        child
            .args(["one_model", "--exact", "--nocapture"])
            .env(CHILD, model.property)
            .env("RUST_BACKTRACE", "0");
        let output = child.stderr(Stdio::piped()).output().unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        let seconds = start.elapsed().as_secs_f64();
        let orders = stdout.lines().find_map(|line| line.strip_prefix("orders: "));
        // One order would say nothing of the others.
        match orders.filter(|orders| output.status.success() && *orders != "1") {
            Some(orders) => println!("holds {orders:>8} orders {seconds:6.1} s  {}", model.property),
            None => {
                let reason = stderr.lines().skip_while(|line| !line.contains("panicked")).nth(1);
                println!("FAILS {}: {}", model.property, reason.unwrap_or(&stderr));
                failed.push(model.property);
            }
        }
    }
    assert!(failed.is_empty(), "with {} interruptions: {failed:#?}", interruptions());
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
