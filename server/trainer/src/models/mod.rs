//! The networks, one file each. Which there are is declared in [`pba_specs::models`].

use pba_specs::ModelName;

use crate::network::model::Model;

/// The files of the networks, and the match that joins each name to its network.
macro_rules! networks {
    ($(
        $(#[$doc:meta])*
        $variant:ident { $($(#[$number_doc:meta])* $number:ident),* } in $file:ident { $($declared:tt)* }
    )*) => {
        $(pub(crate) mod $file;)*

        /// The network of a name.
        pub(crate) fn build(name: ModelName, classes: usize) -> Model {
            match name {
                $(ModelName::$variant { $($number),* } => Model::new(|builder| {
                    $file::network(builder, $($number.into(),)* classes as i64)
                }),)*
            }
        }
    };
}

pba_specs::models!(networks);

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
        check("shake-shake-26-2x32d", 10, 2_923_162);
        check("shake-shake-26-2x32d", 100, 2_934_772);
        check("shake-shake-26-2x96d", 10, 26_192_922);
        check("shake-shake-26-2x96d", 100, 26_227_572);
        check("shake-shake-26-2x112d", 10, 35_640_442);
        check("shake-shake-26-2x112d", 100, 35_680_852);
        check("pyramidnet-272-a200-shakedrop", 10, 26_210_842);
        check("pyramidnet-272-a200-shakedrop", 100, 26_288_692);
        // He et al. 2016 say 0.27 M, without convolutions in the shortcuts.
        check("resnet-20", 10, 269_722);
    }
}
