//! The networks, one file each.

mod resnet;
mod tiny;
mod wide_resnet;

use pba_search::ModelName;

use crate::network::model::{Forward, Model};

/// The network of a name that [is built](ModelName::is_built).
pub(crate) fn build(name: ModelName, classes: usize) -> Model {
    let classes = classes as i64;
    Model::new(|builder| -> Box<dyn Forward> {
        match name {
            ModelName::Tiny => Box::new(tiny::Tiny::new(builder, classes)),
            ModelName::ResNet20 => Box::new(resnet::ResNet::new(builder, classes)),
            ModelName::WideResNet { depth, width } => {
                Box::new(wide_resnet::WideResNet::new(builder, depth.into(), width.into(), classes))
            }
            ModelName::ShakeShake26 { .. } | ModelName::PyramidNet272 => {
                unreachable!("a checked spec names a model that is built")
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, classes: usize, parameters: i64) {
        assert_eq!(build(name.parse().unwrap(), classes).parameters(), parameters, "{name}");
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
