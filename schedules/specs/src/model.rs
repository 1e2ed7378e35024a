//! The models that can be trained: their names, and the defaults of a spec for each.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Passes every model that can be trained to the macro `$then`. A model consists of its declaration
/// here, from which everything that knows models by name is derived, and of its network in
/// `models/FILE.rs` of the trainer:
///
/// ```text
/// /// What it is.
/// VARIANT { NUMBERS } in FILE {
///     name: how it is written, as a format string over its numbers,
///     allowed: how the name is shown to people,
///     all: every model of this variant,
///     defaults: TrainingDefaults,
/// }
/// ```
#[macro_export]
macro_rules! models {
    ($then:ident) => {
        $then! {
            /// `tiny`: a small CNN for CPUs and tests, trained on few images.
            Tiny {} in tiny {
                name: "tiny",
                allowed: "tiny",
                all: [ModelName::Tiny {}],
                defaults: TrainingDefaults { batch_size: 32, train_size: 1_000, val_size: 1_000, ..PAPER },
            }
            /// `resnet-20`: the residual network for 32x32 images with 20 layers (He et al. 2016).
            ResNet20 {} in resnet {
                name: "resnet-20",
                allowed: "resnet-20",
                all: [ModelName::ResNet20 {}],
                defaults: PAPER,
            }
            /// `wrn-D-K`: the wide residual network (Zagoruyko and Komodakis 2016).
            WideResNet {
                /// Layers: 6 n + 4.
                depth,
                /// Width factor K.
                width
            } in wide_resnet {
                name: "wrn-{depth}-{width}",
                allowed: "wrn-D-K (D = 10, 16, 22, 28, 34, 40 ... 100, K = 1..=20)",
                all: (10..=100).step_by(6).flat_map(|depth| {
                    (1..=20).map(move |width| ModelName::WideResNet { depth, width })
                }),
                defaults: PAPER,
            }
            /// `shake-shake-D-2xWd`: two branches in each block, mixed at random (Gastaldi 2017).
            ShakeShake {
                /// Layers: 6 n + 2.
                depth,
                /// Channels of the first stage.
                width
            } in shake_shake {
                name: "shake-shake-{depth}-2x{width}d",
                allowed: "shake-shake-D-2xWd (D = 8, 14, 20, 26 ... 38, W = 16, 32, 48 ... 112)",
                all: (8..=38).step_by(6).flat_map(|depth| {
                    (16..=112).step_by(16).map(move |width| ModelName::ShakeShake { depth, width })
                }),
                defaults: TrainingDefaults { lr: 0.01, weight_decay: 1e-3, ..PAPER },
            }
            /// `pyramidnet-D-aA-shakedrop`: bottlenecks that widen from block to block (Han et al. 2017), each
            /// weakened at random (ShakeDrop, Yamada et al. 2018).
            PyramidNet {
                /// Layers: 9 n + 2.
                depth,
                /// What all blocks together add to the width.
                alpha
            } in pyramid_net {
                name: "pyramidnet-{depth}-a{alpha}-shakedrop",
                allowed: "pyramidnet-D-aA-shakedrop (D = 11, 20, 29 ... 272, A = 48, 84, 200, 240, 270)",
                all: (11..=272).step_by(9).flat_map(|depth| {
                    [48, 84, 200, 240, 270].map(move |alpha| ModelName::PyramidNet { depth, alpha })
                }),
                defaults: TrainingDefaults { batch_size: 64, lr: 0.05, weight_decay: 5e-5, ..PAPER },
            }
        }
    };
}

/// Defaults of a spec for a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingDefaults {
    /// Images per step.
    pub batch_size: u32,
    /// Initial learning rate.
    pub lr: f64,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
    /// Images that a search trains on.
    pub train_size: usize,
    /// Images that a search scores members with.
    pub val_size: usize,
}

/// The paper's, with its reduced CIFAR-10.
const PAPER: TrainingDefaults =
    TrainingDefaults { batch_size: 128, lr: 0.1, weight_decay: 5e-4, train_size: 4_000, val_size: 10_000 };

macro_rules! declare {
    ($(
        $(#[$doc:meta])*
        $variant:ident { $($(#[$number_doc:meta])* $number:ident),* } in $file:ident {
            name: $name:literal,
            allowed: $allowed:literal,
            all: $all:expr,
            defaults: $defaults:expr,
        }
    )*) => {
        /// A network that can be trained.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ModelName {
            $($(#[$doc])* $variant { $($(#[$number_doc])* $number: u32),* },)*
        }

        impl ModelName {
            /// Defaults of a spec for this model.
            pub fn defaults(self) -> TrainingDefaults {
                match self {
                    $(ModelName::$variant { .. } => $defaults,)*
                }
            }

            /// The names that can be trained, for error messages and help texts.
            pub fn allowed() -> String {
                [$($allowed),*].join(", ")
            }

            /// Every model.
            fn all() -> impl Iterator<Item = ModelName> {
                std::iter::empty()$(.chain($all))*
            }
        }

        impl fmt::Display for ModelName {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(ModelName::$variant { $($number),* } => f.pad(&format!($name)),)*
                }
            }
        }
    };
}

models!(declare);

/// The paper's.
impl Default for ModelName {
    fn default() -> ModelName {
        ModelName::WideResNet { depth: 40, width: 2 }
    }
}

impl Serialize for ModelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A name that is not a model that can be trained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown model {:?}; the models are {}", .0, self.allowed())]
pub struct UnknownModel(String);

impl UnknownModel {
    /// The allowed names.
    pub fn allowed(&self) -> String {
        ModelName::allowed()
    }
}

impl FromStr for ModelName {
    type Err = UnknownModel;

    /// Reads a name as [`Display`](fmt::Display) writes it, and no other spelling of its numbers.
    fn from_str(name: &str) -> Result<ModelName, UnknownModel> {
        let found = ModelName::all().find(|model| model.to_string() == name);
        found.ok_or_else(|| UnknownModel(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for name in [
            "tiny",
            "resnet-20",
            "wrn-40-2",
            "wrn-28-10",
            "wrn-16-1",
            "wrn-10-1",
            "shake-shake-26-2x32d",
            "shake-shake-26-2x96d",
            "shake-shake-26-2x112d",
            "pyramidnet-272-a200-shakedrop",
            "pyramidnet-11-a48-shakedrop",
        ] {
            let model: ModelName = name.parse().unwrap();
            assert_eq!(model.to_string(), name);
        }
        assert_eq!(UnknownModel("vgg".to_owned()).allowed(), ModelName::allowed());
        let pyramid_net: ModelName = "pyramidnet-272-a200-shakedrop".parse().unwrap();
        assert_eq!(pyramid_net.defaults().batch_size, 64);
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
            "shake-shake-26-2x40d",
            "shake-shake-27-2x32d",
            "pyramidnet-272-a200",
            "pyramidnet-273-a200-shakedrop",
        ] {
            let error = name.parse::<ModelName>().unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}")) && error.contains("wrn-D-K"), "{error}");
        }
    }
}
