//! The arms of a comparison: what the images of a model that trains from scratch go through.

use std::fmt;
use std::str::FromStr;

use pba_schedules::Ablation;

/// One way to augment, as a comparison names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Arm {
    /// `none`: base augmentation only.
    Base,
    /// `identity`: untouched images, without the base augmentation too.
    Identity,
    /// `cutout:N`: base augmentation only, with a cutout of N pixels in place of its own.
    Cutout(u32),
    /// `random:K`: a schedule that nothing selected, in the space that a search explores; K is its seed.
    Random(u64),
    /// `randaugment:tuned`: the RandAugment that scores best on validation images, of a fixed grid.
    Tuned,
    /// `NAME` or `NAME@ABLATION`: a schedule or policy by name, or an ablation of it.
    Schedule {
        /// Its name.
        name: String,
        /// What is done to its order.
        ablation: Ablation,
    },
}

/// The settings of RandAugment that [`Arm::Tuned`] tries, as (ops per image, magnitude bin of 31).
const TUNING_GRID: [(u32, u32); 10] =
    [(1, 3), (1, 6), (1, 9), (1, 14), (1, 20), (2, 3), (2, 6), (2, 9), (2, 14), (2, 20)];

impl Arm {
    /// The arms besides schedules, for messages.
    pub const SPECIAL: [&str; 5] = ["none", "identity", "cutout:N", "random:K", "randaugment:tuned"];

    /// The arms that [`Arm::Tuned`] tries.
    pub fn candidates() -> Vec<Arm> {
        let arm = |(ops, magnitude)| Arm::Schedule {
            name: format!("randaugment:{ops}:{magnitude}"),
            ablation: Ablation::Scheduled,
        };
        TUNING_GRID.into_iter().map(arm).collect()
    }

    /// The schedule that it needs, by name.
    pub fn schedule(&self) -> Option<&str> {
        match self {
            Arm::Schedule { name, .. } => Some(name),
            _ => None,
        }
    }
}

impl FromStr for Arm {
    type Err = String;

    /// Reads an arm; otherwise gives the allowed texts.
    fn from_str(text: &str) -> Result<Arm, String> {
        let allowed = || {
            format!(
                "{}, or NAME or NAME@ABLATION of a schedule (ablations: {})",
                Arm::SPECIAL.join(", "),
                Ablation::names()
            )
        };
        // No sign, and no zeros before the number: an arm is written in one way.
        fn number<T: FromStr + ToString>(digits: &str) -> Option<T> {
            digits.parse().ok().filter(|number: &T| number.to_string() == digits)
        }
        match text {
            "none" => return Ok(Arm::Base),
            "identity" => return Ok(Arm::Identity),
            "randaugment:tuned" => return Ok(Arm::Tuned),
            _ => {}
        }
        if let Some(digits) = text.strip_prefix("cutout:") {
            let size = number(digits).filter(|size| (1..=1024).contains(size));
            return size.map(Arm::Cutout).ok_or_else(|| "cutout:N with N in 1..=1024".to_owned());
        }
        if let Some(digits) = text.strip_prefix("random:") {
            return number(digits).map(Arm::Random).ok_or_else(|| "random:K with K in 0..2^64".to_owned());
        }
        let (name, ablation) = match text.split_once('@') {
            None => (text, Some(Ablation::Scheduled)),
            Some((name, ablation)) => (name, Ablation::named(ablation)),
        };
        match ablation {
            Some(ablation) if !name.is_empty() => Ok(Arm::Schedule { name: name.to_owned(), ablation }),
            _ => Err(allowed()),
        }
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arm::Base => f.pad("none"),
            Arm::Identity => f.pad("identity"),
            Arm::Cutout(size) => write!(f, "cutout:{size}"),
            Arm::Random(seed) => write!(f, "random:{seed}"),
            Arm::Tuned => f.pad("randaugment:tuned"),
            Arm::Schedule { name, ablation: Ablation::Scheduled } => f.pad(name),
            Arm::Schedule { name, ablation } => write!(f, "{name}@{ablation}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_read_back() {
        let texts = "none identity cutout:16 random:7 randaugment:tuned randaugment:2:9 mine mine@shuffled";
        for text in texts.split(' ') {
            assert_eq!(text.parse::<Arm>().unwrap().to_string(), text);
        }
        for text in ["", "@final", "mine@", "mine@sorted", "cutout:0", "cutout:+4", "cutout:08", "random:-1"]
        {
            assert!(text.parse::<Arm>().is_err(), "{text:?}");
        }
        assert_eq!("mine@scheduled".parse::<Arm>().unwrap().to_string(), "mine");
    }

    #[test]
    fn numbers_of_arms_are_bounded() {
        for (text, is_allowed) in [
            ("cutout:1", true),
            ("cutout:1024", true),
            ("cutout:1025", false),
            ("random:0", true),
            ("random:18446744073709551615", true),
            ("random:18446744073709551616", false),
            ("random:07", false),
        ] {
            assert_eq!(text.parse::<Arm>().is_ok(), is_allowed, "{text}");
        }
    }

    /// Every setting is a policy of the library; of equal ones the first is chosen, so the weakest comes first.
    #[test]
    fn candidates_are_policies_from_the_weakest() {
        let candidates = Arm::candidates();
        assert_eq!(candidates.len(), 10);
        let numbers = |arm: &Arm| {
            let policy = pba_schedules::RandAugment::named(arm.schedule().unwrap()).unwrap().unwrap();
            (policy.count(), policy.magnitude())
        };
        assert!(candidates.iter().map(numbers).is_sorted_by(|one, next| one < next));
        assert_eq!((numbers(&candidates[0]), numbers(&candidates[9])), ((1, 3), (2, 20)));
        for arm in candidates {
            assert_eq!(arm.to_string().parse(), Ok(arm));
        }
    }

    #[test]
    fn an_arm_needs_the_schedule_that_it_names() {
        let schedule = |text: &str| text.parse::<Arm>().unwrap().schedule().map(str::to_owned);
        assert_eq!(schedule("mine@final").as_deref(), Some("mine"));
        for special in ["none", "identity", "cutout:4", "random:1", "randaugment:tuned"] {
            assert_eq!(schedule(special), None, "{special}");
        }
    }
}
