//! The parameters of `GET /v1/datasets/{dataset}/epochs/{epoch}/batches`.

use std::fmt;
use std::str::FromStr;

use pba_types::SplitName;
use pba_types::limits::{BATCH_SIZE_MAX, EPOCHS_MAX};

/// A request for one epoch, each parameter as it was given.
///
/// What a parameter means, and its default, is in the table of `README.md`. Types and ranges that
/// hold whatever the server has are checked here; the rest is checked by the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochRequest {
    /// Which part of the dataset.
    pub split: SplitName,
    /// Name or digest of a schedule, or `none`, or `identity`.
    pub schedule: Option<String>,
    /// Epochs of the whole training run.
    pub epochs: Option<u32>,
    /// 60 comma-separated integers, used instead of a schedule.
    pub policy: Option<String>,
    /// `scheduled`, `flatten`, `shuffled` or `final`.
    pub ablation: Option<String>,
    /// Rows per batch.
    pub batch_size: u32,
    /// Seed of every random decision.
    pub seed: u64,
    /// Whether the sample order is a seeded permutation.
    pub shuffle: Option<bool>,
    /// This job's part: (index, count).
    pub shard: (u32, u32),
    /// First batch to send.
    pub start: u64,
    /// Send every `step`-th batch.
    pub step: u64,
    /// Whether the last short batch is dropped.
    pub drop_last: bool,
    /// Base augmentation.
    pub base: Option<String>,
}

impl Default for EpochRequest {
    fn default() -> EpochRequest {
        EpochRequest {
            split: SplitName::Train,
            schedule: None,
            epochs: None,
            policy: None,
            ablation: None,
            batch_size: 128,
            seed: 0,
            shuffle: None,
            shard: (0, 1),
            start: 0,
            step: 1,
            drop_last: false,
            base: None,
        }
    }
}

/// A parameter that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{parameter}={value:?}: {reason}; allowed: {allowed}")]
pub struct ParameterError {
    /// The parameter.
    pub parameter: String,
    /// The value that was given.
    pub value: String,
    /// What is wrong with it.
    pub reason: String,
    /// What is allowed.
    pub allowed: String,
}

impl ParameterError {
    /// An error about one parameter.
    pub fn new(
        parameter: impl Into<String>,
        value: impl Into<String>,
        reason: impl Into<String>,
        allowed: impl Into<String>,
    ) -> ParameterError {
        ParameterError {
            parameter: parameter.into(),
            value: value.into(),
            reason: reason.into(),
            allowed: allowed.into(),
        }
    }

    /// A parameter that does not exist, with the nearest one that does.
    pub fn unknown(parameter: &str, value: &str, known: &[&str]) -> ParameterError {
        let nearest = nearest(parameter, known.iter().copied());
        let hint = nearest.map(|name| format!(", did you mean {name:?}?")).unwrap_or_default();
        ParameterError::new(parameter, value, format!("unknown parameter{hint}"), known.join(", "))
    }
}

/// The known name that is most like a mistyped one, if any is like it.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Splits a query string into decoded pairs, refusing a parameter given twice.
///
/// # Errors
/// When a parameter occurs twice, with both of its values.
pub fn pairs(query: &str) -> Result<Vec<(String, String)>, ParameterError> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (parameter, value) in form_urlencoded::parse(query.as_bytes()).into_owned() {
        if let Some((_, first)) = pairs.iter().find(|(known, _)| *known == parameter) {
            let value = format!("{first} and {value}");
            return Err(ParameterError::new(parameter, value, "given twice", "each parameter once"));
        }
        pairs.push((parameter, value));
    }
    Ok(pairs)
}

/// Parses an integer of a range, for a parameter.
///
/// # Errors
/// When it is not an integer, or out of range.
pub fn integer<T>(
    parameter: &str,
    value: &str,
    range: std::ops::RangeInclusive<T>,
) -> Result<T, ParameterError>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    let allowed = || format!("an integer in {}..={}", range.start(), range.end());
    let plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse::<T>() {
        Ok(number) if plain && range.contains(&number) => Ok(number),
        _ => {
            let signed = value.strip_prefix('-').unwrap_or(value);
            let is_integer = !signed.is_empty() && signed.bytes().all(|byte| byte.is_ascii_digit());
            let reason = if is_integer { "out of range" } else { "not an integer" };
            Err(ParameterError::new(parameter, value, reason, allowed()))
        }
    }
}

/// Parses `true` or `false`, for a parameter.
///
/// # Errors
/// When it is neither.
pub fn boolean(parameter: &str, value: &str) -> Result<bool, ParameterError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(ParameterError::new(parameter, value, "not a truth value", "true or false")),
    }
}

fn shard(value: &str) -> Result<(u32, u32), ParameterError> {
    let error = |reason| {
        ParameterError::new("shard", value, reason, "i/n, for example 0/8, with n at least 1 and i in 0..n")
    };
    let (index, count) = value.split_once('/').ok_or_else(|| error("not a shard"))?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(index) || !digits(count) {
        return Err(error("not a shard"));
    }
    match (index.parse(), count.parse()) {
        (Ok(index), Ok(count)) if index < count => Ok((index, count)),
        _ => Err(error("out of range")),
    }
}

