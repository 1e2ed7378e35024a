//! The report of a comparison: means, differences with their intervals, and what they say.

use pba_specs::{Arm, ArmResults, ComparisonResults, ComparisonSpec, Entry};

use crate::contrast::{Errors, Subject, subjects};
use crate::recommend::recommend;
use crate::statistics::{CONFIDENCE, deviation, mean};

/// The policy that costs nothing to find, and that others are measured by.
const REFERENCE: &str = "trivial-augment-wide";

/// How one run ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Position of its arm.
    pub(crate) arm: usize,
    /// Position of its seed.
    pub(crate) seed: u32,
    /// Share of the images that it gets wrong; none when it diverged.
    pub(crate) error: Option<f64>,
}

/// The report of the runs of a comparison that have ended, scored on so many images.
pub(crate) fn report(
    spec: &ComparisonSpec,
    schedule_digests: &[Option<String>],
    outcomes: &[Outcome],
    images: Option<usize>,
) -> ComparisonResults {
    // An error is a number of images: rounding alone gives a difference of two a variance of 2/12 of an image.
    let floor = images.map_or(0.0, |images| 1.0 / (6.0 * (images as f64).powi(2)));
    let by_arm = vec![vec![None; spec.seeds as usize]; spec.arms.len()];
    let mut errors = Errors { by_arm, floor, margin: spec.margin / 100.0 };
    let mut diverged = vec![0; spec.arms.len()];
    for outcome in outcomes {
        errors.by_arm[outcome.arm][outcome.seed as usize] = outcome.error;
        diverged[outcome.arm] += u32::from(outcome.error.is_none());
    }
    let arm = |(position, arm): (usize, &Arm)| ArmResults {
        entry: entry(arm.to_string(), &errors.of(position)),
        schedule_digest: schedule_digests[position].clone(),
        diverged: diverged[position],
        errors: errors.by_arm[position].clone(),
    };
    let subjects = subjects(spec);
    let of_group = |subject: &Subject| {
        let means: Vec<f64> = subject.arms.iter().filter_map(|&arm| mean(&errors.of(arm))).collect();
        entry(subject.name.clone(), &means)
    };
    let contrast =
        |(one, other): &(usize, usize)| errors.contrast(spec, &subjects[*one], &subjects[*other], CONFIDENCE);
    let mut results = ComparisonResults {
        score: spec.score,
        split: None,
        images: None,
        runs: spec.runs(),
        runs_done: outcomes.len() as u32,
        arms: spec.arms.iter().enumerate().map(arm).collect(),
        groups: subjects.iter().filter(|subject| subject.arms.len() > 1).map(of_group).collect(),
        contrasts: pairs(spec, &subjects).iter().map(contrast).collect(),
        tuning: None,
        recommended: None,
        verdict: None,
        stream_command: None,
    };
    if outcomes.len() == spec.arms.len() * spec.seeds as usize
        && let Some((recommended, verdict)) = recommend(spec, &subjects, &errors)
    {
        (results.recommended, results.verdict) = (Some(spec.arms[recommended].to_string()), Some(verdict));
    }
    results
}

fn entry(name: String, errors: &[f64]) -> Entry {
    Entry { name, mean: mean(errors), deviation: deviation(errors), n: errors.len() as u32 }
}

