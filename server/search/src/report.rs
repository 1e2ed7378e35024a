//! The report of a comparison: means, paired differences with their intervals, and what they say.

use std::fmt::Write;

use pba_schedules::{Ablation, library};
use pba_specs::{Arm, ArmResults, ComparisonResults, ComparisonSpec, Contrast, Entry, Tuning, Unit, Verdict};

use crate::statistics::{CONFIDENCE, Uncertainty, deviation, interval, mean};

/// The policy that costs nothing to find, and that others are measured by.
pub const REFERENCE: &str = "trivial-augment-wide";

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

/// The errors of all runs so far, and what is made of them.
struct Errors {
    /// By arm and seed.
    by_arm: Vec<Vec<Option<f64>>>,
    /// Least variance of a difference.
    floor: f64,
    /// Share of the images that would not matter.
    margin: f64,
}

/// An arm or a group: what has a mean.
struct Subject {
    name: String,
    /// Positions of its arms.
    arms: Vec<usize>,
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

/// The groups, and the arms that are in none, in the order of the arms.
fn subjects(spec: &ComparisonSpec) -> Vec<Subject> {
    let position = |arm: &Arm| spec.arms.iter().position(|other| other == arm).expect("a checked spec");
    let group = |(name, arms): (&String, &Vec<Arm>)| Subject {
        name: name.clone(),
        arms: arms.iter().map(position).collect(),
    };
    let mut subjects: Vec<Subject> = spec.groups.iter().map(group).collect();
    for (arm, name) in spec.arms.iter().enumerate() {
        if !subjects.iter().any(|subject| subject.arms.contains(&arm)) {
            subjects.push(Subject { name: name.to_string(), arms: vec![arm] });
        }
    }
    subjects.sort_by_key(|subject| subject.arms.iter().min().copied());
    subjects
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

impl Errors {
    /// The errors of an arm.
    fn of(&self, arm: usize) -> Vec<f64> {
        self.by_arm[arm].iter().copied().flatten().collect()
    }

    /// The mean error of an arm.
    fn mean_of(&self, arm: usize) -> Option<f64> {
        mean(&self.of(arm))
    }

    /// The mean error of a subject, over the arms that have any.
    fn mean(&self, subject: &Subject) -> Option<f64> {
        mean(&subject.arms.iter().filter_map(|&arm| mean(&self.of(arm))).collect::<Vec<_>>())
    }

    /// The difference of two subjects, over the seeds that all their arms have.
    ///
    /// Between two arms it is paired by seed. A group is a sample of what its arms stand for: its
    /// differences vary over the arms, and over the seeds, which all arms share; the interval adds both.
    /// Two groups of the same schedules, as with an ablation, are paired by schedule.
    fn contrast(&self, spec: &ComparisonSpec, one: &Subject, other: &Subject, confidence: f64) -> Contrast {
        let (one, other) = (one, &aligned(spec, one, other));
        let are_paired = other.arms.len() == 1 || schedules(spec, one) == schedules(spec, other);
        let seeds = (0..self.by_arm[0].len())
            .filter(|&seed| one.arms.iter().chain(&other.arms).all(|&arm| self.by_arm[arm][seed].is_some()));
        let seeds: Vec<usize> = seeds.collect();
        let by_arm = |subject: &Subject| -> Vec<Vec<f64>> {
            let errors = |&arm: &usize| seeds.iter().filter_map(|&seed| self.by_arm[arm][seed]).collect();
            subject.arms.iter().map(errors).collect()
        };
        let (ones, others) = (by_arm(one), by_arm(other));
        let by_seed =
            |arms: &[Vec<f64>], seed| mean(&arms.iter().map(|errors| errors[seed]).collect::<Vec<_>>());
        let over_seeds: Vec<f64> = (0..seeds.len())
            .filter_map(|seed| Some(by_seed(&ones, seed)? - by_seed(&others, seed)?))
            .collect();
        let difference = mean(&over_seeds);
        let means = |arms: &[Vec<f64>]| arms.iter().filter_map(|errors| mean(errors)).collect::<Vec<f64>>();
        let (ones, others) = (means(&ones), means(&others));
        let over_arms: Vec<Vec<f64>> = match (ones.len(), others.len()) {
            (0 | 1, 0 | 1) => Vec::new(),
            _ if are_paired => {
                vec![ones.iter().zip(others.iter().cycle()).map(|(one, other)| one - other).collect()]
            }
            (1, _) => vec![others],
            _ => vec![ones, others],
        };
        let unit = if over_arms.is_empty() { Unit::Seed } else { Unit::Arm };
        let n = over_arms.iter().map(Vec::len).min().unwrap_or(over_seeds.len()) as u32;
        let parts: Option<Vec<Uncertainty>> = over_arms
            .iter()
            .chain([&over_seeds])
            .map(|differences| Uncertainty::of_mean(differences, self.floor))
            .collect();
        let interval =
            difference.zip(parts).map(|(difference, parts)| interval(difference, &parts, confidence));
        let verdict = difference.map(|_| verdict(interval, self.margin));
        Contrast {
            arm: one.name.clone(),
            against: other.name.clone(),
            difference,
            interval,
            n,
            unit,
            verdict,
        }
    }
}

fn verdict(interval: Option<[f64; 2]>, margin: f64) -> Verdict {
    match interval {
        Some([_, high]) if high < 0.0 => Verdict::Better,
        Some([low, _]) if low > 0.0 => Verdict::Worse,
        Some([low, high]) if low >= -margin && high <= margin => Verdict::NoDifference,
        _ => Verdict::TooFew,
    }
}

/// The schedules of a subject's arms, in order; none where an arm has none.
fn schedules<'a>(spec: &'a ComparisonSpec, subject: &Subject) -> Option<Vec<&'a str>> {
    subject.arms.iter().map(|&arm| spec.arms[arm].schedule()).collect()
}