impl EpochRequest {
    /// Every parameter.
    pub const PARAMETERS: [&'static str; 13] = [
        "split",
        "schedule",
        "epochs",
        "policy",
        "ablation",
        "batch_size",
        "seed",
        "shuffle",
        "shard",
        "start",
        "step",
        "drop_last",
        "base",
    ];

    /// Reads a query string.
    ///
    /// # Errors
    /// At the first parameter that is unknown, given twice, of the wrong type or out of range.
    pub fn from_query(query: &str) -> Result<EpochRequest, ParameterError> {
        EpochRequest::from_pairs(&pairs(query)?)
    }

    /// Reads decoded pairs.
    ///
    /// # Errors
    /// As [`EpochRequest::from_query`].
    pub fn from_pairs(pairs: &[(String, String)]) -> Result<EpochRequest, ParameterError> {
        let mut request = EpochRequest::default();
        for (parameter, value) in pairs {
            let name = parameter.as_str();
            match name {
                "split" => {
                    request.split = value
                        .parse()
                        .map_err(|_| ParameterError::new(name, value, "not a split", "train, val or test"))?;
                }
                "schedule" => request.schedule = Some(value.clone()),
                "epochs" => request.epochs = Some(integer(name, value, 1..=EPOCHS_MAX)?),
                "policy" => request.policy = Some(value.clone()),
                "ablation" => request.ablation = Some(value.clone()),
                "batch_size" => request.batch_size = integer(name, value, 1..=BATCH_SIZE_MAX)?,
                "seed" => request.seed = integer(name, value, 0..=u64::MAX)?,
                "shuffle" => request.shuffle = Some(boolean(name, value)?),
                "shard" => request.shard = shard(value)?,
                "start" => request.start = integer(name, value, 0..=u64::MAX)?,
                "step" => request.step = integer(name, value, 1..=u64::MAX)?,
                "drop_last" => request.drop_last = boolean(name, value)?,
                "base" => request.base = Some(value.clone()),
                _ => return Err(ParameterError::unknown(name, value, &EpochRequest::PARAMETERS)),
            }
        }
        Ok(request)
    }

    /// Writes the query string: only what differs from the defaults.
    pub fn to_query(&self) -> String {
        let default = EpochRequest::default();
        let mut query = form_urlencoded::Serializer::new(String::new());
        let mut pair = |parameter: &str, value: String, differs: bool| {
            if differs {
                query.append_pair(parameter, &value);
            }
        };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        pair("split", self.split.to_string(), self.split != default.split);
        pair("schedule", text(&self.schedule), self.schedule.is_some());
        pair("epochs", self.epochs.unwrap_or_default().to_string(), self.epochs.is_some());
        pair("policy", text(&self.policy), self.policy.is_some());
        pair("ablation", text(&self.ablation), self.ablation.is_some());
        pair("batch_size", self.batch_size.to_string(), self.batch_size != default.batch_size);
        pair("seed", self.seed.to_string(), self.seed != default.seed);
        pair("shuffle", self.shuffle.unwrap_or_default().to_string(), self.shuffle.is_some());
        pair("shard", format!("{}/{}", self.shard.0, self.shard.1), self.shard != default.shard);
        pair("start", self.start.to_string(), self.start != default.start);
        pair("step", self.step.to_string(), self.step != default.step);
        pair("drop_last", self.drop_last.to_string(), self.drop_last != default.drop_last);
        pair("base", text(&self.base), self.base.is_some());
        query.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_trip() {
        let query = "split=test&schedule=cifar10-pba&epochs=1800&ablation=flatten&batch_size=7&seed=18446744073709551615\
                     &shuffle=false&shard=2%2F3&start=4&step=5&drop_last=true&base=pad_crop%3A4%2Cflip";
        let request = EpochRequest::from_query(query).unwrap();
        assert_eq!(request.to_query(), query);
        assert_eq!(request.shard, (2, 3));
        assert_eq!(EpochRequest::from_query("").unwrap(), EpochRequest::default());
        assert_eq!(EpochRequest::default().to_query(), "");
    }

    #[track_caller]
    fn refuse(query: &str, parameter: &str, says: &str) {
        let error = EpochRequest::from_query(query).unwrap_err();
        assert_eq!(error.parameter, parameter);
        assert!(error.to_string().contains(says), "{error} does not say {says:?}");
    }

    #[test]
    fn wrong_parameters_are_refused_by_name() {
        refuse("batch_size=0", "batch_size", "1..=65536");
        refuse("batch_size=65537", "batch_size", "out of range");
        refuse("batch_size=", "batch_size", "not an integer");
        refuse("batch_size=+5", "batch_size", "not an integer");
        refuse("batch_size=1e3", "batch_size", "not an integer");
        refuse("batchsize=5", "batchsize", "did you mean \"batch_size\"?");
        refuse("zzzzzzzz=5", "zzzzzzzz", "unknown parameter; allowed: split");
        refuse("seed=-1", "seed", "out of range");
        refuse("seed=18446744073709551616", "seed", "out of range");
        refuse("shuffle=yes", "shuffle", "true or false");
        refuse("shard=1/1", "shard", "out of range");
        refuse("shard=0/0", "shard", "out of range");
        refuse("shard=0", "shard", "not a shard");
        refuse("shard=-1/2", "shard", "not a shard");
        refuse("step=0", "step", "out of range");
        refuse("split=validation", "split", "train, val or test");
        refuse("seed=1&seed=2", "seed", "given twice");
    }
}
