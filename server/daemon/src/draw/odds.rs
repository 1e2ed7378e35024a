//! Charts of a schedule inside a page: for each op its probability and its magnitude over the epochs; all ops stacked, as
//! in the paper; and how many ops an image gets.

use pba_schedules::{MAGNITUDE_MAX, Op, OpOdds, Policy, Schedule};

use crate::draw::chart::{Anchor, Chart};

/// Policies that a chart shows at most, side by side; of a schedule with more, some are left out.
const COLUMNS_MAX: u32 = 120;
/// Pixels of a probability of 1, and of the greatest magnitude.
const PROBABILITY: f64 = 44.0;
const MAGNITUDE: f64 = 26.0;
/// Above the first, between both, and below for the epochs.
const TOP: f64 = 14.0;
const GAP: f64 = 16.0;
const AXIS: f64 = 16.0;
/// Pixels of a stacked chart.
const STACK: f64 = 180.0;

/// A policy, and the shares of the width that it takes up.
struct Column<'a> {
    across: [f64; 2],
    epochs: [u32; 2],
    policy: &'a Policy,
}

/// The policies of a schedule over a run of `epochs`, of which it may be the beginning: neighbours that are equal are
/// one.
fn columns(schedule: &Schedule, epochs: u32) -> Vec<Column<'_>> {
    let drawn = schedule.epochs();
    let step = drawn.div_ceil(COLUMNS_MAX).max(1);
    let mut columns: Vec<Column<'_>> = Vec::new();
    let starts: Box<dyn Iterator<Item = u32>> = match schedule.segments().len() <= COLUMNS_MAX as usize {
        true => {
            let lengths = schedule.segments().iter().map(|segment| segment.epochs);
            Box::new(lengths.scan(0, |start, length| Some(std::mem::replace(start, *start + length))))
        }
        false => Box::new((0..drawn).step_by(step as usize)),
    };
    for start in starts {
        let policy = schedule.at_search_epoch(start);
        match columns.last_mut() {
            Some(last) if last.policy == policy => {}
            _ => columns.push(Column { across: [0.0; 2], epochs: [start, start], policy }),
        }
    }
    let ends: Vec<u32> = columns.iter().skip(1).map(|column| column.epochs[0]).chain([drawn]).collect();
    for (column, end) in columns.iter_mut().zip(ends) {
        column.epochs[1] = end;
        column.across = column.epochs.map(|epoch| f64::from(epoch) / f64::from(epochs.max(1)));
    }
    columns
}

/// When a policy is used, for a tooltip.
fn when(schedule: &Schedule, [start, end]: [u32; 2]) -> String {
    match schedule.is_constant() {
        true => String::new(),
        false if end == start + 1 => format!("epoch {start}: "),
        false => format!("epochs {start} to {}: ", end - 1),
    }
}