/// The second of two subjects with its arms in the order of the first one's schedules, if they have the same.
fn aligned(spec: &ComparisonSpec, one: &Subject, other: &Subject) -> Subject {
    let place = |schedule: Option<&str>| {
        let is_it = |&&arm: &&usize| schedule.is_some() && spec.arms[arm].schedule() == schedule;
        other.arms.iter().find(is_it).copied()
    };
    let arms: Option<Vec<usize>> = one.arms.iter().map(|&arm| place(spec.arms[arm].schedule())).collect();
    let arms = arms.filter(|arms| {
        let mut each = arms.clone();
        each.sort_unstable();
        each.dedup();
        each.len() == other.arms.len()
    });
    Subject { name: other.name.clone(), arms: arms.unwrap_or_else(|| other.arms.clone()) }
}

/// What an arm costs to find.
#[derive(PartialEq)]
enum Cost {
    /// Nothing: it is there for everybody.
    Free,
    /// A search, or runs to tune it.
    Searched,
    /// It is there to compare with, and not to train with.
    Control,
}

fn cost(arm: &Arm) -> Cost {
    match arm {
        Arm::Identity | Arm::Random(_) => Cost::Control,
        Arm::Base | Arm::Cutout(_) => Cost::Free,
        Arm::Tuned => Cost::Searched,
        Arm::Schedule { name, ablation: Ablation::Scheduled }
            if matches!(library::named(name), Ok(Some(_))) =>
        {
            Cost::Free
        }
        Arm::Schedule { .. } => Cost::Searched,
    }
}

/// The arm to train with, and why: the best of those that cost nothing, unless the best of the others is shown
/// to be better. An arm of which a model diverged is not recommended. As the others are several, the interval
/// that decides is wider than those of the table (Bonferroni).
fn recommend(spec: &ComparisonSpec, subjects: &[Subject], errors: &Errors) -> Option<(usize, String)> {
    let is_whole = |arm: &usize| errors.by_arm[*arm].iter().all(Option::is_some);
    let lowest = |arms: &[usize]| {
        let worth = |&arm: &usize| errors.mean_of(arm).unwrap_or(f64::INFINITY);
        arms.iter().copied().min_by(|one, other| worth(one).total_cmp(&worth(other)))
    };
    let free: Vec<usize> = (0..spec.arms.len()).filter(|&arm| cost(&spec.arms[arm]) == Cost::Free).collect();
    let free = lowest(&free.into_iter().filter(is_whole).collect::<Vec<_>>());
    let is_searched = |subject: &&Subject| {
        let costs = || subject.arms.iter().map(|&arm| cost(&spec.arms[arm]));
        costs().all(|cost| cost != Cost::Control) && costs().any(|cost| cost == Cost::Searched)
    };
    let searched: Vec<&Subject> = subjects.iter().filter(is_searched).collect();
    let candidates = searched.iter().filter(|subject| subject.arms.iter().all(is_whole));
    let worth = |subject: &&&Subject| errors.mean(subject).unwrap_or(f64::INFINITY);
    let best = candidates.min_by(|one, other| worth(one).total_cmp(&worth(other)));
    let name = |arm: usize| spec.arms[arm].to_string();
    match (free, best) {
        (None, None) => None,
        (Some(free), None) => Some((free, format!("{} is the best of what costs nothing.", name(free)))),
        (None, Some(best)) => {
            let says =
                format!("{} is the best, with nothing that costs nothing to compare it with.", best.name);
            Some((lowest(&best.arms)?, says))
        }
        (Some(free), Some(best)) => {
            let confidence = 1.0 - (1.0 - CONFIDENCE) / searched.len() as f64;
            let reference = Subject { name: name(free), arms: vec![free] };
            let contrast = errors.contrast(spec, best, &reference, confidence);
            let figures = says(&contrast, confidence);
            if contrast.verdict == Some(Verdict::Better) {
                // Of a group, the arm that did best.
                let says = format!("{} is better than {} ({figures}).", best.name, name(free));
                return Some((lowest(&best.arms)?, says));
            }
            let says = format!(
                "{} is not shown to be better than {}, which costs nothing ({figures}).",
                best.name,
                name(free)
            );
            Some((free, says))
        }
    }
}

