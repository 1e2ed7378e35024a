//! A plot of a search: the scores of the population with the lineage of the best member, and below it
//! the schedule of this lineage.

use pba_schedules::Provenance;
use pba_search::{Event, Exploit, Member, Run, Search, SearchSpec};

use crate::draw::plot::{LEFT, PLOT_WIDTH, Plot, TOP};
use crate::draw::schedule;

const PLOT_HEIGHT: u32 = 260;
/// Of the scores' axis.
const TICKS: u32 = 4;
const HEIGHT: u32 = TOP + PLOT_HEIGHT + 66;

/// A member's training between two scores: where its weights came from, and where it got to.
pub(super) struct Stretch {
    pub(super) member: u32,
    pub(super) from: (u32, Option<f64>),
    pub(super) to: (u32, Option<f64>),
}

/// Draws the search so far.
pub(crate) fn draw(
    name: &str,
    spec: &SearchSpec,
    search: Option<&Search>,
    events: impl Iterator<Item = Event>,
) -> String {
    let epochs = spec.training.epochs;
    let (stretches, copies) = history(spec.population, events);
    let scores = || stretches.iter().flat_map(|stretch| [stretch.from.1, stretch.to.1]).flatten();
    let (low, high) = (scores().fold(1.0, f64::min), scores().fold(0.0, f64::max));
    let (low, high) = if low < high { (low, high) } else { (0.0, 1.0) };
    let margin = (high - low) * 0.06;
    let (low, high) = ((low - margin).max(0.0), (high + margin).min(1.0));
    // So many that the labels are where their numbers are, and no two are the same.
    let step = 100.0 * (high - low) / f64::from(TICKS);
    let decimals = (1.0 - step.log10().floor()).clamp(0.0, 6.0) as usize;
    let y = |score: f64| f64::from(TOP) + f64::from(PLOT_HEIGHT) * (high - score) / (high - low);

    let best = search.filter(|search| search.epoch() > 0).map(|search| search.population.best());
    // Up to the last trained epoch: later ones are not known yet.
    let learned = search
        .zip(best)
        .and_then(|(search, best)| best.lineage.schedule(name, search.epoch(), Provenance::default()).ok());
    let state = match (search, best.and_then(|best| best.score)) {
        (Some(search), Some(score)) => {
            let reached = match score.is_finite() {
                true => format!(
                    "best validation accuracy {:.1} %. Dark: the lineage that led there.",
                    100.0 * score
                ),
                false => "every member diverged.".to_owned(),
            };
            format!("{} of {epochs} epochs, {} exploits, {reached}", search.epoch(), copies.len())
        }
        _ => "no scores yet".to_owned(),
    };
    let height = HEIGHT + learned.as_ref().map_or(0, |_| schedule::height(spec.ops.len() as u32));
    let mut plot = Plot::new(None, height, epochs, name, &state);

    for tick in 0..=TICKS {
        let score = low + (high - low) * f64::from(tick) / f64::from(TICKS);
        plot.line(format_args!(
            "<line x1=\"{LEFT}\" y1=\"{0:.1}\" x2=\"{1}\" y2=\"{0:.1}\" stroke=\"#eaeef2\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4:.decimals$} %</text>",
            y(score),
            LEFT + PLOT_WIDTH,
            LEFT - 10,
            y(score) + 4.0,
            100.0 * score
        ));
    }
    let in_lineage = |stretch: &Stretch| best.is_some_and(|best| in_lineage(best, stretch));
    for dark in [false, true] {
        let (color, width) = if dark { ("#0b3d91", 3.0) } else { ("#b6c2cf", 1.2) };
        for stretch in stretches.iter().filter(|stretch| in_lineage(stretch) == dark) {
            if let &Stretch { member, from: (begin, Some(from)), to: (end, Some(to)) } = stretch {
                plot.line(format_args!(
                    "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{color}\" stroke-width=\"{width}\" \
                     stroke-linecap=\"round\"><title>member {member}, epoch {end}: {:.1} %</title></line>",
                    plot.x(begin),
                    y(from),
                    plot.x(end),
                    y(to),
                    100.0 * to
                ));
            }
        }
    }
    for Exploit { epoch, target, clone, target_score, clone_score, .. } in &copies {
        if let (Some(before), Some(after)) = (target_score, clone_score) {
            plot.line(format_args!(
                "<line x1=\"{0:.1}\" y1=\"{1:.1}\" x2=\"{0:.1}\" y2=\"{2:.1}\" stroke=\"#d4782a\" stroke-dasharray=\"2 3\"><title>epoch {epoch}: member {target} copies member {clone}</title></line>",
                plot.x(*epoch),
                y(*before),
                y(*after)
            ));
        }
    }
    plot.axis(TOP + PLOT_HEIGHT, 1, "epoch; dotted: a member copies a better one");
    if let Some(learned) = learned {
        plot.line(format_args!("{}", schedule::draw_at(&learned, epochs, HEIGHT)));
    }
    plot.finish()
}

