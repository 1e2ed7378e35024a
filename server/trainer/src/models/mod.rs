//! The networks, one file each.

mod resnet;
mod tiny;
mod wide_resnet;

use std::fmt::Debug;

use pba_search::ModelName;
use tch::Tensor;

use crate::layers::{Builder, Layout, Pass};

/// From normalised pixels `[images, members * 3, height, width]` to logits
/// `[members, images, classes]`.
pub(crate) trait Forward: Debug + Send + Sync {
    fn forward(&self, pass: &Pass<'_>, images: &Tensor) -> Tensor;
}

/// A network without its numbers.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) body: Box<dyn Forward>,
    pub(crate) matrices: Layout,
    pub(crate) vectors: Layout,
    pub(crate) statistics: Layout,
}

impl Model {
    /// The network of a name that [is built](ModelName::is_built).
    pub(crate) fn new(name: ModelName, classes: usize) -> Model {
        let mut builder = Builder::default();
        let classes = classes as i64;
        let body: Box<dyn Forward> = match name {
            ModelName::Tiny => Box::new(tiny::Tiny::new(&mut builder, classes)),
            ModelName::ResNet20 => Box::new(resnet::ResNet::new(&mut builder, classes)),
            ModelName::WideResNet { depth, width } => {
                Box::new(wide_resnet::WideResNet::new(&mut builder, depth.into(), width.into(), classes))
            }
            ModelName::ShakeShake26 { .. } | ModelName::PyramidNet272 => {
                unreachable!("a checked spec names a model that is built")
            }
        };
        let (matrices, vectors, statistics) = builder.finish();
        Model { body, matrices, vectors, statistics }
    }

    /// Trainable numbers.
    #[cfg(test)]
    pub(crate) fn parameters(&self) -> i64 {
        self.matrices.parameters() + self.vectors.parameters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, classes: usize, parameters: i64) {
        assert_eq!(Model::new(name.parse().unwrap(), classes).parameters(), parameters, "{name}");
    }

    #[test]
    fn parameter_counts_are_the_references() {
        check("wrn-40-2", 10, 2_243_546);
        check("wrn-28-2", 10, 1_467_610);
        check("wrn-28-10", 10, 36_479_194);
        check("wrn-28-10", 100, 36_536_884);
        // He et al. 2016 say 0.27 M, without convolutions in the shortcuts.
        check("resnet-20", 10, 269_722);
    }
}
