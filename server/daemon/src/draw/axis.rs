//! Round numbers along an axis.

/// Round numbers for an axis of `0..=length`: about eight of them.
pub(crate) fn ticks(length: u32) -> impl Iterator<Item = u32> {
    let rough = f64::from(length) / 8.0;
    let decade = 10f64.powf(rough.max(1.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * decade).find(|&step| step >= rough);
    (0..=length).step_by(step.unwrap_or(rough).max(1.0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(200).collect::<Vec<_>>(), [0, 50, 100, 150, 200]);
        assert_eq!(ticks(3).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(ticks(1).collect::<Vec<_>>(), [0, 1]);
    }
}
