//! Writes a packed dataset of small random pictures, of as many samples as one likes, for
//! `benches/scaling.py`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use pba_augment::ImageShape;
use pba_augment::rng::{Address, Purpose};
use pba_benches::SEED;
use pba_datasets::{Measured, PackSpec, Packer};
use rand::Rng;

/// Distinct pictures; further samples repeat them.
const DISTINCT: usize = 1000;

/// Writes FOLDER/train.arrow.
#[derive(Parser)]
struct Arguments {
    /// Folder of the dataset, made when it is not there.
    folder: PathBuf,
    /// Samples of the training split.
    #[arg(long, default_value_t = 1000)]
    samples: u64,
    /// Height and width of the pictures.
    #[arg(long, default_value_t = 8)]
    size: u32,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let spec = PackSpec {
        classes: vec!["only".to_owned()],
        rows: arguments.samples,
        source: "random bytes".to_owned(),
    };
    let shape = ImageShape { height: arguments.size, width: arguments.size };
    let bytes = shape.rgb_bytes();
    let mut pictures = vec![0; DISTINCT * bytes];
    Address { seed: SEED, purpose: Purpose::Dataset, epoch: 0, item: 0 }.stream().fill_bytes(&mut pictures);
    let file = arguments.folder.join("train.arrow");
    let mut packer = Packer::create(&file, Some(shape), spec).context("cannot start the file")?;
    for sample in 0..arguments.samples {
        let start = (sample % DISTINCT as u64) as usize * bytes;
        let picture = &pictures[start..start + bytes];
        packer.push(picture, &Measured::of(shape, picture), 0)?;
    }
    packer.finish().context("cannot finish the file")
}
