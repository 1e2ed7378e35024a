//! The arm to train with, why, and the command that streams it.

use pba_schedules::{Ablation, library};
use pba_specs::{Arm, ComparisonSpec, Contrast, Verdict};

use crate::contrast::{Errors, Subject};
use crate::statistics::CONFIDENCE;

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
pub(crate) fn recommend(
    spec: &ComparisonSpec,
    subjects: &[Subject],
    errors: &Errors,
) -> Option<(usize, String)> {
    let is_whole = |arm: &usize| errors.by_arm[*arm].iter().all(Option::is_some);
    let lowest = |arms: &[usize]| {
        let worth = |&arm: &usize| errors.mean_of(arm).unwrap_or(f64::INFINITY);
        arms.iter().copied().min_by(|one, other| worth(one).total_cmp(&worth(other)))
    };
    let free = (0..spec.arms.len()).filter(|&arm| cost(&spec.arms[arm]) == Cost::Free);
    let all_free: Vec<usize> = free.filter(is_whole).collect();
    let free = lowest(&all_free);
    let is_searched = |subject: &&Subject| {
        let costs = || subject.arms.iter().map(|&arm| cost(&spec.arms[arm]));
        costs().all(|cost| cost != Cost::Control) && costs().any(|cost| cost == Cost::Searched)
    };
    let searched: Vec<&Subject> = subjects.iter().filter(is_searched).collect();
    let candidates = searched.iter().filter(|subject| subject.arms.iter().all(is_whole));
    let worth = |subject: &&&Subject| errors.mean(subject).unwrap_or(f64::INFINITY);
    let mut candidates: Vec<&&Subject> = candidates.collect();
    candidates.sort_by(|one, other| worth(one).total_cmp(&worth(other)));
    let best = candidates.first();
    let name = |arm: usize| spec.arms[arm].to_string();
    match (free, best) {
        (None, None) => None,
        (Some(free), None) => {
            let others: Vec<usize> = all_free.iter().copied().filter(|&arm| arm != free).collect();
            let subject = |arm: usize| Subject { name: name(arm), arms: vec![arm] };
            let second = lowest(&others).map(subject);
            let says = first_of_all(spec, errors, &subject(free), second.as_ref(), others.len());
            Some((free, format!("{says}.")))
        }
        (None, Some(best)) => {
            let second = candidates.get(1).map(|second| &***second);
            let says = first_of_all(spec, errors, best, second, candidates.len() - 1);
            Some((lowest(&best.arms)?, format!("{says}; there is no arm that costs nothing.")))
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

/// What is known of the subject with the lowest mean error: whether it is better than the second. It is the lowest of
/// several others, so that the interval that decides is wider here, too.
fn first_of_all(
    spec: &ComparisonSpec,
    errors: &Errors,
    first: &Subject,
    second: Option<&Subject>,
    others: usize,
) -> String {
    let Some(second) = second else {
        return format!(
            "{} is the only arm to recommend: controls and arms that diverge are not",
            first.name
        );
    };
    let confidence = 1.0 - (1.0 - CONFIDENCE) / others as f64;
    let contrast = errors.contrast(spec, first, second, confidence);
    let figures = says(&contrast, confidence);
    let (first, second) = (&first.name, &second.name);
    match contrast.verdict {
        Some(Verdict::Better) => format!("{first} is better than {second}, the next best ({figures})"),
        Some(Verdict::NoDifference) => format!(
            "{first} has the lowest mean error, with no difference within {} points from {second} ({figures})",
            spec.margin
        ),
        _ => format!(
            "{first} has the lowest mean error; too few runs to tell it from {second}, the next best ({figures})"
        ),
    }
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

#[cfg(test)]
mod tests {
    use pba_specs::Spec;

    use super::*;

    #[test]
    fn every_arm_can_be_streamed() {
        let text = r#"{"dataset": "d", "base": "flip,cutout:8", "epochs": 9}"#;
        let spec = ComparisonSpec::from_json(text).unwrap();
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
        // Untouched images are no base augmentation for a cutout; without a base the dataset's own is meant.
        let of = |text: &str, arm: &str| {
            stream_command(&ComparisonSpec::from_json(text).unwrap(), &arm.parse().unwrap(), None)
        };
        let text = r#"{"dataset": "d", "base": "identity", "epochs": 9}"#;
        assert_eq!(of(text, "cutout:4"), format!("{begin}none --base cutout:4 --epochs 9 --epoch 0"));
        let text = r#"{"dataset": "d", "epochs": 9}"#;
        assert_eq!(of(text, "cutout:4"), format!("{begin}none --base cutout:4 --epochs 9 --epoch 0"));
        assert_eq!(of(text, "mine"), format!("{begin}mine --epochs 9 --epoch 0"));
    }
}
