//! What a model is: its layers, without their numbers.

use std::fmt::Debug;

use tch::Tensor;

use crate::network::layers::{Builder, Layout, Pass};

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
    /// The network whose layers `declare` takes from a builder.
    pub(crate) fn new(declare: impl FnOnce(&mut Builder) -> Box<dyn Forward>) -> Model {
        let mut builder = Builder::default();
        let body = declare(&mut builder);
        let (matrices, vectors, statistics) = builder.finish();
        Model { body, matrices, vectors, statistics }
    }

    /// Trainable numbers.
    #[cfg(test)]
    pub(crate) fn parameters(&self) -> i64 {
        self.matrices.parameters() + self.vectors.parameters()
    }
}
