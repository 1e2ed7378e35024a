//! Times as they are printed: local and short in a terminal, RFC 3339 in UTC for programs.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A time that the server answered, as a cell of a list; a dash where it said none.
pub(crate) fn shown(time: Option<&str>, is_terminal: bool) -> String {
    let Some(text) = time else { return "-".to_owned() };
    match text.parse::<Timestamp>() {
        Ok(time) if is_terminal => short(time, &TimeZone::system()),
        _ => text.to_owned(),
    }
}

/// Day and minute in a time zone.
fn short(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_for_people_and_whole_for_programs() {
        let text = "2026-11-30T10:25:40Z";
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(short(text.parse().unwrap(), &zone), "2026-11-30 12:25");
        assert_eq!(shown(Some(text), false), text);
        assert_eq!(shown(None, true), "-");
    }
}