/// The chart of one op: above its probability from 0 to 1, below its magnitude from 0 to 9, over a run of `epochs`.
pub(crate) fn op(schedule: &Schedule, op: Op, epochs: u32) -> String {
    let label = format!(
        "{op} in {}: probability {:.2} and magnitude {:.1}{}",
        schedule.name(),
        mean(schedule, op).probability,
        mean(schedule, op).magnitude,
        if schedule.is_constant() { "" } else { " on average over the epochs" },
    );
    let probability_base = TOP + PROBABILITY;
    let magnitude_base = probability_base + GAP + MAGNITUDE;
    let mut chart = Chart::new(magnitude_base + AXIS, &label);
    chart.line("rule", [0.0, TOP + PROBABILITY / 2.0], [1.0, TOP + PROBABILITY / 2.0]);
    chart.line("rule", [0.0, TOP], [1.0, TOP]);
    chart.line("rule", [0.0, magnitude_base - MAGNITUDE], [1.0, magnitude_base - MAGNITUDE]);
    for Column { across, epochs, policy } in columns(schedule, epochs) {
        let OpOdds { probability, magnitude } = odds(policy, op);
        if probability == 0.0 {
            continue;
        }
        let when = when(schedule, epochs);
        chart.begin(&format!("{when}{op} with probability {probability:.2} and magnitude {magnitude:.1}"));
        let height = PROBABILITY * probability;
        chart.bar("probability", across, probability_base - height, height);
        let height = MAGNITUDE * magnitude / f64::from(MAGNITUDE_MAX);
        chart.bar("magnitude", across, magnitude_base - height, height.max(0.5));
        chart.end();
    }
    chart.line("base", [0.0, probability_base], [1.0, probability_base]);
    chart.line("base", [0.0, magnitude_base], [1.0, magnitude_base]);
    chart.text("tick", Anchor::Start, [0.0, TOP - 3.0], "1");
    chart.text("tick", Anchor::End, [1.0, TOP - 3.0], "probability");
    chart.text("tick", Anchor::Start, [0.0, magnitude_base - MAGNITUDE - 3.0], MAGNITUDE_MAX);
    chart.text("tick", Anchor::End, [1.0, magnitude_base - MAGNITUDE - 3.0], "magnitude");
    if !(schedule.is_constant() && epochs == 1) {
        chart.epochs(magnitude_base + AXIS - 3.0, epochs);
    }
    chart.finish()
}

/// Which number of each op is stacked.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Stacked {
    /// Probabilities, as shares of their sum.
    Probability,
    /// Magnitudes, as they add up.
    Magnitude,
}

/// All ops on top of each other, as in Figure 2 of the paper.
pub(crate) fn stacked(schedule: &Schedule, stacked: Stacked) -> String {
    let (what, ops) = match stacked {
        Stacked::Probability => ("probabilities, as shares of their sum", schedule.ops()),
        Stacked::Magnitude => ("magnitudes, added up", schedule.ops()),
    };
    let columns = columns(schedule, schedule.epochs());
    let value = |policy: &Policy, op| match (odds(policy, op), stacked) {
        (OpOdds { probability, .. }, Stacked::Probability) => probability,
        (OpOdds { magnitude, .. }, Stacked::Magnitude) => magnitude,
    };
    let sum = |policy: &Policy| ops.iter().map(|op| value(policy, *op)).sum::<f64>();
    let greatest = columns.iter().map(|column| sum(column.policy)).fold(0.0, f64::max);
    let mut chart =
        Chart::new(TOP + STACK + AXIS, &format!("{}: the {what}, over the epochs", schedule.name()));
    let base = TOP + STACK;
    for Column { across, epochs, policy } in &columns {
        let whole = if stacked == Stacked::Probability { sum(policy) } else { greatest };
        let mut y = base;
        for op in &ops {
            let value = value(policy, *op);
            if value == 0.0 || whole == 0.0 {
                continue;
            }
            let height = STACK * value / whole;
            y -= height;
            let shown = match stacked {
                Stacked::Probability => format!("{:.0} % of the probability", 100.0 * value / whole),
                Stacked::Magnitude => format!("magnitude {value:.1}"),
            };
            chart.begin(&format!("{}{op}, {shown}", when(schedule, *epochs)));
            chart.bar(&format!("op-{}", *op as usize), *across, y, height);
            chart.end();
        }
    }
    chart.line("base", [0.0, base], [1.0, base]);
    let top = if stacked == Stacked::Probability { "100 %".to_owned() } else { format!("{greatest:.0}") };
    chart.rule(TOP, top);
    if !schedule.is_constant() {
        chart.epochs(base + AXIS - 3.0, schedule.epochs());
    }
    chart.finish()
}