/// Which subjects are compared: each with the baseline, each with the policy that costs nothing, a
/// schedule with its ablations, and a group with every later one.
fn pairs(spec: &ComparisonSpec, subjects: &[Subject]) -> Vec<(usize, usize)> {
    let all = 0..subjects.len();
    let mut pairs: Vec<(usize, usize)> = all.clone().skip(1).map(|one| (one, 0)).collect();
    if let Some(reference) = all.clone().find(|&one| subjects[one].name == REFERENCE && one != 0) {
        pairs.extend(all.clone().skip(1).filter(|&one| one != reference).map(|one| (one, reference)));
    }
    let scheduled = |subject: &Subject| match subject.arms[..] {
        [arm] => spec.arms[arm].schedule(),
        _ => None,
    };
    for one in all.clone() {
        for other in one + 1..all.end {
            let (first, second) = (&subjects[one], &subjects[other]);
            let are_groups = first.arms.len() > 1 && second.arms.len() > 1;
            let are_of_one = scheduled(first).is_some() && scheduled(first) == scheduled(second);
            if (are_groups || are_of_one) && !pairs.contains(&(other, one)) {
                pairs.push((one, other));
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use pba_specs::{Candidate, Contrast, Spec, Tuning, Unit, Verdict};

    use super::*;
    use crate::markdown::markdown;

    fn spec(text: &str) -> ComparisonSpec {
        ComparisonSpec::from_json(text).unwrap()
    }

    /// The report of the errors of each arm by seed.
    fn of(spec: &ComparisonSpec, errors: &[&[f64]]) -> ComparisonResults {
        let outcomes = errors.iter().enumerate().flat_map(|(arm, errors)| {
            (0..).zip(*errors).map(move |(seed, &error)| Outcome {
                arm,
                seed,
                error: error.is_finite().then_some(error),
            })
        });
        report(spec, &vec![None; spec.arms.len()], &outcomes.collect::<Vec<_>>(), Some(10_000))
    }

    fn contrast<'a>(results: &'a ComparisonResults, arm: &str, against: &str) -> &'a Contrast {
        let found =
            results.contrasts.iter().find(|contrast| contrast.arm == arm && contrast.against == against);
        found.unwrap_or_else(|| panic!("no contrast of {arm} and {against}"))
    }

    #[test]
    fn arms_are_paired_by_seed() {
        let spec = spec(r#"{"arms": ["none", "a"], "seeds": 3}"#);
        // Seeds differ by far more than the arms.
        let results = of(&spec, &[&[0.30, 0.40, 0.50], &[0.28, 0.39, 0.47]]);
        let contrast = contrast(&results, "a", "none");
        assert_eq!((contrast.n, contrast.unit), (3, Unit::Seed));
        let [low, high] = contrast.interval.unwrap();
        // -2, -1 and -3 points: mean -2, deviation 1, and Student's quantile for 2 degrees is 4.3027.
        let half = 0.01 * 4.302_653 / 3f64.sqrt();
        assert!((low - (-0.02 - half)).abs() < 1e-6 && (high - (-0.02 + half)).abs() < 1e-6, "{low} {high}");
        assert_eq!(contrast.verdict, Some(Verdict::TooFew));
        assert_eq!(results.recommended.as_deref(), Some("none"), "it is not shown to be better");
        assert!(results.verdict.unwrap().contains("a is not shown to be better than none"));
    }

    #[test]
    fn one_seed_is_too_few() {
        let results = of(&spec(r#"{"arms": ["none", "a"], "seeds": 1}"#), &[&[0.5], &[0.1]]);
        let contrast = contrast(&results, "a", "none");
        assert_eq!((contrast.interval, contrast.verdict), (None, Some(Verdict::TooFew)));
        assert_eq!(results.arms[0].entry.deviation, None);
    }

    #[test]
    fn what_diverged_is_counted_and_left_out() {
        let spec = spec(r#"{"arms": ["none", "a"], "seeds": 3}"#);
        let results = of(&spec, &[&[0.5, 0.5, 0.5], &[0.4, f64::NAN, 0.4]]);
        assert_eq!((results.arms[1].diverged, results.arms[1].entry.n), (1, 2));
        assert_eq!(contrast(&results, "a", "none").n, 2);
        assert_eq!(results.recommended.as_deref(), Some("none"), "what diverges is not trained with");
    }

    #[test]
    fn a_groups_interval_is_over_its_arms_too() {
        let text = r#"{"arms": ["none", "a", "b", "a@shuffled", "b@shuffled"], "seeds": 2,
                       "groups": {"learned": ["a", "b"], "order": ["a@shuffled", "b@shuffled"]}}"#;
        let results =
            of(&spec(text), &[&[0.50, 0.52], &[0.30, 0.32], &[0.40, 0.42], &[0.31, 0.33], &[0.41, 0.43]]);
        assert_eq!((results.groups.len(), results.groups[0].n, results.groups[0].mean), (2, 2, Some(0.36)));
        let against_base = contrast(&results, "learned", "none");
        assert_eq!((against_base.n, against_base.unit), (2, Unit::Arm));
        // The arms differ by 10 points, the seeds by none: Student's quantile for 1 degree is 12.706.
        let [low, high] = against_base.interval.unwrap();
        assert!(((high - low) / 2.0 - 12.706_205 * 0.05).abs() < 1e-5, "{low} {high}");
        // Each arm is a point better than its own ablation, without exception.
        let against_order = contrast(&results, "learned", "order");
        assert!((against_order.difference.unwrap() + 0.01).abs() < 1e-12);
        assert_eq!(against_order.verdict, Some(Verdict::Better));
    }

    #[test]
    fn contrasts_are_what_one_would_ask() {
        let text = r#"{"arms": ["none", "trivial-augment-wide", "mine", "mine@shuffled", "random:1"]}"#;
        let results = of(&spec(text), &[]);
        let asked: Vec<String> = results
            .contrasts
            .iter()
            .map(|contrast| format!("{}/{}", contrast.arm, contrast.against))
            .collect();
        assert_eq!(
            asked.join(" "),
            "trivial-augment-wide/none mine/none mine@shuffled/none random:1/none mine/trivial-augment-wide \
             mine@shuffled/trivial-augment-wide random:1/trivial-augment-wide mine/mine@shuffled"
        );
        assert_eq!(results.recommended, None, "nothing has been trained");
    }

    /// Each pair is compared once, whichever arm is the baseline; groups are compared with each other.
    #[test]
    fn no_contrast_is_asked_twice() {
        let asked = |text: &str| {
            let results = of(&spec(text), &[]);
            let pairs = results.contrasts.iter().map(|one| format!("{}/{}", one.arm, one.against));
            pairs.collect::<Vec<_>>().join(" ")
        };
        let ablations = r#"{"arms": ["mine", "mine@shuffled", "mine@final"]}"#;
        assert_eq!(asked(ablations), "mine@shuffled/mine mine@final/mine mine@shuffled/mine@final");
        let reference = r#"{"arms": ["trivial-augment-wide", "mine"]}"#;
        assert_eq!(asked(reference), "mine/trivial-augment-wide");
        let groups = r#"{"arms": ["none", "cutout:4", "a", "b", "x", "y", "z", "cutout:8"],
                         "groups": {"first": ["a", "b"], "second": ["x", "y"]}}"#;
        assert_eq!(asked(groups), "cutout:4/none first/none second/none z/none cutout:8/none first/second");
    }

    /// What is recommended, of arms with errors by seed.
    fn recommended(arms: &[(&str, &[f64])]) -> Option<String> {
        let names: Vec<&str> = arms.iter().map(|(name, _)| *name).collect();
        let seeds = arms[0].1.len();
        let spec = spec(&format!(r#"{{"arms": {names:?}, "seeds": {seeds}}}"#));
        let results = of(&spec, &arms.iter().map(|(_, errors)| *errors).collect::<Vec<_>>());
        assert_eq!(results.recommended.is_some(), results.verdict.is_some());
        results.recommended
    }

    #[test]
    fn what_costs_nothing_is_recommended_unless_it_is_beaten() {
        const TA: &str = "trivial-augment-wide";
        let (none, ta): (&[f64], &[f64]) = (&[0.5, 0.5, 0.5], &[0.40, 0.41, 0.40]);
        let beside = |mine: &[f64]| recommended(&[("none", none), (TA, ta), ("mine", mine)]).unwrap();
        assert_eq!(beside(&[0.30, 0.31, 0.30]), "mine");
        assert_eq!(beside(&[0.30, 0.45, 0.30]), TA, "by chance, perhaps");
        assert_eq!(beside(&[0.45, 0.46, 0.45]), TA);
        // The best of what costs nothing need not be TrivialAugment; and who only beats that beats nothing.
        let (near, bad): (&[f64], &[f64]) = (&[0.304, 0.302, 0.306], &[0.45, 0.46, 0.45]);
        assert_eq!(
            recommended(&[("none", &[0.305, 0.305, 0.305]), (TA, bad), ("mine", near)]).unwrap(),
            "none"
        );
        // Nor can it be one that diverged, a random schedule or untouched images.
        let gone: &[f64] = &[f64::NAN, 0.1, 0.1];
        assert_eq!(recommended(&[("none", none), (TA, gone)]).unwrap(), "none");
        let low: &[f64] = &[0.1, 0.1, 0.1];
        assert_eq!(recommended(&[("random:1", low), ("identity", low), ("none", none)]).unwrap(), "none");
        assert_eq!(recommended(&[("random:1", low), ("identity", low)]), None);
        assert_eq!(recommended(&[("random:1", low), ("mine", none)]).unwrap(), "mine");
    }

    #[test]
    fn a_group_is_answered_by_one_of_its_arms() {
        let text = r#"{"arms": ["a", "b", "none"], "groups": {"learned": ["a", "b"]}, "seeds": 3}"#;
        let results = of(&spec(text), &[&[0.30, 0.31, 0.30], &[0.29, 0.30, 0.29], &[0.5, 0.51, 0.5]]);
        assert_eq!(results.recommended.as_deref(), Some("b"));
        assert!(results.verdict.unwrap().starts_with("learned is better than none"));
    }

    /// A baseline may be compared with a group, and groups with others that nothing pairs: the interval is over
    /// the arms of each.
    #[test]
    fn an_interval_is_over_the_arms_of_whichever_side_has_some() {
        let text = r#"{"arms": ["a", "b", "none", "random:1", "random:2"], "seeds": 2,
                       "groups": {"learned": ["a", "b"], "chance": ["random:1", "random:2"]}}"#;
        let errors: [&[f64]; 5] = [&[0.30; 2], &[0.40; 2], &[0.50; 2], &[0.55; 2], &[0.57; 2]];
        let results = of(&spec(text), &errors);
        let check = |arm: &str, against: &str, difference: f64, half: f64| {
            let contrast = contrast(&results, arm, against);
            assert_eq!((contrast.n, contrast.unit), (2, Unit::Arm), "{arm} {against}");
            let [low, high] = contrast.interval.unwrap();
            let (middle, width) = ((low + high) / 2.0, (high - low) / 2.0);
            assert!((middle - difference).abs() < 1e-9 && (width - half).abs() < 1e-4, "{low} {high}");
            assert_eq!(contrast.difference.map(|found| (found - difference).abs() < 1e-9), Some(true));
        };
        // Two arms that differ by d have a mean of variance d^2 / 4; Student's quantile for 1 degree is 12.706.
        check("none", "learned", 0.15, 12.706_205 * 0.05);
        // Welch: variances 0.0025 and 0.0001, degrees (0.0026)^2 / (0.0025^2 + 0.0001^2) = 1.0799, whose quantile
        // is 10.6870.
        check("chance", "learned", 0.21, 10.686_999 * 0.0026f64.sqrt());
    }

    /// An error is a number of images, so that equal ones may hide a difference of less than one.
    #[test]
    fn no_difference_is_known_better_than_rounding() {
        let spec = spec(r#"{"arms": ["none", "a"], "seeds": 2}"#);
        let outcomes: Vec<Outcome> =
            (0..2).flat_map(|arm| (0..2).map(move |seed| Outcome { arm, seed, error: Some(0.5) })).collect();
        let results = report(&spec, &[None, None], &outcomes, Some(10));
        let [low, high] = contrast(&results, "a", "none").interval.unwrap();
        // The difference of two roundings to a tenth has a variance of 2 / 12 of a hundredth; of two such, the mean.
        let half = 12.706_205 * (0.01 * 2.0 / 12.0 / 2.0f64).sqrt();
        assert!((high - half).abs() < 1e-5 && (low + half).abs() < 1e-5, "{low} {high}");
        let results = report(&spec, &[None, None], &outcomes, None);
        assert_eq!(
            contrast(&results, "a", "none").interval,
            Some([0.0, 0.0]),
            "where nothing is known of images"
        );
    }

    /// The verdict's figures, by hand: Student's quantiles for 2 degrees are 4.3027 at 95 % and 6.2053 at 97.5 %.
    #[test]
    fn a_verdict_says_its_figures() {
        let verdict = |text: &str, errors: &[&[f64]]| of(&spec(text), errors).verdict.unwrap();
        let (none, mine): (&[f64], &[f64]) = (&[0.30, 0.40, 0.50], &[0.28, 0.39, 0.47]);
        assert_eq!(
            verdict(r#"{"arms": ["none", "a"], "seeds": 3}"#, &[none, mine]),
            "a is not shown to be better than none, which costs nothing (-2.00 points of error, 95 % interval -4.48 to \
             +0.48, 3 seeds)."
        );
        assert_eq!(
            verdict(r#"{"arms": ["none", "b", "a"], "seeds": 3}"#, &[none, &[0.5, 0.5, 0.5], mine]),
            "a is not shown to be better than none, which costs nothing (-2.00 points of error, 97.5 % interval -5.58 \
             to +1.58, 3 seeds)."
        );
        assert_eq!(
            verdict(r#"{"arms": ["none", "a"], "seeds": 1}"#, &[&[0.5], &[0.25]]),
            "a is not shown to be better than none, which costs nothing (-25.00 points of error, 1 seed)."
        );
        assert_eq!(
            verdict(r#"{"arms": ["none", "a"], "seeds": 2}"#, &[&[0.5, 0.5], &[0.25, 0.25]]),
            "a is better than none (-25.00 points of error, 95 % interval -25.04 to -24.96, 2 seeds)."
        );
        assert_eq!(
            verdict(r#"{"arms": ["none", "identity"], "seeds": 1}"#, &[&[0.5], &[0.25]]),
            "none is the only arm to recommend: controls and arms that diverge are not."
        );
        assert_eq!(
            verdict(r#"{"arms": ["random:1", "a"], "seeds": 1}"#, &[&[0.5], &[0.25]]),
            "a is the only arm to recommend: controls and arms that diverge are not; there is no arm that costs nothing."
        );
    }

    /// The lowest mean is called no more than that, unless the runs show it to be better than the next.
    #[test]
    fn the_first_of_several_is_not_called_the_best_by_chance() {
        let verdict = |text: &str, errors: &[&[f64]]| of(&spec(text), errors).verdict.unwrap();
        let two = r#"{"arms": ["none", "trivial-augment-wide"], "seeds": 3}"#;
        assert_eq!(
            verdict(two, &[&[0.30, 0.40, 0.50], &[0.28, 0.39, 0.47]]),
            "trivial-augment-wide has the lowest mean error; too few runs to tell it from none, the next best (-2.00 \
             points of error, 95 % interval -4.48 to +0.48, 3 seeds)."
        );
        assert_eq!(
            verdict(two, &[&[0.5, 0.5, 0.5], &[0.25, 0.25, 0.25]]),
            "trivial-augment-wide is better than none, the next best (-25.00 points of error, 95 % interval -25.01 to \
             -24.99, 3 seeds)."
        );
        let near: &[f64] = &[0.49995, 0.49995, 0.49995];
        let says = verdict(two, &[&[0.5, 0.5, 0.5], near]);
        assert!(
            says.starts_with("trivial-augment-wide has the lowest mean error, with no difference within"),
            "{says}"
        );
        // Two others, so that the interval is of 97.5 %: what suffices for one of them does not.
        let three = r#"{"arms": ["none", "cutout:4", "trivial-augment-wide"], "seeds": 3}"#;
        let (none, mine): (&[f64], &[f64]) = (&[0.30, 0.40, 0.50], &[0.280, 0.387, 0.473]);
        assert!(verdict(two, &[none, mine]).contains("is better than none, the next best"));
        let says = verdict(three, &[none, &[0.6, 0.6, 0.6], mine]);
        assert!(
            says.contains("too few runs to tell it from none, the next best") && says.contains("97.5 %"),
            "{says}"
        );
        let searched = r#"{"arms": ["a", "b"], "seeds": 3}"#;
        let says = verdict(searched, &[&[0.30, 0.40, 0.50], &[0.28, 0.39, 0.47]]);
        assert!(says.starts_with("b has the lowest mean error; too few runs to tell it from a"), "{says}");
        assert!(says.ends_with("; there is no arm that costs nothing."), "{says}");
    }

    /// A control is there to compare with: a group that holds one is not recommended, however low its errors.
    #[test]
    fn a_group_with_a_control_is_not_recommended() {
        let text = r#"{"arms": ["none", "a", "random:1"], "groups": {"g": ["a", "random:1"]}, "seeds": 2}"#;
        let results = of(&spec(text), &[&[0.5, 0.5], &[0.1, 0.1], &[0.1, 0.1]]);
        assert_eq!(results.recommended.as_deref(), Some("none"));
    }

    /// The more there is to choose from, the more it takes.
    #[test]
    fn the_best_of_many_has_to_be_better_by_more() {
        let none: &[f64] = &[0.50, 0.50, 0.50, 0.50];
        let (mine, others): (&[f64], &[f64]) = (&[0.48, 0.49, 0.485, 0.497], &[0.5, 0.51, 0.5, 0.51]);
        assert_eq!(recommended(&[("none", none), ("a", mine)]).unwrap(), "a");
        let among = [("none", none), ("a", mine), ("b", others), ("c", others), ("d", others), ("e", others)];
        assert_eq!(recommended(&among).unwrap(), "none");
    }

    #[test]
    fn groups_are_paired_by_schedule_and_not_by_position() {
        let text = r#"{"arms": ["a", "b", "b@final", "a@final", "random:1", "random:2"], "seeds": 2,
                       "groups": {"learned": ["a", "b"], "last": ["b@final", "a@final"],
                                  "chance": ["random:1", "random:2"]}}"#;
        let results = of(
            &spec(text),
            &[&[0.30, 0.32], &[0.40, 0.42], &[0.41, 0.43], &[0.31, 0.33], &[0.31, 0.33], &[0.41, 0.43]],
        );
        assert_eq!(contrast(&results, "last", "learned").verdict, Some(Verdict::Worse));
        assert_eq!(
            contrast(&results, "chance", "learned").verdict,
            Some(Verdict::TooFew),
            "nothing pairs them"
        );
    }

    #[test]
    fn the_markdown_holds_every_figure() {
        let spec = spec(r#"{"name": "x", "arms": ["none", "a"], "seeds": 2, "margin": 3}"#);
        let text =
            markdown(&spec, &of(&spec, &[&[0.5, 0.52], &[0.49, 0.511]]), Some("Trained for 3 s on cpu."));
        for part in [
            "# x",
            "| none | 51.00 | 1.41 | 2 | 50.00 52.00 |",
            "| a | none | -0.95 |",
            "4 of 4 runs",
            "for 3 s on cpu",
        ] {
            assert!(text.contains(part), "{text}\ndoes not hold {part:?}");
        }
        assert!(!text.contains("group") && !text.contains("diverged"), "{text}");
    }

    #[test]
    fn the_markdown_says_what_diverged_and_what_was_tuned() {
        let text = r#"{"arms": ["none", "a", "b"], "groups": {"learned": ["a", "b"]}, "seeds": 2}"#;
        let spec = spec(text);
        let mut results = of(&spec, &[&[0.5, 0.5], &[0.25, f64::NAN], &[f64::NAN, f64::NAN]]);
        results.tuning = Some(Tuning {
            chosen: "randaugment:1:6".to_owned(),
            candidates: vec![
                Candidate { arm: "randaugment:1:3".to_owned(), mean: None },
                Candidate { arm: "randaugment:1:6".to_owned(), mean: Some(0.125) },
            ],
            seeds: 3,
            images: 64,
        });
        let text = markdown(&spec, &results, None);
        for part in [
            "\n| none | 50.00 | 0.00 | 2 | 50.00 50.00 |\n| a | 25.00 | - | 1 (1 diverged) | 25.00 - |\n\
             | b | - | - | 0 (2 diverged) | - - |\n",
            "\n| group | mean error, % | deviation of its arms | arms |\n| --- | ---: | ---: | ---: |\n\
             | learned | 25.00 | - | 1 |\n",
            "\n`randaugment:tuned` is `randaugment:1:6`, the best of 2 settings on 64 validation images with 3 seeds \
             each, 6 runs:\n\n| setting | mean validation error, % |\n| --- | ---: |\n| randaugment:1:3 | - |\n\
             | randaugment:1:6 | 12.50 |\n",
        ] {
            assert!(text.contains(part), "{text}\ndoes not hold {part:?}");
        }
    }
}
