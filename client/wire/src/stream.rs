//! The Arrow side of a stream: its schema and the keys of its metadata.
//!
//! | column | type | meaning |
//! | --- | --- | --- |
//! | `image` | `FixedSizeList<uint8>[H*W*C]`, extension `arrow.fixed_shape_tensor` | pixels, row by row, RGB |
//! | `label` | int64 | class |
//! | `index` | uint64 | the sample's position in the dataset |

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema};
use serde::Deserialize;

/// The media type of an Arrow IPC stream.
pub const CONTENT_TYPE: &str = "application/vnd.apache.arrow.stream";
/// Channels of every image: red, green, blue.
pub const CHANNELS: u32 = 3;

/// Metadata key: version of the server that sent the stream.
pub const VERSION: &str = "pba.version";
/// Metadata key: digest of the dataset split.
pub const DATASET: &str = "pba.dataset";
/// Metadata key: digest of the schedule or policy, or `none`, or `identity`.
pub const SCHEDULE: &str = "pba.schedule";
/// Metadata key: digest of everything that pixels and order depend on, in all epochs of a training run. Two
/// streams with the same one, of the same epoch, hold the same samples with the same pixels.
pub const RECIPE: &str = "pba.recipe";
/// Metadata key: epoch, 0-based.
pub const EPOCH: &str = "pba.epoch";
/// Metadata key: seed.
pub const SEED: &str = "pba.seed";
/// Metadata key: shard of the epoch, `i/n`.
pub const SHARD: &str = "pba.shard";
/// Metadata key: images of each batch but perhaps the last.
pub const BATCH_SIZE: &str = "pba.batch_size";
/// Metadata key: samples at the beginning of the epoch's order that are in no shard of this answer.
pub const SKIP: &str = "pba.skip";
/// Metadata key: number of the first batch of this answer in its shard.
pub const START: &str = "pba.start";
/// Metadata key: by how much the number of a batch is above that of the one before.
pub const STEP: &str = "pba.step";
/// Metadata key: how many batches this answer holds.
pub const BATCHES: &str = "pba.batches";
/// Metadata key: how many rows this answer holds.
pub const ROWS: &str = "pba.rows";
/// Metadata key: mean per channel, 0..1, a JSON list.
pub const MEAN: &str = "pba.mean";
/// Metadata key: standard deviation per channel, 0..1, a JSON list.
pub const STD: &str = "pba.std";
/// Metadata key: class names, a JSON list.
pub const CLASSES: &str = "pba.classes";

/// The metadata of Arrow's extension type `fixed_shape_tensor`, as far as it is read here.
#[derive(Deserialize)]
struct Tensor {
    shape: [u32; 3],
}

/// The schema of a stream of `height` x `width` images.
pub fn schema(height: u32, width: u32, metadata: BTreeMap<String, String>) -> Schema {
    let pixel = Field::new("item", DataType::UInt8, false);
    let length = i32::try_from(height * width * CHANNELS).expect("image sides are bounded");
    let tensor = format!(r#"{{"shape":[{height},{width},{CHANNELS}],"dim_names":["H","W","C"]}}"#);
    let image = Field::new("image", DataType::FixedSizeList(Arc::new(pixel), length), false).with_metadata([
        ("ARROW:extension:name", "arrow.fixed_shape_tensor"),
        ("ARROW:extension:metadata", tensor.as_str()),
    ]);
    let label = Field::new("label", DataType::Int64, false);
    let index = Field::new("index", DataType::UInt64, false);
    Schema::new_with_metadata(vec![image, label, index], metadata)
}

/// Height and width of the images of a stream, read from its schema.
pub fn image_shape(schema: &Schema) -> Option<(u32, u32)> {
    let image = schema.field_with_name("image").ok()?;
    let tensor: Tensor = serde_json::from_str(image.metadata().get("ARROW:extension:metadata")?).ok()?;
    let [height, width, _] = tensor.shape;
    Some((height, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_names_its_shape() {
        let schema = schema(33, 47, BTreeMap::new());
        assert_eq!(image_shape(&schema), Some((33, 47)));
        assert_eq!(schema.field(0).data_type().to_string(), "FixedSizeList(4653 x non-null UInt8)");
    }
}