/// How many ops an image gets on average, over the epochs.
pub(crate) fn ops_per_image(schedule: &Schedule) -> String {
    let columns = columns(schedule, schedule.epochs());
    let values: Vec<f64> = columns.iter().map(|column| column.policy.ops_expected()).collect();
    let most = schedule.segments().iter().map(|segment| segment.policy.calls_max()).max().unwrap_or(1).max(1);
    let (height, base) = (72.0, TOP + 72.0);
    let [first, last] = [values.first(), values.last()].map(|value| value.copied().unwrap_or(0.0));
    let label =
        format!("{}: {first:.2} ops per image at first, {last:.2} at the end, of {most}", schedule.name());
    let mut chart = Chart::new(base + AXIS, &label);
    chart.rule(TOP, most);
    for (Column { across, epochs, .. }, value) in columns.iter().zip(&values) {
        chart.begin(&format!("{}{value:.2} ops per image", when(schedule, *epochs)));
        let bar = height * value / most as f64;
        chart.bar("accent", *across, base - bar, bar);
        chart.end();
    }
    chart.line("base", [0.0, base], [1.0, base]);
    if !schedule.is_constant() {
        chart.epochs(base + AXIS - 3.0, schedule.epochs());
    }
    chart.finish()
}

/// The odds of an op, which the policy may not have.
fn odds(policy: &Policy, op: Op) -> OpOdds {
    match policy.ops().contains(&op) {
        true => policy.odds(op),
        false => OpOdds { probability: 0.0, magnitude: 0.0 },
    }
}

/// The mean odds of an op over the epochs; its magnitude where it is applied.
pub(crate) fn mean(schedule: &Schedule, op: Op) -> OpOdds {
    let (mut probability, mut magnitude) = (0.0, 0.0);
    for segment in schedule.segments() {
        let odds = odds(&segment.policy, op);
        probability += f64::from(segment.epochs) * odds.probability;
        magnitude += f64::from(segment.epochs) * odds.probability * odds.magnitude;
    }
    let magnitude = if probability > 0.0 { magnitude / probability } else { 0.0 };
    OpOdds { probability: probability / f64::from(schedule.epochs()), magnitude }
}

#[cfg(test)]
mod tests {
    use pba_schedules::library;

    use super::*;

    #[test]
    fn a_schedule_is_drawn_op_by_op_and_stacked() {
        let schedule = library::cifar10_pba();
        let rotate = op(&schedule, Op::Rotate, schedule.epochs());
        assert!(
            rotate.contains("magnitude</text>") && rotate.contains("epochs 195 to 199: Rotate with"),
            "{rotate}"
        );
        assert!(rotate.contains(">1</text>") && rotate.contains(">200</text>"), "{rotate}");
        let shares = stacked(&schedule, Stacked::Probability);
        assert!(shares.contains("class=\"op-12\"") && shares.contains("% of the probability"), "{shares}");
        assert!(stacked(&schedule, Stacked::Magnitude).contains("magnitude 9.0"));
        assert!(ops_per_image(&schedule).contains("ops per image at first"));
        // Without epochs there is no axis of them.
        let constant = library::named("randaugment:2:20").unwrap().unwrap();
        assert!(!op(&constant, Op::Rotate, 1).contains("epoch"), "{}", op(&constant, Op::Rotate, 1));
        assert!(ops_per_image(&constant).contains("1.86 ops per image"), "{}", ops_per_image(&constant));
        // An op that it does not have.
        assert!(!op(&constant, Op::Cutout, 1).contains("<rect"));
    }

    #[test]
    fn of_many_policies_some_are_left_out() {
        let values = |level: u32| {
            let level = (level % 10) as u8;
            Policy::from_hyperparameters(&[Op::Rotate], &[level, 1, 0, 0]).unwrap()
        };
        let segments = (0..5_000).map(|level| pba_schedules::Segment { epochs: 1, policy: values(level) });
        let schedule = Schedule::new("long", segments.collect(), Default::default()).unwrap();
        let drawn = columns(&schedule, schedule.epochs());
        assert!(drawn.len() <= COLUMNS_MAX as usize, "{}", drawn.len());
        assert_eq!(drawn.last().unwrap().epochs[1], 5_000);
        assert!((drawn.last().unwrap().across[1] - 1.0).abs() < 1e-9);
    }
}
