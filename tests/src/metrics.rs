//! Prometheus' text format: read, and checked for good manners.

use std::collections::{BTreeMap, BTreeSet};

/// The metrics of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Families by name.
    pub families: BTreeMap<String, Family>,
    series: BTreeMap<String, f64>,
    /// Lines that fit nowhere.
    strays: Vec<String>,
}

/// The series of one name.
#[derive(Clone, Debug, Default)]
pub struct Family {
    /// The help text.
    pub help: Option<String>,
    /// `counter`, `gauge`, `histogram`.
    pub kind: Option<String>,
    /// Every sample.
    pub samples: Vec<Sample>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Name, with `_bucket`, `_sum` or `_count` where the family is a histogram.
    pub name: String,
    /// Labels, in order.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

impl Metrics {
    /// Reads a scrape. What it cannot read is reported by [`Metrics::lint`].
    pub fn parse(text: &str) -> Metrics {
        let mut metrics = Metrics::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                metrics.families.entry(name.to_owned()).or_default().help = Some(help.to_owned());
            } else if let Some((name, kind)) =
                line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
            {
                metrics.families.entry(name.to_owned()).or_default().kind = Some(kind.to_owned());
            } else if let Some((series, sample)) = sample(line) {
                let family = metrics.family_of(&sample.name);
                metrics.families.entry(family).or_default().samples.push(sample.clone());
                if metrics.series.insert(series, sample.value).is_some() {
                    metrics.strays.push(format!("twice: {line}"));
                }
            } else {
                metrics.strays.push(format!("unreadable: {line}"));
            }
        }
        metrics
    }

    fn family_of(&self, name: &str) -> String {
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        match histogram {
            Some(family)
                if self.families.get(family).is_some_and(|f| f.kind.as_deref() == Some("histogram")) =>
            {
                family.to_owned()
            }
            _ => name.to_owned(),
        }
    }

    /// One series by name and labels as they are written; 0 when there is none.
    pub fn get(&self, series: &str) -> f64 {
        self.series.get(series).copied().unwrap_or_default()
    }

    /// Sum over the series of a name.
    pub fn sum(&self, name: &str) -> f64 {
        let samples = self.families.values().flat_map(|family| &family.samples);
        samples.filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    }

    /// Values that a label takes, over all series.
    pub fn label_values(&self, label: &str) -> BTreeSet<&str> {
        let samples = self.families.values().flat_map(|family| &family.samples);
        let labels = samples.flat_map(|sample| &sample.labels);
        labels.filter(|(name, _)| name == label).map(|(_, value)| value.as_str()).collect()
    }

    /// What Prometheus' own linter would say, and more: one complaint a line.
    pub fn lint(&self) -> Vec<String> {
        let mut complaints = self.strays.clone();
        for (name, family) in &self.families {
            let mut complain = |about: &str| complaints.push(format!("{name}: {about}"));
            let (help, kind) = (family.help.as_deref(), family.kind.as_deref());
            if help.is_none_or(|help| help.trim().is_empty()) {
                complain("no help text");
            }
            match kind {
                None => complain("no type"),
                Some("counter") if !name.ends_with("_total") => complain("a counter must end in _total"),
                Some("gauge" | "histogram") if name.ends_with("_total") => {
                    complain("only counters end in _total")
                }
                Some("counter" | "gauge" | "histogram") => {}
                Some(_) => complain("a type that is not used here"),
            }
            if kind != Some("histogram")
                && ["_count", "_sum", "_bucket"].iter().any(|suffix| name.ends_with(suffix))
            {
                complain("a suffix that histograms own");
            }
            let is_snake = |name: &str| {
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            };
            if !is_snake(name) {
                complain("not in snake_case");
            }
            for part in name.split('_') {
                if ["counter", "gauge", "histogram", "summary"].contains(&part) {
                    complain("a type in the name");
                }
                if OTHER_UNITS.contains(&part) {
                    complain("a unit that is no base unit");
                }
            }
            let is_time = name.split('_').any(|part| ["duration", "latency", "wait", "age"].contains(&part));
            if is_time && !name.contains("seconds") {
                complain("a time that is not in seconds");
            }
            for sample in &family.samples {
                for (label, _) in &sample.labels {
                    if !is_snake(label) {
                        complain("a label not in snake_case");
                    }
                    if label == "le" && kind != Some("histogram") {
                        complain("the label le is for histograms");
                    }
                }
                if kind == Some("counter") && (sample.value < 0.0 || !sample.value.is_finite()) {
                    complain("a counter that is no count");
                }
            }
            if kind == Some("histogram") {
                for complaint in histogram(family) {
                    complain(&complaint);
                }
            }
        }
        complaints
    }
}

