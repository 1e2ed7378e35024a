//! Numbers as people read them.

/// A whole number in groups of three digits.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number in three digits or so, with a thousand's letter.
pub(crate) fn short(number: f64) -> String {
    match number {
        1e9.. => format!("{:.2} G", number / 1e9),
        1e6.. => format!("{:.2} M", number / 1e6),
        1e4.. => format!("{:.1} k", number / 1e3),
        _ => count(number.max(0.0).round() as u64),
    }
}

/// Bytes in decimal units.
pub(crate) fn bytes(number: u64) -> String {
    match number as f64 {
        number @ 1e12.. => format!("{:.2} TB", number / 1e12),
        number @ 1e9.. => format!("{:.2} GB", number / 1e9),
        number @ 1e6.. => format!("{:.1} MB", number / 1e6),
        number @ 1e3.. => format!("{:.1} kB", number / 1e3),
        number => format!("{number} B"),
    }
}

/// A time, roughly.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        ..0.95 => format!("{seconds:.1} s"),
        ..120.0 => format!("{seconds:.0} s"),
        ..7_200.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.1} h", seconds / 3_600.0),
        _ => format!("{:.1} d", seconds / 86_400.0),
    }
}

/// The first digits of a digest, which are enough to name a schedule by.
pub(crate) fn digest(digest: &str) -> String {
    digest.chars().take(12).collect()
}

/// A share in percent; a dash where there is none.
pub(crate) fn percent(share: Option<f64>) -> String {
    match share.filter(|share| share.is_finite()) {
        Some(share) => format!("{:.1} %", 100.0 * share),
        None => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.4, 9_999.0, 12_345.0, 2.5e6, 3e9].map(short),
            ["0", "9,999", "12.3 k", "2.50 M", "3.00 G"]
        );
        assert_eq!([12, 1_500, 2_000_000, 3_000_000_000].map(bytes), ["12 B", "1.5 kB", "2.0 MB", "3.00 GB"]);
        assert_eq!(
            [0.3, 59.0, 600.0, 9_000.0, 2e5].map(duration),
            ["0.3 s", "59 s", "10 min", "2.5 h", "2.3 d"]
        );
        assert_eq!([Some(0.1234), Some(f64::NAN), None].map(percent), ["12.3 %", "–", "–"]);
    }
}
