//! A chart of a search inside a page: the scores of all members with their median and quartiles, and the lineage of the
//! best member.

use pba_search::{Event, Search, SearchSpec};

use crate::draw::chart::Chart;
use crate::draw::population::{Stretch, history, in_lineage};

const TOP: f64 = 16.0;
const HEIGHT: f64 = 260.0;
const BASE: f64 = TOP + HEIGHT;
/// Stretches of single members that are drawn at most; beyond, quartiles and lineage say it.
const STRETCHES_MAX: usize = 4_000;
/// Of the scores' axis.
const TICKS: u32 = 4;

/// The scores after one generation.
pub(crate) struct Generation {
    /// Epochs that every member had trained.
    pub(crate) epoch: u32,
    /// The least, the quartiles, and the greatest; of those that have not diverged.
    pub(crate) quantiles: [f64; 5],
    /// Members that had diverged.
    pub(crate) diverged: usize,
}

impl Generation {
    fn of(epoch: u32, scores: &[Option<f64>]) -> Option<Generation> {
        let mut finite: Vec<f64> =
            scores.iter().flatten().copied().filter(|score| score.is_finite()).collect();
        finite.sort_by(f64::total_cmp);
        let last = finite.len().checked_sub(1)?;
        let quantile = |share: f64| {
            let place = share * last as f64;
            let (low, high) = (finite[place.floor() as usize], finite[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        let quantiles = [0.0, 0.25, 0.5, 0.75, 1.0].map(quantile);
        Some(Generation { epoch, quantiles, diverged: scores.len() - finite.len() })
    }
}

/// What a page shows of the scores.
pub(crate) struct Scores {
    pub(crate) chart: String,
    pub(crate) generations: Vec<Generation>,
}

/// Draws the scores of a search so far; nothing before there are any.
pub(crate) fn draw(spec: &SearchSpec, search: &Search, events: Vec<Event>) -> Option<Scores> {
    let epochs = spec.training.epochs;
    let generations: Vec<Generation> = events
        .iter()
        .filter_map(|event| match event {
            Event::Scored { epoch, scores } => Generation::of(*epoch, scores),
            _ => None,
        })
        .collect();
    let last = generations.last()?;
    let (stretches, copies) = history(spec.population, events.into_iter());
    let low = generations.iter().map(|generation| generation.quantiles[0]).fold(1.0, f64::min);
    let high = generations.iter().map(|generation| generation.quantiles[4]).fold(0.0, f64::max);
    let margin = ((high - low) * 0.06).max(0.002);
    let (low, high) = ((low - margin).max(0.0), (high + margin).min(1.0));
    let x = |epoch: u32| f64::from(epoch) / f64::from(epochs);
    let y = |score: f64| TOP + HEIGHT * (high - score) / (high - low);
    let [_, lower, median, upper, best] = last.quantiles.map(|score| 100.0 * score);
    let label = format!(
        "Validation accuracy after {} of {epochs} epochs: best {best:.1} %, median {median:.1} %, quartiles {lower:.1} % \
         and {upper:.1} %",
        last.epoch
    );
    let mut chart = Chart::new(BASE + 18.0, &label);
    let mut begin = 0;
    for Generation { epoch, quantiles: [least, lower, median, upper, best], diverged } in &generations {
        let across = [x(begin), x(*epoch)];
        let diverged = if *diverged > 0 { format!(", {diverged} diverged") } else { String::new() };
        let [least, median_shown, best] = [least, median, best].map(|score| 100.0 * score);
        chart.begin(&format!(
            "epoch {epoch}: best {best:.1} %, median {median_shown:.1} %, worst {least:.1} %{diverged}"
        ));
        chart.bar("band", across, y(*upper), (y(*lower) - y(*upper)).max(1.0));
        chart.line("median", [across[0], y(*median)], [across[1], y(*median)]);
        chart.end();
        begin = *epoch;
    }
    let best = search.population.best();
    let is_dense = stretches.len() > STRETCHES_MAX;
    for dark in [false, true] {
        for stretch in &stretches {
            let is_dark = in_lineage(best, stretch);
            if is_dark != dark || (is_dense && !dark) {
                continue;
            }
            if let &Stretch { member, from: (begin, Some(from)), to: (end, Some(to)) } = stretch {
                chart.begin(&format!("member {member}, epoch {end}: {:.1} %", 100.0 * to));
                let class = if dark { "lineage" } else { "member" };
                chart.line(class, [x(begin), y(from)], [x(end), y(to)]);
                chart.dot(class, [x(end), y(to)], if dark { 3.0 } else { 2.0 });
                chart.end();
            }
        }
    }
    for copy in copies.iter().filter(|_| !is_dense) {
        if let (Some(before), Some(after)) = (copy.target_score, copy.clone_score) {
            chart
                .begin(&format!("epoch {}: member {} copies member {}", copy.epoch, copy.target, copy.clone));
            chart.line("copy", [x(copy.epoch), y(before)], [x(copy.epoch), y(after)]);
            chart.end();
        }
    }
    for tick in 0..=TICKS {
        let score = low + (high - low) * f64::from(tick) / f64::from(TICKS);
        chart.rule(y(score), format_args!("{:.1} %", 100.0 * score));
    }
    chart.epochs(BASE + 14.0, epochs);
    Some(Scores { chart: chart.finish(), generations })
}

#[cfg(test)]
mod tests {
    use pba_search::{Spec, run, toy::ToyTrainer};

    use super::*;

    #[test]
    fn every_generation_has_its_quartiles_and_the_winner_its_lineage() {
        let spec = SearchSpec::from_json(r#"{"population": 8, "epochs": 20, "seed": 1}"#).unwrap();
        let (mut search, mut events) = (Search::new(spec.clone()), Vec::new());
        assert!(draw(&spec, &search, Vec::new()).is_none());
        run(&mut search, &mut ToyTrainer::new(&spec), |event| {
            events.push(event.clone());
            Ok(())
        })
        .unwrap();
        let scores = draw(&spec, &search, events).unwrap();
        // Every third epoch, and the last.
        assert_eq!(scores.generations.len(), 7);
        assert!(scores.generations.iter().all(|generation| generation.quantiles.is_sorted()));
        assert_eq!(scores.chart.matches("class=\"band\"").count(), 7);
        assert_eq!(scores.chart.matches("<line class=\"lineage\"").count(), 7);
        assert!(scores.chart.contains("copies member"));
    }

    #[test]
    fn quartiles_lie_between_scores_and_what_diverged_is_counted_apart() {
        let generation = Generation::of(3, &[Some(0.1), None, Some(0.3), Some(0.2), Some(0.4)]).unwrap();
        let rounded = generation.quantiles.map(|score| (1e6 * score).round() / 1e6);
        assert_eq!((rounded, generation.diverged), ([0.1, 0.175, 0.25, 0.325, 0.4], 1));
        assert!(Generation::of(3, &[None]).is_none());
    }
}