/// Units, and short forms of them, that Prometheus wants to see as seconds, bytes, metres, ratios.
const OTHER_UNITS: [&str; 28] = [
    "ms",
    "us",
    "ns",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "weeks",
    "s",
    "sec",
    "secs",
    "b",
    "kb",
    "mb",
    "gb",
    "kib",
    "mib",
    "gib",
    "kilobytes",
    "megabytes",
    "gigabytes",
    "bits",
    "percent",
    "percentage",
    "px",
    "micros",
];

/// Buckets only grow, end with +Inf, and that one is the count.
fn histogram(family: &Family) -> Vec<String> {
    type Labels = Vec<(String, String)>;
    let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for sample in &family.samples {
        if sample.name.ends_with("_bucket") {
            let (le, labels): (Vec<_>, Vec<_>) =
                sample.labels.iter().cloned().partition(|(name, _)| name == "le");
            let le = le
                .first()
                .map_or(f64::NAN, |(_, value)| value.replace("+Inf", "inf").parse().unwrap_or(f64::NAN));
            buckets.entry(labels).or_default().push((le, sample.value));
        } else if sample.name.ends_with("_count") {
            counts.insert(sample.labels.clone(), sample.value);
        }
    }
    let mut complaints = Vec::new();
    for (labels, buckets) in &buckets {
        if !buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1) {
            complaints.push(format!("buckets of {labels:?} do not grow"));
        }
        let last = buckets.last().copied().unwrap_or_default();
        if last.0 != f64::INFINITY || counts.get(labels) != Some(&last.1) {
            complaints.push(format!("the last bucket of {labels:?} is not its count"));
        }
    }
    complaints
}

/// Reads `name{label="value",...} 1`; answers the series as it is written, too.
fn sample(line: &str) -> Option<(String, Sample)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.replace("+Inf", "inf").parse().ok()?;
    let (name, mut rest) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}')?),
        None => (series, ""),
    };
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"")?;
        let mut escaped = false;
        let end = after.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        labels.push((label.to_owned(), after[..end].to_owned()));
        rest = after[end + 1..].strip_prefix(',').unwrap_or(&after[end + 1..]);
    }
    Some((series.to_owned(), Sample { name: name.to_owned(), labels, value }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, says: &str) {
        let complaints = Metrics::parse(text).lint();
        assert!(complaints.iter().any(|complaint| complaint.contains(says)), "{complaints:?}");
    }

    #[test]
    fn bad_manners_are_seen() {
        check("a_total 1\n# TYPE a_total counter", "no help");
        check("# HELP a_total A.\na_total 1", "no type");
        check("# HELP a A.\n# TYPE a counter\na 1", "end in _total");
        check("# HELP a_total A.\n# TYPE a_total gauge\na_total 1", "only counters");
        check("# HELP a_ms A.\n# TYPE a_ms gauge\na_ms 1", "base unit");
        check("# HELP aB A.\n# TYPE aB gauge\naB 1", "snake_case");
        check("# HELP a A.\n# TYPE a gauge\na{bC=\"1\"} 1", "label not in snake");
        check("# HELP a_sum A.\n# TYPE a_sum gauge\na_sum 1", "histograms own");
        check("# HELP a A.\n# TYPE a gauge\na 1\na 2", "twice");
        check("a{b=\"} 1", "unreadable");
        check(
            "# HELP a A.\n# TYPE a histogram\na_bucket{le=\"1\"} 3\na_bucket{le=\"+Inf\"} 2\na_sum 1\na_count 2",
            "do not grow",
        );
    }

    #[test]
    fn series_are_read() {
        let metrics =
            Metrics::parse("# HELP a A.\n# TYPE a gauge\na{b=\"x\\\"y,}\",c=\"z\"} 1.5\na{b=\"\"} 2\n");
        assert_eq!(metrics.get("a{b=\"\"}"), 2.0);
        assert_eq!(metrics.sum("a"), 3.5);
        assert_eq!(metrics.label_values("c").into_iter().collect::<Vec<_>>(), ["z"]);
        assert_eq!(metrics.lint(), [""; 0]);
    }
}
