//! Means, and intervals of differences by Student's distribution.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Probability that an interval holds the true difference, unless another one is asked for.
pub(crate) const CONFIDENCE: f64 = 0.95;

/// The mean of some numbers; none of none.
pub(crate) fn mean(numbers: &[f64]) -> Option<f64> {
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}

/// Their standard deviation, with n - 1; none below two.
pub(crate) fn deviation(numbers: &[f64]) -> Option<f64> {
    let mean = mean(numbers).filter(|_| numbers.len() > 1)?;
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    Some((squares / (numbers.len() - 1) as f64).sqrt())
}

/// What a difference is uncertain by: the variance of a mean, with its degrees of freedom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Uncertainty {
    variance: f64,
    freedom: f64,
}

impl Uncertainty {
    /// That of the mean of some numbers, none of which is known better than to a variance of `floor`; none
    /// below two numbers.
    pub(crate) fn of_mean(numbers: &[f64], floor: f64) -> Option<Uncertainty> {
        let count = numbers.len() as f64;
        let variance = deviation(numbers)?.powi(2).max(floor);
        Some(Uncertainty { variance: variance / count, freedom: count - 1.0 })
    }
}

/// The interval about a difference with independent uncertainties: their variances add up, and their
/// degrees of freedom are Satterthwaite's, so that one alone gives the paired t interval and two those
/// of Welch.
pub(crate) fn interval(difference: f64, uncertainties: &[Uncertainty], confidence: f64) -> [f64; 2] {
    let variance: f64 = uncertainties.iter().map(|part| part.variance).sum();
    if variance == 0.0 {
        return [difference; 2];
    }
    let spent: f64 = uncertainties.iter().map(|part| part.variance.powi(2) / part.freedom).sum();
    let student = StudentsT::new(0.0, 1.0, variance.powi(2) / spent);
    let quantile = student.expect("there are degrees of freedom").inverse_cdf(0.5 + confidence / 2.0);
    let half = quantile * variance.sqrt();
    [difference - half, difference + half]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn near(one: f64, other: f64) {
        assert!((one - other).abs() < 1e-6, "{one} is not {other}");
    }

    #[test]
    fn means_and_deviations_by_hand() {
        assert_eq!((mean(&[]), deviation(&[1.0])), (None, None));
        near(mean(&[2.0, 4.0, 9.0]).unwrap(), 5.0);
        near(deviation(&[2.0, 4.0, 9.0]).unwrap(), 13f64.sqrt());
    }

    /// Student's quantiles as printed in tables.
    #[test]
    fn one_uncertainty_gives_the_paired_interval() {
        for (count, quantile) in
            [(2, 12.706_205), (3, 4.302_653), (6, 2.570_582), (10, 2.262_157), (31, 2.042_272)]
        {
            let numbers: Vec<f64> = (0..count).map(f64::from).collect();
            let (mean, deviation) = (mean(&numbers).unwrap(), deviation(&numbers).unwrap());
            let half = quantile * deviation / f64::from(count).sqrt();
            let [low, high] = interval(mean, &[Uncertainty::of_mean(&numbers, 0.0).unwrap()], CONFIDENCE);
            assert!((low - (mean - half)).abs() < 1e-5 && (high - (mean + half)).abs() < 1e-5, "{count}");
        }
    }

    /// As `scipy.stats.ttest_ind(one, other, equal_var=False).confidence_interval()` prints them.
    #[test]
    fn two_uncertainties_give_welchs_interval() {
        let (one, other) = ([3.1, 2.7, 3.5, 3.9, 2.9], [2.0, 2.6, 2.3]);
        let parts = [&one[..], &other[..]].map(|numbers| Uncertainty::of_mean(numbers, 0.0).unwrap());
        let [low, high] = interval(mean(&one).unwrap() - mean(&other).unwrap(), &parts, CONFIDENCE);
        near(low, 0.241_054_049_1);
        near(high, 1.598_945_950_9);
    }

    #[test]
    fn no_spread_is_the_spread_of_rounding() {
        let part = |floor| Uncertainty::of_mean(&[0.25, 0.25], floor).unwrap();
        assert_eq!(interval(0.25, &[part(0.0)], CONFIDENCE), [0.25, 0.25]);
        let [low, high] = interval(0.25, &[part(0.02)], CONFIDENCE);
        near((high - low) / 2.0, 12.706_205 * 0.1);
    }

    #[test]
    fn more_confidence_is_a_wider_interval() {
        let part = [Uncertainty::of_mean(&[0.0, 1.0, 2.0], 0.0).unwrap()];
        let half = |confidence| (interval(1.0, &part, confidence)[1] - 1.0) * 3f64.sqrt();
        near(half(0.95), 4.302_653);
        near(half(0.99), 9.924_843);
    }
}
