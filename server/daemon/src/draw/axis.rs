//! A horizontal axis of errors: where a number lies on it, and where its rules are.

/// An axis over some numbers, with a margin on both sides.
pub(crate) struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// An axis over some numbers, if there are any; `margin` is the share of their range that is left on either side.
    pub(crate) fn over(numbers: impl Iterator<Item = f64>, margin: f64) -> Option<Axis> {
        let (low, high) = numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), number| {
            (low.min(number), high.max(number))
        });
        let margin = ((high - low) * margin).max(1e-4);
        (low <= high).then_some(Axis { low: low - margin, high: high + margin })
    }

    /// Where a number lies: at 0 on the left end, at 1 on the right one.
    pub(crate) fn place(&self, number: f64) -> f64 {
        (number - self.low) / (self.high - self.low)
    }

    /// Round percentages on it, about `count` of them: as fractions, and as they are written, with a plus sign if
    /// `is_signed`.
    pub(crate) fn ticks(&self, count: f64, is_signed: bool) -> impl Iterator<Item = (f64, String)> {
        let rough = 100.0 * (self.high - self.low) / count;
        let decade = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * decade);
        let step = step.into_iter().find(|&step| step >= rough).unwrap_or(rough);
        let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
        let first = (100.0 * self.low / step).ceil() as i64;
        let last = 100.0 * self.high;
        let ticks = (first..).map(move |count| count as f64 * step).take_while(move |tick| *tick <= last);
        ticks.map(move |tick| {
            let sign = if is_signed && tick > 0.0 { "+" } else { "" };
            // Adding 0 makes a zero of a negative one.
            (tick / 100.0, format!("{sign}{:.decimals$}", tick + 0.0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_at_round_percentages() {
        let axis = Axis::over([-0.012, 0.031].into_iter(), 0.1).unwrap();
        let (low, high) = (axis.place(-0.012), axis.place(0.031));
        assert!(0.08 < low && low < 0.09 && (low + high - 1.0).abs() < 1e-9, "{low} {high}");
        let (places, texts): (Vec<f64>, Vec<String>) = axis.ticks(4.0, true).unzip();
        assert_eq!(texts, ["0", "+2"]);
        assert_eq!(places, [0.0, 0.02]);
        let texts: Vec<String> = axis.ticks(12.0, false).map(|(_, text)| text).collect();
        assert_eq!(texts, ["-1.5", "-1.0", "-0.5", "0.0", "0.5", "1.0", "1.5", "2.0", "2.5", "3.0", "3.5"]);
        assert!(Axis::over([].into_iter(), 0.1).is_none());
        assert!(Axis::over([0.5].into_iter(), 0.1).is_some_and(|axis| axis.place(0.5) > 0.4));
    }
}