/// Whether a stretch led to the weights of a member.
pub(super) fn in_lineage(member: &Member, stretch: &Stretch) -> bool {
    let step = member.lineage.0.iter().rev().find(|step| step.epoch < stretch.to.0);
    step.is_some_and(|step| step.member == stretch.member)
}

/// Follows every member from score to score.
pub(super) fn history(population: u32, events: impl Iterator<Item = Event>) -> (Vec<Stretch>, Vec<Exploit>) {
    let (mut stretches, mut copies) = (Vec::new(), Vec::new());
    // Where each member's weights stand: the epoch and the score with which they were last scored.
    let mut stand = vec![None; population as usize];
    for event in events {
        match event {
            Event::Scored { epoch, scores } => {
                for ((member, stand), score) in (0..).zip(&mut stand).zip(scores) {
                    // Before the first score there is a point only.
                    let to = (epoch, score);
                    stretches.push(Stretch { member, from: stand.unwrap_or(to), to });
                    *stand = Some(to);
                }
            }
            Event::Exploit(exploit) => {
                if let Some(stand) = stand.get_mut(exploit.target as usize) {
                    *stand = Some((exploit.epoch, exploit.clone_score));
                }
                copies.push(exploit);
            }
            _ => {}
        }
    }
    (stretches, copies)
}

#[cfg(test)]
mod tests {
    use pba_search::{Spec, run, toy::ToyTrainer};

    use super::*;

    #[test]
    fn a_whole_search_is_drawn() {
        let spec = SearchSpec::from_json(r#"{"population": 8, "epochs": 20, "seed": 1}"#).unwrap();
        let mut search = Search::new(spec.clone());
        let mut events = Vec::new();
        let mut trainer = ToyTrainer::new(&spec);
        run(&mut search, &mut trainer, |event| {
            events.push(event.clone());
            Ok(())
        })
        .unwrap();
        let exploits = events.iter().filter(|event| matches!(event, Event::Exploit(_))).count();
        let svg = draw("toy", &spec, Some(&search), events.into_iter());
        assert_eq!(svg.matches("copies member").count(), exploits);
        assert!(svg.contains("20 of 20 epochs") && svg.contains("epoch of the search"), "{svg}");
        assert!(draw("toy", &spec, None, std::iter::empty()).contains("no scores yet"));
    }

    #[test]
    fn first_scores_that_are_close_are_told_apart() {
        let spec = SearchSpec::from_json(r#"{"population": 2, "epochs": 20}"#).unwrap();
        let mut search = Search::new(spec.clone());
        let scored = Event::scored(3, &[0.101, 0.103]);
        search.apply(&scored).unwrap();
        let svg = draw("close", &spec, Some(&search), std::iter::once(scored));
        let labels: std::collections::BTreeSet<&str> = svg
            .lines()
            .filter(|line| line.ends_with(" %</text>"))
            .map(|line| line.rsplit('>').nth(1).unwrap())
            .collect();
        assert_eq!(labels.len(), 5, "{labels:?}");
        // A first score is a line without length, which only round ends show.
        assert_eq!(svg.matches("stroke-linecap=\"round\"").count(), 2);
    }

    /// Where the rectangles of the schedule end at the most.
    fn drawn_to(svg: &str) -> f64 {
        let bars = svg.lines().filter(|line| line.contains(", epochs "));
        let number = |line: &str, name: &str| -> f64 {
            let (_, rest) = line.split_once(&format!(" {name}=\"")).unwrap();
            rest.split_once('"').unwrap().0.parse().unwrap()
        };
        bars.map(|line| number(line, "x") + number(line, "width")).fold(0.0, f64::max)
    }

    #[test]
    fn nothing_is_drawn_beyond_what_was_trained() {
        let spec = SearchSpec::from_json(r#"{"population": 8, "epochs": 20, "seed": 1}"#).unwrap();
        let mut search = Search::new(spec.clone());
        let mut events = Vec::new();
        run(&mut search, &mut ToyTrainer::new(&spec), |event| {
            events.push(event.clone());
            Ok(())
        })
        .unwrap();
        let mut so_far = Search::new(spec.clone());
        for (position, event) in events.iter().enumerate() {
            so_far.apply(event).unwrap();
            let svg = draw("toy", &spec, Some(&so_far), events[..=position].iter().cloned());
            let trained = f64::from(LEFT)
                + f64::from(PLOT_WIDTH) * f64::from(so_far.epoch()) / f64::from(spec.training.epochs);
            assert!(drawn_to(&svg) <= trained + 0.01, "after {event:?}: {} > {trained}", drawn_to(&svg));
            let says = format!("{} of 20 epochs, segments: ", so_far.epoch());
            let is_done = so_far.epoch() == 20;
            assert!(is_done || svg.contains(&says), "{svg} does not say {says:?}");
        }
        assert!(
            (drawn_to(&draw("toy", &spec, Some(&so_far), events.into_iter())) - f64::from(LEFT + PLOT_WIDTH))
                .abs()
                < 0.01
        );
    }
}