/// The command that streams the first epoch of training with an arm; `chosen` is what a tuned one was
/// tuned to.
pub(crate) fn stream_command(spec: &ComparisonSpec, arm: &Arm, chosen: Option<&str>) -> String {
    let training = &spec.training;
    let mut base = training.base.clone();
    let (schedule, ablation) = match arm {
        Arm::Schedule { name, ablation } => (name.as_str(), *ablation),
        Arm::Tuned => (chosen.unwrap_or("none"), Ablation::Scheduled),
        Arm::Identity => ("identity", Ablation::Scheduled),
        Arm::Cutout(size) => {
            let kept = base.iter().flat_map(|base| base.split(','));
            let kept = kept.filter(|step| !step.starts_with("cutout:") && *step != "identity");
            base =
                Some(kept.map(str::to_owned).chain([format!("cutout:{size}")]).collect::<Vec<_>>().join(","));
            ("none", Ablation::Scheduled)
        }
        Arm::Base | Arm::Random(_) => ("none", Ablation::Scheduled),
    };
    let mut command = format!("pba stream --dataset {} --schedule {schedule}", training.dataset);
    if ablation != Ablation::Scheduled {
        command += &format!(" --ablation {ablation}");
    }
    if let Some(base) = base.filter(|_| *arm != Arm::Identity) {
        command += &format!(" --base {base}");
    }
    command + &format!(" --epochs {} --epoch 0", training.epochs)
}

/// A contrast's figures, in words.
fn says(contrast: &Contrast, confidence: f64) -> String {
    let points = |share: f64| format!("{:+.2}", 100.0 * share);
    let difference = contrast.difference.map_or("no difference known".to_owned(), |difference| {
        format!("{} points of error", points(difference))
    });
    let interval = contrast.interval.map_or(String::new(), |[low, high]| {
        let percent = (1e4 * confidence).round() / 1e2;
        format!(", {percent} % interval {} to {}", points(low), points(high))
    });
    let unit = match (contrast.unit, contrast.n) {
        (unit, 1) => unit.name().to_owned(),
        (unit, _) => format!("{unit}s"),
    };
    format!("{difference}{interval}, {} {unit}", contrast.n)
}

