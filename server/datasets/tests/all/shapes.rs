use std::ops::ControlFlow;

use pba_datasets::{SplitName, shapes};

use crate::{label_of, pixels, shape, split};

/// The pictures are pinned: to change them is to change every batch that was ever served.
#[test]
fn shapes_are_the_same_everywhere() {
    let cache = tempfile::tempdir().unwrap();
    for _ in ["drawn", "cached"] {
        let dataset = shapes(cache.path(), &|_| ControlFlow::Continue(())).unwrap();
        let (train, test) = (split(&dataset, SplitName::Train), split(&dataset, SplitName::Test));
        assert_eq!((train.len(), test.len(), train.shape()), (10_000, 2_000, Some(shape(32, 32))));
        assert_eq!(
            train.digest().to_string(),
            "c09dd0d8c9c44040492de39f1a5875ff46de3dfbe978930048f43866aeaa7210"
        );
        assert_eq!(
            test.digest().to_string(),
            "fc5a1fc6b1684859d76464939809ee519d6668a3588864492414bfc0b377147f"
        );
        for class in 0..10 {
            assert_eq!((0..train.len()).filter(|&row| label_of(&train, row) == class).count(), 1_000);
        }
    }
}

/// Mean, deviation and contrast-weighted centroid of every channel.
fn statistics(image: &[u8]) -> Vec<f64> {
    let mut features = Vec::new();
    for channel in 0..3 {
        let values: Vec<f64> = image.iter().skip(channel).step_by(3).map(|&value| f64::from(value)).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let deviation = (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt();
        let weights: Vec<f64> = values.iter().map(|v| (v - mean) * (v - mean)).collect();
        let sum: f64 = weights.iter().sum::<f64>() + 1e-9;
        let x = weights.iter().enumerate().map(|(i, w)| w * (i % 32) as f64).sum::<f64>() / sum;
        let y = weights.iter().enumerate().map(|(i, w)| w * (i / 32) as f64).sum::<f64>() / sum;
        features.extend([mean, deviation, x, y]);
    }
    features
}

/// A nearest-centroid classifier on colour, contrast and position does little better than guess.
#[test]
fn colour_and_position_are_no_clue() {
    let cache = tempfile::tempdir().unwrap();
    let dataset = shapes(cache.path(), &|_| ControlFlow::Continue(())).unwrap();
    let (train, test) = (split(&dataset, SplitName::Train), split(&dataset, SplitName::Test));
    let all: Vec<Vec<f64>> = (0..train.len()).map(|row| statistics(&pixels(&train, row))).collect();
    let moments = |of: &mut dyn Iterator<Item = f64>| {
        let values: Vec<f64> = of.collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64)
    };
    let scales: Vec<f64> = (0..12).map(|f| moments(&mut all.iter().map(|v| v[f])).1.sqrt()).collect();
    let centroids: Vec<Vec<f64>> = (0..10)
        .map(|class| {
            let rows = || all.iter().enumerate().filter(move |(row, _)| train_label(*row) == class);
            (0..12).map(|f| moments(&mut rows().map(|(_, v)| v[f])).0).collect()
        })
        .collect();
    let right = (0..test.len())
        .filter(|&row| {
            let features = statistics(&pixels(&test, row));
            let distance = |class: usize| -> f64 {
                (0..12).map(|f| ((features[f] - centroids[class][f]) / scales[f]).powi(2)).sum()
            };
            let nearest = (0..10).min_by(|&a, &b| distance(a).total_cmp(&distance(b))).unwrap();
            nearest as i64 == label_of(&test, row)
        })
        .count();
    let accuracy = right as f64 / test.len() as f64;
    println!("nearest centroid: {accuracy}");
    assert!(accuracy < 0.14, "{accuracy}");
}

fn train_label(row: usize) -> usize {
    row % 10
}
