//! Names of models, checked before anything starts.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A network that can be trained, or that will be one day ([`ModelName::is_built`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelName {
    /// A small CNN for CPUs and tests.
    Tiny,
    /// The residual network for 32x32 images with 20 layers (He et al. 2016).
    ResNet20,
    /// `wrn-D-K`: the wide residual network (Zagoruyko and Komodakis 2016).
    WideResNet {
        /// Layers: 6 n + 4.
        depth: u32,
        /// Width factor K.
        width: u32,
    },
    /// `shake-shake-26-2x{width}d` (Gastaldi 2017).
    ShakeShake26 {
        /// Channels of the first stage: 32, 96 or 112.
        width: u32,
    },
    /// `pyramidnet-272-a200-shakedrop` (Han et al. 2017, Yamada et al. 2018).
    PyramidNet272,
}

impl ModelName {
    /// The names that can be trained, for error messages and help texts.
    pub const BUILT: &str = "tiny, resnet-20, wrn-D-K (D = 10, 16, 22, 28, 34, 40 ... 100, K = 1..=20)";

    /// False for the names that are understood, but whose network is not written yet.
    pub fn is_built(self) -> bool {
        !matches!(self, ModelName::ShakeShake26 { .. } | ModelName::PyramidNet272)
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelName::Tiny => f.pad("tiny"),
            ModelName::ResNet20 => f.pad("resnet-20"),
            ModelName::WideResNet { depth, width } => f.pad(&format!("wrn-{depth}-{width}")),
            ModelName::ShakeShake26 { width } => f.pad(&format!("shake-shake-26-2x{width}d")),
            ModelName::PyramidNet272 => f.pad("pyramidnet-272-a200-shakedrop"),
        }
    }
}

impl Serialize for ModelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A name that is no model's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown model {name:?}; the models are {}", ModelName::BUILT)]
pub struct UnknownModel {
    /// The name that was given.
    pub name: String,
}

impl FromStr for ModelName {
    type Err = UnknownModel;

    fn from_str(name: &str) -> Result<ModelName, UnknownModel> {
        let unknown = || UnknownModel { name: name.to_owned() };
        Ok(match name {
            "tiny" => ModelName::Tiny,
            "resnet-20" => ModelName::ResNet20,
            "shake-shake-26-2x32d" => ModelName::ShakeShake26 { width: 32 },
            "shake-shake-26-2x96d" => ModelName::ShakeShake26 { width: 96 },
            "shake-shake-26-2x112d" => ModelName::ShakeShake26 { width: 112 },
            "pyramidnet-272-a200-shakedrop" => ModelName::PyramidNet272,
            _ => {
                let (depth, width) =
                    name.strip_prefix("wrn-").and_then(|rest| rest.split_once('-')).ok_or_else(unknown)?;
                let number = |text: &str| text.parse::<u32>().map_err(|_| unknown());
                let model = ModelName::WideResNet { depth: number(depth)?, width: number(width)? };
                match model {
                    ModelName::WideResNet { depth: 10..=100, width: 1..=20 }
                        // Refuses other spellings of a number, such as +40 and 040.
                        if (number(depth)? - 4) % 6 == 0 && model.to_string() == name => model,
                    _ => return Err(unknown()),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for name in ["tiny", "resnet-20", "wrn-40-2", "wrn-28-10", "wrn-16-1", "wrn-10-1"] {
            let model: ModelName = name.parse().unwrap();
            assert!(model.is_built());
            assert_eq!(model.to_string(), name);
        }
        for name in ["shake-shake-26-2x96d", "pyramidnet-272-a200-shakedrop"] {
            let model: ModelName = name.parse().unwrap();
            assert!(!model.is_built());
            assert_eq!(model.to_string(), name);
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in [
            "",
            "Tiny",
            "wrn",
            "wrn-41-2",
            "wrn-4-2",
            "wrn-40-0",
            "wrn-40-21",
            "wrn-040-2",
            "wrn-+40-2",
            "vgg",
        ] {
            let error = name.parse::<ModelName>().unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}")) && error.contains("wrn-D-K"), "{error}");
        }
    }
}