/// The report as Markdown, below a heading of the comparison's name; `circumstances` are a sentence about where
/// and for how long it trained.
pub fn markdown(spec: &ComparisonSpec, results: &ComparisonResults, circumstances: Option<&str>) -> String {
    let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.2}", 100.0 * share));
    let mut text = format!("# {}\n\n", spec.name);
    let mut line =
        |arguments: std::fmt::Arguments<'_>| writeln!(text, "{arguments}").expect("a string takes text");
    let training = &spec.training;
    line(format_args!(
        "`{}` on `{}`: {} training images, {} epochs, base augmentation `{}`, seed {}. {} of {} runs have ended.",
        training.model,
        training.dataset,
        spec.train_size.map_or("the model's own number of".to_owned(), |size| size.to_string()),
        training.epochs,
        training.base.as_deref().unwrap_or("the dataset's own"),
        training.seed,
        results.runs_done,
        results.runs,
    ));
    if let (Some(split), Some(images)) = (&results.split, results.images) {
        line(format_args!("Errors are percentages of {images} images of the split `{split}`."));
    }
    if let Some(circumstances) = circumstances {
        line(format_args!("{circumstances}"));
    }
    if let Some(verdict) = &results.verdict {
        line(format_args!("\n**{verdict}**"));
    }
    if let (Some(arm), Some(command)) = (&results.recommended, &results.stream_command) {
        line(format_args!("\nTrain with `{arm}`: `{command}`"));
    }
    line(format_args!(
        "\n| arm | mean error, % | deviation | n | by seed |\n| --- | ---: | ---: | ---: | --- |"
    ));
    for arm in &results.arms {
        let Entry { name, mean, deviation, n } = &arm.entry;
        let by_seed: Vec<String> = arm.errors.iter().map(|error| percent(*error)).collect();
        let diverged = if arm.diverged > 0 { format!(" ({} diverged)", arm.diverged) } else { String::new() };
        let (mean, deviation, by_seed) = (percent(*mean), percent(*deviation), by_seed.join(" "));
        line(format_args!("| {name} | {mean} | {deviation} | {n}{diverged} | {by_seed} |"));
    }
    if !results.groups.is_empty() {
        line(format_args!(
            "\n| group | mean error, % | deviation of its arms | arms |\n| --- | ---: | ---: | ---: |"
        ));
        for Entry { name, mean, deviation, n } in &results.groups {
            line(format_args!("| {name} | {} | {} | {n} |", percent(*mean), percent(*deviation)));
        }
    }
    line(format_args!(
        "\n| arm | against | difference, points | 95 % interval | n | unit | verdict |\n\
         | --- | --- | ---: | --- | ---: | --- | --- |"
    ));
    for contrast in &results.contrasts {
        let signed = |share: f64| format!("{:+.2}", 100.0 * share);
        let interval = contrast
            .interval
            .map_or("-".to_owned(), |[low, high]| format!("{} to {}", signed(low), signed(high)));
        line(format_args!(
            "| {} | {} | {} | {interval} | {} | {} | {} |",
            contrast.arm,
            contrast.against,
            contrast.difference.map_or("-".to_owned(), signed),
            contrast.n,
            contrast.unit,
            contrast.verdict.map_or("-".to_owned(), |verdict| worded(verdict, spec.margin)),
        ));
    }
    line(format_args!(
        "\nA negative difference means fewer errors. Intervals are Student's, and each stands for itself: of \
         twenty, one misses on average."
    ));
    if let Some(Tuning { chosen, candidates, seeds, images }) = &results.tuning {
        line(format_args!(
            "\n`randaugment:tuned` is `{chosen}`, the best of {} settings on {images} validation images with {seeds} \
             seeds each, {} runs:\n\n| setting | mean validation error, % |\n| --- | ---: |",
            candidates.len(),
            candidates.len() * *seeds as usize,
        ));
        for candidate in candidates {
            line(format_args!("| {} | {} |", candidate.arm, percent(candidate.mean)));
        }
    }
    text
}

/// A verdict with the margin that it is about.
pub fn worded(verdict: Verdict, margin: f64) -> String {
    match verdict {
        Verdict::NoDifference => format!("no difference within {margin} points"),
        _ => verdict.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use pba_specs::Spec;

    use super::*;

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
    fn verdicts_follow_the_interval() {
        let verdict = |interval| verdict(Some(interval), 0.005);
        assert_eq!(verdict([-0.02, -0.001]), Verdict::Better);
        assert_eq!(verdict([0.001, 0.02]), Verdict::Worse);
        assert_eq!(verdict([-0.004, 0.005]), Verdict::NoDifference);
        assert_eq!(verdict([-0.004, 0.006]), Verdict::TooFew);
        assert_eq!(super::verdict(None, 0.005), Verdict::TooFew);
        assert_eq!(worded(Verdict::NoDifference, 0.5), "no difference within 0.5 points");
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
        assert_eq!(results.recommended.as_deref(), Some("none"), "nobody trains with what diverges");
    }

    #[test]
    fn a_groups_interval_is_over_its_arms_too() {
        let text = r#"{"arms": ["none", "a", "b", "a@shuffled", "b@shuffled"], "seeds": 2,
                       "groups": {"learned": ["a", "b"], "order": ["a@shuffled", "b@shuffled"]}}"#;
        let results =
            of(&spec(text), &[&[0.50, 0.52], &[0.30, 0.32], &[0.40, 0.42], &[0.31, 0.33], &[0.41, 0.43]]);
        assert_eq!(results.groups[0].mean, Some(0.36));
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
    fn every_arm_can_be_streamed() {
        let spec = spec(r#"{"dataset": "d", "base": "flip,cutout:8", "epochs": 9}"#);
        let of = |arm: &str| stream_command(&spec, &arm.parse().unwrap(), Some("randaugment:1:3"));
        let begin = "pba stream --dataset d --schedule ";
        for (arm, rest) in [
            ("none", "none --base flip,cutout:8"),
            ("identity", "identity"),
            ("cutout:4", "none --base flip,cutout:4"),
            ("randaugment:tuned", "randaugment:1:3 --base flip,cutout:8"),
            ("mine@shuffled", "mine --ablation shuffled --base flip,cutout:8"),
        ] {
            assert_eq!(of(arm), format!("{begin}{rest} --epochs 9 --epoch 0"));
        }
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
    }
}
